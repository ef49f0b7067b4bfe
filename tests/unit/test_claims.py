"""Claims that the numbers do not allow, each of which the report once made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.analysis.findings import findings_of
from bench.analysis.groups import Comparison, Contest, SeedGroup, seed_groups_of
from bench.analysis.intervals import (
    Estimate,
    difference,
    mean_rate,
    mean_share,
    rate_of_windows,
    ratio,
)
from bench.analysis.rows import is_proved, rows_of
from bench.analysis.speed import compare_speeds
from bench.analysis.strategy import strategy_map
from bench.parity.proofs import ProvedSubject
from bench.report import make_report
from bench.report.answer import answer
from bench.report.compare import side_by_side
from bench.report.page import details_of_rows
from bench.report.plots.accuracy import plots
from bench.report.tables.cases import cases_table
from bench.report.tables.standard import backbones_table, backends_table, policies_table
from bench.storage.results import StoredRun
from tests.unit.made_runs import IMAGES, Make, cell, found, tables

Result = dict[str, Any]


def proof(*runs: StoredRun) -> ProvedSubject:
    return ProvedSubject.of_run(runs[0].spec, (run.result.environment_id for run in runs))


def test_a_proof_speaks_of_its_own_environments_alone(make: Make) -> None:
    """An old proof does not cover an upgraded Keras."""
    torch = make(0.9)
    old, new = (make(0.9, backend="keras-tensorflow", environment={"packages": {"keras": v}})
                for v in ("1", "2"))  # fmt: skip
    runs, shown = [torch, old, new], [proof(torch, old)]
    parity = {row["environment_id"]: row["parity"] for row in rows_of(runs, shown)}
    assert parity[old.result.environment_id] == "shown"
    assert parity[new.result.environment_id] == "not_shown"
    assert parity[torch.result.environment_id] == "shown"  # of one of the two
    table = backends_table(findings_of(rows_of(runs, shown), shown).pairs)
    places = [cell(table, n, "setting") for n in range(2)]
    told = {place: cell(table, n, "parity") for n, place in enumerate(places)}
    assert told == {
        f"keras-tensorflow: environment {old.result.environment_id[:8]}": "shown",
        f"keras-tensorflow: environment {new.result.environment_id[:8]}": "not shown",
    }
    (a, b) = rows_of([torch, new])
    assert not is_proved(a, b, shown)


def contest(make: Make, *others: tuple[str, float, Estimate, float]) -> Contest:
    """Return a contest of the best and others that tie among themselves.

    Args:
        make: Fixture.
        others: (policy, accuracy, difference from the best, corrected p).
    """
    runs = [make(0.9), *(make(share, name) for name, share, _, _ in others)]
    best, *rest = seed_groups_of(rows_of(runs))
    rest.sort(key=lambda c: -c.top1.value)
    tie = Estimate(0.0, -0.1, 0.1, 1.0, "recipes", 3, IMAGES)
    pairs = [Comparison(best, c, e, p, 9) for c, (_, _, e, p) in zip(rest, others, strict=True)]
    pairs += [Comparison(a, b, tie, 1.0, 9) for n, a in enumerate(rest) for b in rest[n + 1 :]]
    return Contest((best, *rest), tuple(pairs), 0)


REAL = Estimate(-0.05, -0.06, -0.04, 0.001, "recipes", 3, IMAGES)
WIDE = Estimate(-0.2, -0.39, -0.01, 0.03, "recipes", 3, IMAGES)


def test_a_tie_is_of_those_that_tie_not_of_the_first_two(make: Make) -> None:
    """The second is significantly worse than the best; the third, less certain, is not."""
    made = contest(make, ("fine_tune_last", 0.85, REAL, 0.005), ("from_scratch", 0.7, WIDE, 0.053))
    names = [c.row["policy"] for c in made.leaders]
    assert names == ["freeze_all", "from_scratch"]
    drawn = strategy_map([made])
    assert drawn is not None
    (here,) = (c for c in drawn["cells"] if c["best"])
    assert (here["best"], here["is_tie"]) == (names, True)
    table = cases_table([made], [])
    assert cell(table, 0, "best") == "freeze_all = from_scratch"
    assert cell(table, 0, "verdict") == "tie after correction"


def test_the_map_names_one_policy_only_where_it_is_best_everywhere(make: Make) -> None:
    runs = {name: make(share, name) for name, share in (("freeze_all", 0.9), ("retrain_all", 0.8))}
    a, b = seed_groups_of(rows_of(runs.values()))

    def judged(first: SeedGroup, second: SeedGroup, p: float) -> Contest:
        return Contest((first, second), (Comparison(first, second, REAL, p, 1),), 0)

    def best(*contests: Contest) -> tuple[list[str], bool]:
        drawn = strategy_map(contests)
        assert drawn is not None
        (here,) = (c for c in drawn["cells"] if c["best"])
        return here["best"], here["is_tie"]

    names = ["freeze_all", "retrain_all"]
    assert best(judged(a, b, 0.001), judged(a, b, 0.001))[0] == names[:1]
    assert best(judged(a, b, 0.2), judged(a, b, 0.2)) == (names, True)
    assert best(judged(a, b, 0.001), judged(a, b, 0.2)) == (names, False)
    assert best(judged(a, b, 0.001), judged(b, a, 0.001)) == (names, False)


def test_the_article_s_policy_from_a_file_is_still_the_article_s(make: Make) -> None:
    weights = {"kind": "file", "source": "own.pth", "sha256": "ef" * 32}
    runs = [make(0.9, weights=weights), make(0.6, "fine_tune_all", weights=weights)]
    table = tables(*runs)["cases"]
    assert cell(table, 0, "verdict").startswith("the article's is best, +29 points (24 to 34) over")
    assert "article's policy is best in 1" in answer(found(*runs))[0]
    drawn = strategy_map(found(*runs).contests)
    assert drawn is not None
    (here,) = (c for c in drawn["cells"] if c["best"])
    assert here["is_prescribed"] == [True]


def test_the_map_knows_the_article_s_policy_of_data_that_are_no_case(make: Make) -> None:
    runs = [make(0.9, case={"number": None}), make(0.6, "fine_tune_all", case={"number": None})]
    drawn = strategy_map(found(*runs).contests)
    assert drawn is not None
    (here,) = (c for c in drawn["cells"] if c["best"])
    assert (here["best"], here["prescribed"]) == (["freeze_all"], "freeze_all")
    assert here["is_prescribed"] == [True]


def test_of_two_files_of_weights_validation_says_which_is_the_article_s(make: Make) -> None:
    """Not the test images, by which the better of two would always win."""
    files = [{"kind": "file", "source": f"{n}.pth", "sha256": n * 64} for n in "ab"]
    runs = [make(share, weights=w, result={"val_top1_by_epoch": [val]})
            for w, share, val in zip(files, (0.5, 0.9), (0.8, 0.7), strict=True)]  # fmt: skip
    (contest,) = found(*runs).contests
    assert contest.prescribed is not None
    assert contest.prescribed.row["weights"].startswith("file a.pth")


def test_where_seeds_were_lost_the_highest_is_not_called_best(make: Make) -> None:
    runs = [make(share, policy, seed) for seed in range(3)
            for share, policy in ((0.9, "freeze_all"), (0.6, "from_scratch"))]  # fmt: skip
    lost = {"status": "diverged", "failure": {"kind": "d", "message": "m"}, "test_top1": None}
    runs[0] = make(0.9, result=lost)
    told = cell(tables(*runs)["cases"], 0, "best")
    assert told == "freeze_all is highest, not compared with all"
    policies = tables(*runs)["policies"]
    assert cell(policies, 0, "beside_best_verdict") == "highest, not compared with all"


def test_a_policy_is_beaten_by_any_that_is_better(make: Make) -> None:
    """The first is too uncertain to beat the article's, the second is certain."""
    runs = [make(0.95, "from_scratch"), make(0.9, "fine_tune_all"), make(0.85)]
    first, second, ours = sorted(seed_groups_of(rows_of(runs)), key=lambda c: -c.top1.value)
    tie = Estimate(0.0, -0.1, 0.1, 1.0, "recipes", 3, IMAGES)
    pairs = (Comparison(first, second, tie, 1.0, 3), Comparison(first, ours, WIDE, 0.2, 3),
             Comparison(second, ours, REAL, 0.001, 3))  # fmt: skip
    made = Contest((first, second, ours), pairs, 0)
    assert made.better_than(ours) == (second,)
    table = cases_table([made], [])
    assert cell(table, 0, "verdict") == "fine_tune_all is better, +5.0 points (4.0 to 6.0)"
    assert cell(table, 0, "best") == "from_scratch = fine_tune_all"
    policies = policies_table(made.groups, [made])
    told = [cell(policies, n, "beside_best_verdict") for n in range(3)]
    assert told == ["highest, not alone", "tie", "tie after correction, worse than fine_tune_all"]


def test_networks_stand_in_one_row_only_with_the_same_settings(make: Make) -> None:
    runs = [make(share, luck=0.0, backbone=name, recipe={"augmentation": how})
            for name, how, share in (("vgg16", "none", 0.5), ("vgg16", "crop_flip", 0.7),
                                     ("resnet50", "none", 0.6), ("resnet50", "crop_flip", 0.8))
            ]  # fmt: skip
    table = backbones_table(seed_groups_of(rows_of(runs)))
    shares = {(cell(table, n, "resnet50_test_top1")[:2], cell(table, n, "vgg16_test_top1")[:2])
              for n in range(len(table.rows))}  # fmt: skip
    assert shares == {("60", "50"), ("80", "70")}
    assert {cell(table, n, "setting") for n in range(2)} == {
        "augmentation none", "augmentation crop_flip",
    }  # fmt: skip


@pytest.mark.parametrize(("images", "is_sure"), [(1, False), (5, False), (6, True), (200, True)])
def test_where_every_image_differs_the_sign_test_decides(images: int, is_sure: bool) -> None:
    e = difference(np.zeros((1, images)), np.ones((1, images)))
    assert e.value == 1.0
    assert e.low is not None
    assert e.high == 1.0
    assert e.p == pytest.approx(min(1.0, 2 * 0.5**images))
    assert (e.low > 0.0) == is_sure == (e.p < 0.05)
    turned = difference(np.ones((1, images)), np.zeros((1, images)))
    assert (turned.value, turned.low, turned.high) == (-1.0, -1.0, -e.low)
    three = difference(np.zeros((3, images)), np.ones((3, images)))
    assert (three.low, three.high, three.p, three.about) == (e.low, 1.0, e.p, "recipes")


def test_seeds_that_differ_the_opposite_way_on_every_image_are_no_difference() -> None:
    e = difference(np.array([[0.0] * 9, [1.0] * 9]), np.array([[1.0] * 9, [0.0] * 9]))
    assert (e.value, e.p) == (0.0, 1.0)
    assert e.low is not None
    assert e.high is not None
    assert e.low < 0.0 < e.high
    half = difference(np.zeros((2, 9)), np.array([[1.0] * 9, [0.0] * 9]))
    assert half.low is not None
    assert half.low < 0.25  # any other image may differ by −1


def test_rates_have_no_interval_below_zero() -> None:
    e = mean_rate([900.0, 1000.0, 100.0])
    assert e.value == pytest.approx(9e7 ** (1 / 3))
    assert e.low is not None
    assert 0.0 < e.low < 100.0
    steady = mean_rate([100.0, 101.0, 99.0])
    assert steady.low == pytest.approx(97.5, abs=0.1)
    assert steady.high == pytest.approx(102.5, abs=0.1)
    assert mean_rate([5.0, 5.0]).low is None
    with pytest.raises(ValueError, match="above 0"):
        mean_rate([5.0, 0.0, 5.0])


def test_a_printed_ratio_is_that_of_the_printed_rates() -> None:
    one, two = [900.0, 1000.0, 100.0], [450.0, 90.0, 800.0]
    e = ratio([[rate] for rate in one], [[rate] for rate in two])
    assert e.value == pytest.approx(mean_rate(two).value / mean_rate(one).value)


def test_shares_have_no_interval_beyond_all() -> None:
    e = mean_share([0.90, 0.99, 1.0])
    assert (e.value, e.high) == (pytest.approx(2.89 / 3), 1.0)
    assert e.low == pytest.approx(0.8266, abs=1e-4)  # t with 2 degrees of freedom, computed by hand


def test_two_runs_have_an_interval_from_their_windows() -> None:
    windows = [[99.0, 100.0, 101.0] * 5, [399.0, 400.0, 401.0] * 5]
    e = rate_of_windows(windows)
    assert e.value == pytest.approx(200.0)
    assert e.low is not None
    assert e.high is not None
    assert 198.9 < e.low < 200.0 < e.high < 201.0
    assert rate_of_windows([windows[0], [400.0]]).low is None


def test_seeds_that_agree_by_chance_leave_a_width() -> None:
    """Three equal means of independent answers."""
    apart = np.tile([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]], 10)
    e = difference(np.zeros((3, 30)), 0.1 + apart)
    assert e.low is not None
    assert e.high is not None
    # The 5 % quantile (chi-square, 2 degrees) is 0.0513 of the residual mean square.
    half = 4.302653 * (0.0512933 * float((apart**2).sum()) / 58 / 90) ** 0.5
    assert (e.high - e.low) / 2 == pytest.approx(half, rel=1e-4)


def test_a_network_whose_code_changed_has_a_column_for_each(make: Make) -> None:
    a, b = "aa" * 32, "bb" * 32
    runs = [
        make(share, luck=0.0, backbone=name, code_sha256=code)
        for name, code, share in (
            ("module:own", a, 0.5),
            ("module:own", b, 0.7),
            ("vgg16", None, 0.6),
        )
    ]
    table = backbones_table(seed_groups_of(rows_of(runs)))
    names = ("module:own aaaaaaaa", "module:own bbbbbbbb", "vgg16")
    assert [cell(table, 0, f"{n}_test_top1")[:2] for n in names] == ["50", "70", "60"]


def test_bars_of_two_data_sets_have_two_places(make: Make) -> None:
    runs = [make(0.9, case={"dataset": {"name": n, "label": n}},
                 result={"train_images_per_s": 100.0}) for n in ("aa", "bb")]  # fmt: skip
    (made,) = (p for p in plots(found(*runs)) if p["name"] == "throughput")
    (bars,) = made["figure"]["data"]
    assert len(set(bars["y"])) == 2
    assert bars["error_x"]["arrayminus"] == [0.0, 0.0]


def test_a_plot_of_several_data_sets_shows_one_at_a_time(make: Make) -> None:
    runs = [make(0.9, policy, case={"dataset": {"name": n, "label": n}}, result={"fit_s": t})
            for n in ("aa", "bb")
            for policy, t in (("freeze_all", 1.0), ("fine_tune_all", 9.0))]  # fmt: skip
    (made,) = (p for p in plots(found(*runs)) if p["name"] == "accuracy_time")
    (menu,) = made["figure"]["layout"]["updatemenus"]
    seen = [b["args"][0]["visible"] for b in menu["buttons"]]
    assert seen[0] == [t["visible"] for t in made["figure"]["data"]]
    assert [sum(both) for both in zip(*seen, strict=True)] == [1] * len(made["figure"]["data"])


def test_a_rate_over_too_few_windows_is_not_compared(make: Make) -> None:
    """The run itself states no rate."""
    runs = [make(0.9, backend=b, seed=s, result={"train_images_per_s": None, "fit_s": None,
                                                 "train_images_per_s_windows": [rate]})
            for s in range(3) for b, rate in (("torch", 100.0 + s), ("keras-tensorflow", 50.0))
            ]  # fmt: skip
    cells = seed_groups_of(rows_of(runs))
    assert compare_speeds([(cells[0], cells[1])])[0].ratio is None


def test_with_few_seeds_frameworks_too_are_compared_as_trained_models(make: Make) -> None:
    runs = [make(0.9), make(0.9, backend="keras-tensorflow")]
    (told,) = answer(found(*runs))
    assert "these trained models, not the recipes" in told


def test_a_recommendation_is_not_made_of_unsteady_runs(make: Make) -> None:
    def runs(**more: Any) -> list[StoredRun]:
        ways = ((0.905, "fine_tune_all", 20.0), (0.9, "freeze_all", 2.0))
        return [make(share, name, s, {"fit_s": t * (1 + s / 50), **more}, luck=0.0)
                for s in range(3) for share, name, t in ways]  # fmt: skip

    assert "quicker" in " ".join(answer(found(*runs())))
    busy = {"step_s_p50": 0.1, "step_s_p95": 0.9}
    assert "quicker" not in " ".join(answer(found(*runs(**busy))))


NEW = {"packages": {"torch": "9"}}
LOST: Result = {"status": "diverged", "failure": {"kind": "d", "message": "m"}, "test_top1": None}


def test_before_and_after_are_not_compared_where_seeds_were_lost(make: Make) -> None:
    """The remaining seeds may be the lucky ones."""
    before = [make(0.7, seed=s) for s in range(3)]
    after = [make(0.9, seed=s, environment=NEW) for s in range(3)]
    names = ("before", "after")

    def verdict(after: Sequence[StoredRun]) -> str:
        table = next(t for t in side_by_side(before, after, names).tables if "top1" in t.name)
        return cell(table, 0, "verdict")

    assert verdict(after) == "real: after is better"
    assert verdict([*after[:2], make(0.9, seed=2, environment=NEW, result=LOST)]) == "no interval"


def test_what_both_folders_hold_is_said_to_be_shown_once(make: Make) -> None:
    before = [make(0.7, seed=s) for s in range(2)]
    told = " ".join(side_by_side(before, before, ("a", "b")).sentences)
    assert "2 runs of the same environment are in both folders" in told
    after = [make(0.7, seed=s, environment=NEW) for s in range(2)]
    assert "in both folders" not in " ".join(side_by_side(before, after, ("a", "b")).sentences)


def test_a_row_leads_to_its_own_run_where_one_spec_ran_on_two_machines(make: Make) -> None:
    runs = [make(0.9), make(0.8, environment={"cores": 64})]
    for order in (runs, runs[::-1]):
        made = make_report(order, order[0].folder.parent).page
        assert made is not None
        keys = list(made["runs"])
        told = [keys[n] for n in details_of_rows(made) if n is not None]
        assert told == [f"{r['run_id']}/{r['environment_id']}" for r in made["rows"]]


def test_a_fold_has_the_knobs_of_its_own_run(make: Make) -> None:
    runs = [make(0.9, seed=s, result={"knobs": {"layout": layout, "threads": 2, "fused": fused}})
            for s, (layout, fused) in enumerate((("NHWC", True), ("NCHW", None)))]  # fmt: skip
    page = make_report(runs, runs[0].folder.parent).page
    assert page is not None
    own = [page["runs"][f"{r.result.run_id}/{r.result.environment_id}"]["knobs"] for r in runs]
    assert own == [{"layout": "NHWC"}, {"layout": "NCHW", "fused": None}]


def test_many_that_tie_are_counted(make: Make) -> None:
    names = ("freeze_all", "fine_tune_last", "fine_tune_all", "retrain_all", "from_scratch")
    table = tables(*(make(0.9, name) for name in names))["cases"]
    assert cell(table, 0, "best").startswith("all 5 tie; highest: ")
    few = tables(*(make(0.9, name) for name in names[:2]))["cases"]
    assert set(cell(few, 0, "best").split(" = ")) == set(names[:2])
    beaten = tables(*(make(0.9, name) for name in names[:4]), make(0.3, names[4]))["cases"]
    assert cell(beaten, 0, "best").startswith("all tie but from_scratch; highest: ")
