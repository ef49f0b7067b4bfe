"""Findings of a report: seed groups, contests and comparisons."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bench.analysis.findings import findings_of
from bench.analysis.groups import Comparison, Contest, policy_variant, seed_groups_of
from bench.analysis.intervals import Estimate
from bench.analysis.rows import rows_of
from bench.analysis.strategy import strategy_map
from bench.report.answer import answer, asked
from bench.report.plots.accuracy import pareto, plots
from bench.report.tables.cases import cases_table
from bench.storage.results import StoredRun
from tests.unit.made_runs import IMAGES, RANDOM, Make, cell, found, tables


def test_only_seeds_are_grouped(make: Make) -> None:
    runs = [make(0.8, seed=s) for s in range(3)]
    others = [make(0.8, recipe={"px": 64}), make(0.8, environment={"cores": 64})]
    others.append(make(0.8, environment={"packages": {"torch": "9"}}))
    cells = seed_groups_of(rows_of([*runs, *others]))
    assert sorted(len(c.rows) for c in cells) == [1, 1, 1, 3]


def test_a_clear_winner_is_named_and_a_tie_is_called_a_tie(make: Make) -> None:
    runs = [make(share, policy, seed) for seed in range(3)
            for share, policy in ((0.9, "freeze_all"), (0.895, "fine_tune_last"),
                                  (0.6, "from_scratch"))]  # fmt: skip
    (contest,) = found(*runs).contests
    assert {policy_variant(c) for c in contest.leaders} == {"freeze_all", "fine_tune_last"}
    told = " ".join(answer(found(*runs)))
    assert "the article's policy is tied with the best in 1" in told
    alone = [run for run in runs if run.spec.policy.name != "fine_tune_last"]
    assert "the article's policy is best in 1" in " ".join(answer(found(*alone)))


def test_what_does_not_stand_correction_names_no_winner(make: Make) -> None:
    """The single interval excludes zero, but p corrected for fifteen pairs is 0.2."""
    runs = [make(0.9), make(0.8, "from_scratch")]
    best, other = seed_groups_of(rows_of(runs))
    apart = Estimate(-0.1, -0.19, -0.01, 0.03, "recipes", 3, IMAGES)
    contest = Contest((best, other), (Comparison(best, other, apart, 0.2, 15),), 0)
    assert contest.leaders == (best, other)
    assert not contest.is_won
    table = cases_table([contest], [])
    assert cell(table, 0, "verdict") == "tie after correction"
    assert cell(table, 0, "best") == "freeze_all = from_scratch"
    sure = Contest((best, other), (Comparison(best, other, apart, 0.03, 1),), 0)
    assert sure.is_won
    assert cell(cases_table([sure], []), 0, "verdict") == (
        "the article's is best, +10 points (1 to 19) over from_scratch"
    )


def test_the_article_s_policy_can_be_beaten(make: Make) -> None:
    runs = [make(share, policy, seed) for seed in range(3)
            for share, policy in ((0.7, "freeze_all"), (0.9, "fine_tune_all"))]  # fmt: skip
    told = answer(found(*runs))[0]
    assert "beaten in 1" in told
    assert "fine_tune_all gets +19 points (14 to 23) more than freeze_all" in told
    policies = tables(*runs)["policies"]
    assert cell(policies, 0, "beside_best") == "−19 points (−23 to −14)"
    assert cell(policies, 0, "beside_best_verdict") == "worse"
    assert cell(policies, 1, "beside_best_verdict") == "best"
    table = tables(*runs)["cases"]
    assert cell(table, 0, "verdict") == "another is better"
    assert cell(table, 0, "best") == "fine_tune_all"
    assert cell(table, 0, "difference").startswith("+19 ")


def test_few_seeds_speak_of_these_models_and_say_so(make: Make) -> None:
    runs = [make(0.9), make(0.6, "from_scratch")]
    assert "these trained models, not the recipes" in answer(found(*runs))[0]
    more = [make(*a, seed=s) for s in range(3) for a in ((0.9,), (0.6, "from_scratch"))]
    assert "trained models" not in answer(found(*more))[0]


def test_without_predictions_nothing_is_said_to_differ(make: Make) -> None:
    runs = [make(0.9), make(0.5, "from_scratch")]
    for run in runs:
        (run.folder / "predictions.npz").write_bytes(b"torn")
    (contest,) = found(*runs).contests
    assert contest.comparisons[0].verdict == "not comparable"
    assert not contest.is_decided
    assert strategy_map(found(*runs).contests) is None
    table = tables(*runs)
    assert cell(table["cases"], 0, "verdict") == "not comparable: answers missing"
    assert cell(table["policies"], 1, "beside_best_verdict") == "not comparable: answers missing"


def test_answers_of_another_run_are_not_taken(make: Make) -> None:
    runs = [make(0.9), make(0.5, "from_scratch")]
    shutil.copyfile(runs[0].folder / "predictions.npz", runs[1].folder / "predictions.npz")
    assert found(*runs).contests[0].comparisons[0].verdict == "not comparable"


def test_the_seed_that_survived_names_no_winner(make: Make) -> None:
    failed = {"status": "diverged", "test_top1": None, "fit_s": None,
              "failure": {"kind": "diverged", "message": "no loss"}}  # fmt: skip
    runs = [make(0.7, seed=s) for s in range(3)]
    runs += [make(0.9, "fine_tune_all"), make(0.9, "fine_tune_all", 1, failed)]
    (contest,) = found(*runs).contests
    assert not contest.is_decided
    assert cell(tables(*runs)["policies"], 1, "seeds") == "1 of 2"


def test_seeds_that_were_not_run_are_not_made_up_for(make: Make) -> None:
    runs = [*(make(0.7, seed=s) for s in range(3)), make(0.9, "fine_tune_all")]
    assert found(*runs).contests[0].comparisons[0].top1 is None


def test_a_policy_that_failed_was_run(make: Make) -> None:
    failed = {"status": "diverged", "test_top1": None, "fit_s": None,
              "failure": {"kind": "diverged", "message": "no loss"}}  # fmt: skip
    made = tables(make(0.9, result=failed), make(0.6, "from_scratch"))
    assert cell(made["cases"], 0, "verdict") == "the article's policy: failed: diverged"


def test_seeds_that_share_one_measurement_have_no_interval_of_time(make: Make) -> None:
    """The frozen part's values were computed once, and their time is in every fit."""

    def run(backend: str, seed: int, prefix_s: float) -> StoredRun:
        return make(0.9, seed=seed, backend=backend, result={
            "fit_s": prefix_s + 0.1 + seed / 100, "prefix_s": prefix_s, "train_images_per_s": None,
            "prefix_values": "reused" if seed else "computed",
            "effective_images_per_s": 300.0 + seed})  # fmt: skip

    runs = [run(b, s, p) for s in range(3) for b, p in (("torch", 2.0), ("keras-tensorflow", 0.5))]
    made = tables(*runs)
    assert cell(made["backends"], 0, "speed_verdict") == "no interval"
    assert "±" not in cell(made["policies"], 0, "effective_images_per_s")
    assert cell(made["policies"], 0, "train_images_per_s") == "–"


def test_speeds_of_a_busy_machine_are_not_compared(make: Make) -> None:
    runs = [make(0.9, backend=b, result={"train_images_per_s_windows": [100.0] * 9,
                                         "step_s_p50": 0.1, "step_s_p95": 0.9})
            for b in ("torch", "keras-tensorflow")]  # fmt: skip
    table = tables(*runs)["backends"]
    assert (cell(table, 0, "speed_ratio"), cell(table, 0, "speed_of")) == ("–", "unsteady")


def test_the_order_of_rows_turns_no_difference_round(make: Make) -> None:
    runs = [make(0.9), make(0.9, backend="keras-tensorflow")]
    rows = rows_of(runs)
    for order in (rows, rows[::-1]):
        (pair,) = findings_of(order).pairs
        assert (pair.a.row["backend"], pair.b.row["backend"]) == ("torch", "keras-tensorflow")


def test_rows_that_would_look_alike_are_told_apart(make: Make) -> None:
    runs = [make(0.9), make(0.9, recipe={"px": 64}), make(0.9, environment={"cores": 64})]
    table = tables(*runs)["policies"]
    told = [cell(table, row, "setting") for row in range(3)]
    assert len(set(told)) == 3
    assert "px 64" in " ".join(told)
    assert "setting" not in [c.name for c in tables(make(0.9))["policies"].columns]


def test_lines_of_size_join_one_setting_only(make: Make) -> None:
    def run(images: int, cores: int) -> StoredRun:
        data = {"dataset": {"train_images": images, "content_hash": f"{images:064x}"}}
        return make(0.9, case=data, environment={"cores": cores})

    made = plots(found(*(run(n, c) for n in (100, 200) for c in (2, 64))))
    (sizes,) = (p for p in made if p["name"] == "accuracy_size")
    assert [line["x"] for line in sizes["figure"]["data"]] == [[100, 200], [100, 200]]


def test_other_test_images_are_not_paired(make: Make) -> None:
    runs = [make(0.9), make(0.5, "from_scratch")]
    with np.load(runs[1].folder / "predictions.npz") as arrays:
        other = {**arrays, "labels": 1 - arrays["labels"]}
    np.savez(runs[1].folder / "predictions.npz", **other)
    assert found(*runs).contests[0].comparisons[0].top1 is None


def test_accuracies_from_random_weights_answer_nothing(make: Make) -> None:
    runs = [make(0.9, weights=RANDOM), make(0.6, "fine_tune_all", weights=RANDOM)]
    told = answer(found(*runs))
    assert told == [
        "These results name no best policy: with random weights where pretrained ones belong, "
        "accuracy is meaningless."
    ]
    assert strategy_map(found(*runs).contests) is None


def test_backends_are_compared_on_one_machine_only(make: Make) -> None:
    ours = [make(0.9, seed=s) for s in range(3)]
    keras = [make(0.9, seed=s, backend="keras-tensorflow") for s in range(3)]
    far = [make(0.9, seed=s, backend="keras-tensorflow", environment={"processor": "Another"})
           for s in range(3)]  # fmt: skip
    assert len(found(*ours, *keras).pairs) == 1
    assert found(*ours, *far).pairs == []
    table = tables(*ours, *keras)["backends"]
    assert cell(table, 0, "verdict") == "tie"
    assert cell(table, 0, "backends") == "keras-tensorflow − torch"


def test_speeds_carry_intervals_and_ties(make: Make) -> None:
    def run(backend: str, seed: int, rate: float) -> StoredRun:
        windows = (rate + np.random.default_rng([seed, int(rate)]).normal(0, 1, 20)).tolist()
        return make(0.9, seed=seed, backend=backend, result={
            "train_images_per_s": rate, "train_images_per_s_windows": windows})  # fmt: skip

    fast = [run("torch", s, 100.0) for s in range(3)] + [
        run("keras-tensorflow", s, 150.0 + s) for s in range(3)
    ]
    table = tables(*fast)["backends"]
    assert cell(table, 0, "speed_verdict") == "keras-tensorflow is faster"
    assert cell(table, 0, "speed_ratio").startswith("1.51")
    even = [run("torch", s, 100.0 + 9 * s) for s in range(3)] + [
        run("keras-tensorflow", s, 118.0 - 9 * s) for s in range(3)
    ]
    assert cell(tables(*even)["backends"], 0, "speed_verdict") == "tie"


def test_several_settings_of_a_policy_compete_as_one_that_validation_chose(make: Make) -> None:
    runs = [
        make(0.9, recipe={"learning_rate": 0.1}, result={"val_top1_by_epoch": [0.4]}),
        make(0.7, recipe={"learning_rate": 0.2}, result={"val_top1_by_epoch": [0.8]}),
        make(0.5, "from_scratch"),
    ]
    (contest,) = found(*runs).contests
    assert contest.passed_over == 1
    (best,) = (c for c in contest.groups if policy_variant(c) == "freeze_all")
    assert best.row["learning_rate"] == 0.2


def test_the_cost_to_reach_an_accuracy(make: Make) -> None:
    runs = [
        make(0.9, result={"val_top1_by_epoch": [0.5, 0.88, 0.9, 0.9], "fit_s": 8.0},
             recipe={"epochs": 4}),
        make(0.6, "from_scratch", result={"val_top1_by_epoch": [0.1, 0.2, 0.3, 0.4]},
             recipe={"epochs": 4}),
    ]  # fmt: skip
    table = tables(*runs)["cost"]
    assert cell(table, 0, "target_val_top1") == "85.5%"
    assert (cell(table, 0, "epochs"), cell(table, 0, "seconds")) == ("2", "4 s")
    assert cell(table, 0, "images") == "432"
    assert (cell(table, 1, "reached"), cell(table, 1, "seconds")) == ("0 of 1", "–")


def test_failures_have_a_table_and_only_failures_no_other(make: Make) -> None:
    failed = {"status": "oom", "failure": {"kind": "SIGKILL", "message": "no memory"},
              "test_top1": None, "fit_s": None}  # fmt: skip
    made = tables(make(0.9, result=failed))
    assert list(made) == ["cases", "failed"]
    assert cell(made["cases"], 0, "verdict") == "no run is ok"
    assert cell(made["failed"], 0, "reason") == "no memory"
    assert answer(found(make(0.9, result=failed)))[0].startswith("No run is ok")


def test_the_map_names_leaders_beside_the_prescription(make: Make) -> None:
    runs = [make(share, policy, seed) for seed in range(3)
            for share, policy in ((0.9, "freeze_all"), (0.6, "from_scratch"))]  # fmt: skip
    drawn = strategy_map(found(*runs).contests)
    assert drawn is not None
    at = {(c["size"], c["similarity"]): c for c in drawn["cells"]}
    assert at["small", "similar"]["best"] == ["freeze_all"]
    assert at["medium", "similar"] == {
        "size": "medium", "similarity": "similar", "prescribed": "fine_tune_last", "best": [],
        "is_tie": False, "is_prescribed": [], "is_prescribed_run": False,
        "policies": 0, "questions": 0, "contests": [],
    }  # fmt: skip
    assert at["small", "not_similar"]["prescribed"] is None


def test_the_front_is_of_what_nothing_beats() -> None:
    points = [(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (9, 0.7), (10, 0.9)]
    assert pareto(points) == [(1, 0.5), (3, 0.7), (10, 0.9)]


def test_plots_escape_names_and_hold_numbers_only(make: Make) -> None:
    name = "<b>flowers</b>"
    runs = [make(0.9, case={"dataset": {"name": name, "label": name}}),
            make(0.6, "from_scratch", case={"dataset": {"name": name, "label": name}})]  # fmt: skip
    made = plots(found(*runs))
    assert {p["name"] for p in made} >= {"accuracy_time", "accuracy_parameters", "learning_curves"}
    assert "<b>" not in str(made)
    assert "&lt;b&gt;" in str(made)


def test_bars_of_two_machines_do_not_stand_on_one_another(make: Make) -> None:
    runs = [make(0.9), make(0.9, environment={"cores": 64})]
    (parts,) = (p for p in plots(found(*runs)) if p["name"] == "time_parts")
    (bars,) = (d for d in parts["figure"]["data"] if "compute" in d["name"])
    assert len(set(bars["y"])) == 2


def _timed(make: Make, share: float, policy: str, seed: int, fit_s: float) -> StoredRun:
    return make(share, policy, seed, {"fit_s": fit_s * (1 + seed / 50)}, luck=0.0)


def test_a_quicker_policy_that_loses_nothing_is_told_with_both_intervals(make: Make) -> None:
    ways = ((0.905, "fine_tune_all", 20.0), (0.9, "freeze_all", 2.0))
    runs = [_timed(make, share, name, seed, t) for seed in range(3) for share, name, t in ways]
    told = answer(found(*runs))[-1]
    assert "instead of 20.4 s for fine_tune_all: 10.0" in told
    assert "points (" in told


@pytest.mark.parametrize(("share", "fit_s"), [(0.7, 2.0), (0.9, 19.9)])
def test_a_quicker_policy_that_loses_much_or_saves_nothing_is_not(
    make: Make, share: float, fit_s: float
) -> None:
    runs = [_timed(make, *a, seed=seed, fit_s=t) for seed in range(3) for *a, t in (
        (0.9, "fine_tune_all", 20.0 - seed), (share, "freeze_all", fit_s))]  # fmt: skip
    assert "quicker" not in " ".join(answer(found(*runs)))


def test_the_answer_says_why_policies_could_not_be_compared(make: Make) -> None:
    runs = [make(0.9), make(0.5, "from_scratch")]
    (runs[0].folder / "predictions.npz").unlink()
    assert "no readable predictions (predictions.npz)" in answer(found(*runs))[0]


def test_backends_are_paired_under_the_same_circumstances(make: Make) -> None:
    runs = [make(0.9, backend=b, environment={"variables": v})
            for b in ("torch", "keras-tensorflow")
            for v in ({}, {"OMP_WAIT_POLICY": "PASSIVE"})]  # fmt: skip
    assert len(found(*runs).pairs) == 2


@pytest.mark.parametrize(
    ("versions", "pairs"),
    [
        (("aaa.bbb", "aaa.ccc"), 1),
        (("aaa.bbb", "ddd.ccc"), 0),
        (("0.1.0+aaa", "0.1.0+aaa"), 1),
        (("0.1.0+aaa", "0.2.0+aaa"), 0),
    ],
)
def test_backends_are_paired_where_the_code_that_they_share_is_the_same(
    make: Make, versions: tuple[str, str], pairs: int
) -> None:
    """An adapter's own digest follows that of the shared code; older runs have one for all."""
    runs = [
        make(0.9, backend=backend, environment={"thawbench": version, "variables": variables})
        for backend, version, variables in zip(
            ("torch", "keras-jax"),
            versions,
            ({"MALLOC_TRIM_THRESHOLD_": "1"}, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
            strict=True,
        )
    ]
    assert len(found(*runs).pairs) == pairs


def test_what_was_asked_names_data_networks_and_machine(make: Make) -> None:
    runs = [make(0.9)]
    told = asked(rows_of(runs))
    assert told == (
        "1 run of efficientnet_lite0 on photos (stand-in), with 1 seed. Policies: freeze_all. "
        "Backends: torch. Machine: 2 cores of A CPU."
    )


def test_seeds_are_counted_by_experiment(make: Make) -> None:
    three = [make(0.9, seed=s) for s in range(3)]
    assert "with 3 seeds each." in asked(rows_of(three))
    one = make(0.5, "from_scratch", seed=7)
    assert "with 1 seed." in asked(rows_of([one]))
    assert "with 1 to 3 seeds each." in asked(rows_of([*three, one]))
