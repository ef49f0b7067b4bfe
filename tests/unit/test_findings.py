"""Tables of findings: what they say of policies, backends and failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.findings import findings_of
from bench.analysis.rows import is_proved, rows_of
from bench.parity.proofs import ProvedSubject
from bench.report import make_report
from bench.report.compare import side_by_side
from bench.report.document import document
from bench.report.notes import chosen_at_edge, footnotes, warnings
from bench.report.page import details_of_rows
from bench.report.tables.runs import standard_table
from bench.report.tables.standard import backends_table, policies_table
from bench.report.terminal import runs_on_terminal
from bench.storage.results import StoredRun
from tests.unit.made_runs import RANDOM, Make, cell, found, published_before, tables

SEEDS = range(3)
LOST: dict[str, Any] = {"status": "diverged", "failure": {"kind": "diverged", "message": "no loss"},
                        "test_top1": None, "fit_s": None}  # fmt: skip
NEW = {"packages": {"torch": "9"}}


def test_the_article_s_policy_may_lead_or_be_ruled_out(make: Make) -> None:
    runs = [make(share, policy, seed) for seed in SEEDS
            for share, policy in ((0.7, "freeze_all"), (0.9, "fine_tune_all"))]  # fmt: skip
    table = tables(*runs)["cases"]
    assert cell(table, 0, "verdict") == "ruled out"
    assert cell(table, 0, "leader") == "fine_tune_all"
    assert cell(table, 0, "behind").startswith("+18.8 points (")
    policies = tables(*runs)["policies"]
    assert [cell(policies, n, "verdict") for n in (0, 1)] == ["ruled out", "best"]
    assert [cell(policies, n, "behind") for n in (0, 1)][1] == "leads"
    other = [make(share, policy, seed) for seed in SEEDS
             for share, policy in ((0.9, "freeze_all"), (0.6, "fine_tune_all"))]  # fmt: skip
    assert cell(tables(*other)["cases"], 0, "verdict") == "best"
    assert cell(tables(*other)["cases"], 0, "behind") == "leads"


def test_published_results_are_told_apart_where_a_method_without_power_saw_ties(
    tmp_path: Path,
) -> None:
    """Today's method called freeze_all a tie in 12 of 16 questions and the control in 6."""
    made = findings_of(rows_of(published_before(tmp_path)))
    words = [
        {standing.name: standing.word for standing in contest.standings}
        for contest in made.contests
    ]
    assert len(words) == 16
    assert sum(word["from_scratch"] == "ruled out" for word in words) == 16
    assert sum(word["freeze_all"] == "ruled out" for word in words) >= 8
    assert made.overall is not None
    behind = {s.name: s.behind.value if s.behind else 0.0 for s in made.overall.standings}
    assert behind["discriminative_lr"] == 0.0
    assert behind["freeze_all"] == pytest.approx(0.035, abs=0.001)
    assert behind["from_scratch"] == pytest.approx(0.309, abs=0.001)


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([(0.9, "freeze_all", None)], "no other policy was run"),
        ([(0.9, "freeze_all", LOST), (0.6, "from_scratch", None)],
         "failed: diverged"),
        ([(0.9, "fine_tune_all", None)], "not run"),
    ],
)  # fmt: skip
def test_a_case_says_why_it_has_no_verdict(
    make: Make, runs: list[tuple[float, str, dict[str, Any] | None]], verdict: str
) -> None:
    table = tables(*(make(share, name, result=result) for share, name, result in runs))["cases"]
    assert cell(table, 0, "verdict") == verdict


def test_a_case_whose_seeds_failed_is_not_compared(make: Make) -> None:
    runs = [make(0.9, seed=s, result=LOST if s == 0 else None) for s in SEEDS]
    runs += [make(0.5, "fine_tune_all", s) for s in SEEDS]
    made = tables(*runs)
    assert cell(made["cases"], 0, "verdict") == "not compared: seeds failed"
    assert cell(made["policies"], 0, "seeds") == "2 of 3"
    assert cell(made["policies"], 0, "verdict") == "not compared: seeds failed"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"weights": RANDOM}, "run with random weights"),
        ({"case": {"dataset": {"name": "rvl_cdip", "label": "rvl_cdip (synthetic pages)"}}},
         "generated images: meaningless"),
    ],
)  # fmt: skip
def test_meaningless_accuracies_have_no_verdict(
    make: Make, changes: dict[str, Any], verdict: str
) -> None:
    case = {key: value for key, value in changes.items() if key == "case"}
    table = tables(make(0.5, **changes), make(0.9, "from_scratch", **case))["cases"]
    assert cell(table, 0, "verdict") == verdict


def test_failures_have_a_table_and_only_failures_no_other(make: Make) -> None:
    failed = {"status": "oom", "failure": {"kind": "SIGKILL", "message": "no memory"},
              "test_top1": None, "fit_s": None}  # fmt: skip
    made = tables(make(0.9, result=failed))
    assert list(made) == ["failed"]
    assert cell(made["failed"], 0, "reason") == "no memory"
    other = make(0.9, "retrain_all")
    table = tables(make(0.9, result=failed), other)["cases"]
    assert cell(table, 0, "verdict") == "failed: oom"


def test_backends_are_compared_on_one_machine_only(make: Make) -> None:
    ours = [make(0.9, seed=s) for s in SEEDS]
    keras = [make(0.9, seed=s, backend="keras-tensorflow") for s in SEEDS]
    far = [make(0.9, seed=s, backend="keras-tensorflow", environment={"processor": "Another"})
           for s in SEEDS]  # fmt: skip
    assert len(found(*ours, *keras).pairs) == 1
    assert found(*ours, *far).pairs == []
    table = tables(*ours, *keras)["backends"]
    assert cell(table, 0, "backends") == "keras-tensorflow − torch"
    assert cell(table, 0, "top1_difference").startswith("0.0 points (")


def test_equal_backends_are_shown_equal_and_different_ones_to_differ(make: Make) -> None:
    equal = findings_of(
        rows_of(
            [make(0.9, seed=s, backend=b) for s in SEEDS for b in ("torch", "keras-tensorflow")]
        ),
        margin=0.05,
    )
    assert equal.pairs[0].verdict == "equal"
    assert cell(backends_table(equal), 0, "verdict") == "equal within 5 points"
    apart = [make(share, seed=s, backend=b) for s in SEEDS
             for b, share in (("torch", 0.9), ("keras-tensorflow", 0.7))]  # fmt: skip
    assert found(*apart).pairs[0].verdict == "differ"


def test_backends_with_other_learning_rates_are_not_compared(make: Make) -> None:
    runs = [make(0.9, backend=b, result={"learning_rate": rate})
            for b, rate in (("torch", 0.1), ("keras-tensorflow", 0.2))]  # fmt: skip
    assert cell(tables(*runs)["backends"], 0, "verdict") == "not compared: other learning rates"
    assert [row.pairing for row in rows_of(runs)] == ["other_rate", "other_rate"]


def test_a_proof_covers_its_own_environments_alone(make: Make) -> None:
    """An old proof does not cover an upgraded Keras."""
    torch = make(0.9)
    old, new = (make(0.9, backend="keras-tensorflow", environment={"packages": {"keras": v}})
                for v in ("1", "2"))  # fmt: skip
    runs = [torch, old, new]
    shown = [ProvedSubject.of_run(torch.spec, (r.result.environment_id for r in (torch, old)))]
    rows = rows_of(runs, shown)
    assert {row["environment_id"]: row["parity"] for row in rows} == {
        torch.result.environment_id: "shown",
        old.result.environment_id: "shown",
        new.result.environment_id: "not_shown",
    }
    table = backends_table(findings_of(rows, shown))
    places = [cell(table, n, "setting") for n in range(2)]
    assert dict(zip(places, (cell(table, n, "parity") for n in range(2)), strict=True)) == {
        f"keras-tensorflow: environment {old.result.environment_id[:8]}": "proved",
        f"keras-tensorflow: environment {new.result.environment_id[:8]}": "not_shown",
    }
    (a, b) = rows_of([torch, new])
    assert not is_proved(a, b, shown)


FINGERPRINT = {"step_losses": [2.0, 1.9], "repeated_losses": [2.0, 1.9],
               "logits_after_step": [0.1, 0.2]}  # fmt: skip


def test_runs_whose_first_steps_agree_are_paired(make: Make) -> None:
    runs = [make(0.9, backend=b, result={"fingerprint": FINGERPRINT})
            for b in ("torch", "keras-tensorflow")]  # fmt: skip
    assert [row.pairing for row in rows_of(runs)] == ["paired", "paired"]
    assert any(note.startswith("parity paired: ") for note in footnotes(rows_of(runs)))
    alone = rows_of(runs[:1])
    assert alone[0].pairing is None
    other = make(0.9, backend="keras-tensorflow",
                 result={"fingerprint": {**FINGERPRINT, "step_losses": [2.0, 2.9]}})  # fmt: skip
    assert {row.pairing for row in rows_of([runs[0], other])} == {"differs"}
    earlier = make(0.9, backend="keras-tensorflow", environment={"thawbench": "0.1.0+abc"})
    assert {row.pairing for row in rows_of([runs[0], earlier])} == {"not_shown"}, (
        "nothing of the first steps was compared"
    )


def test_rows_that_would_look_alike_differ_in_a_setting(make: Make) -> None:
    runs = [make(0.9), make(0.9, recipe={"px": 64}), make(0.9, environment={"cores": 64})]
    table = tables(*runs)["policies"]
    settings = [cell(table, row, "setting") for row in range(3)]
    assert len(set(settings)) == 3
    assert "px 64" in " ".join(settings)
    assert "setting" not in [c.name for c in tables(make(0.9))["policies"].columns]


def test_networks_on_the_front_are_beaten_by_none_in_both(make: Make) -> None:
    choices = (("vgg16", 0.9, 10.0), ("resnet50", 0.8, 20.0), ("alexnet", 0.7, 1.0))
    runs = [make(share, backbone=name, luck=0.0, result={"fit_s": fit})
            for name, share, fit in choices]  # fmt: skip
    table = tables(*runs)["policies"]
    front = {cell(table, n, "backbone"): cell(table, n, "front") for n in range(3)}
    assert front == {"vgg16": "on the front", "resnet50": "–", "alexnet": "on the front"}
    assert "front" not in [column.name for column in tables(runs[0])["policies"].columns]


def trials(*rates: float) -> list[dict[str, float]]:
    return [{"learning_rate": rate, "val_top1": 0.5, "val_loss": 1.0} for rate in rates]


def test_rates_at_the_edge_are_marked_in_every_table(make: Make) -> None:
    grid = trials(0.001, 0.003, 0.01)
    chosen = {"freeze_all": 0.01, "fine_tune_all": 0.003, "retrain_all": 0.001}
    runs = [make(0.9, name, result={"tuning": grid, "learning_rate": rate})
            for name, rate in chosen.items()]  # fmt: skip
    made = found(*runs)
    assert chosen_at_edge(made.groups) == {"freeze_all": (1, 1), "retrain_all": (1, 1)}
    table = policies_table(made)
    rates = [cell(table, n, "learning_rate_chosen") for n in range(3)]
    assert rates == ["0.01 *", "0.003", "0.001 *"]
    marked = [cell(table, n, "test_top1").endswith("%) *") for n in range(3)]
    assert [cell(table, n, "test_top1")[-1] == "*" for n in range(3)] == [True, False, True]
    assert not any(marked)
    (note,) = [n for n in warnings(rows_of(runs)) if n.startswith("learning rate")]
    assert "in 2 of 3 runs" in note
    others = tables(*runs, *(make(0.9, run.spec.policy.name, backend="keras-tensorflow",
                                  result=run.result.model_dump(include={"tuning", "learning_rate"}))
                             for run in runs))  # fmt: skip
    assert cell(others["cases"], 0, "prescribed_top1").endswith("% *")
    edge = [cell(others["backends"], n, "top1_difference")[-1] == "*" for n in range(3)]
    assert edge == [True, False, True]
    of_runs = standard_table(rows_of(runs))["test top-1"]
    assert [text[-1] == "*" for text in of_runs] == [True, False, True]
    assert runs_on_terminal(rows_of(runs), 100).count("*") == 2


def test_before_and_after_are_not_compared_where_seeds_were_lost(make: Make) -> None:
    """The remaining seeds may be the lucky ones."""
    before = [make(0.7, seed=s) for s in SEEDS]
    after = [make(0.9, seed=s, environment=NEW) for s in SEEDS]

    def verdict(after: list[StoredRun]) -> str:
        made = side_by_side(before, after, ("before", "after"))
        return cell(next(t for t in made.tables if "top1" in t.name), 0, "verdict")

    assert verdict(after) == "significant: after is better"
    assert verdict([*after[:2], make(0.9, seed=2, environment=NEW, result=LOST)]) == "no interval"


@pytest.mark.parametrize("busy", ["first", "second"])
def test_two_folders_compare_no_speeds_of_a_busy_machine(make: Make, busy: str) -> None:
    slow, calm = {"step_s_p50": 0.01, "step_s_p95": 0.2}, {"step_s_p50": 0.01, "step_s_p95": 0.012}

    def fits(base: float, is_busy: bool, **more: Any) -> list[StoredRun]:
        return [make(0.9, seed=s, result={"fit_s": base + s / 10, **(slow if is_busy else calm)},
                     **more) for s in SEEDS]  # fmt: skip

    before = fits(5.0, busy == "first")
    after = fits(9.0, busy == "second", environment=NEW)
    side = side_by_side(before, after, ("before", "after"))
    assert [t.name for t in side.tables if "fit" in t.name] == []
    (sentence,) = [s for s in side.sentences if "unsteady" in s]
    assert sentence.startswith("Speeds of 1 of 1 experiment are not compared")


def test_what_both_folders_hold_is_shown_once(make: Make) -> None:
    before = [make(0.7, seed=s) for s in range(2)]
    sentences = " ".join(side_by_side(before, before, ("a", "b")).sentences)
    assert "2 runs of the same environment are in both folders" in sentences
    after = [make(0.7, seed=s, environment=NEW) for s in range(2)]
    assert "in both folders" not in " ".join(side_by_side(before, after, ("a", "b")).sentences)


def test_a_row_leads_to_its_own_run_where_one_spec_ran_on_two_machines(make: Make) -> None:
    runs = [make(0.9), make(0.8, environment={"cores": 64})]
    for order in (runs, runs[::-1]):
        made = make_report(order, order[0].folder.parent).page
        assert made is not None
        keys = list(made["runs"])
        leads = [keys[n] for n in details_of_rows(made) if n is not None]
        assert leads == [f"{r['run_id']}/{r['environment_id']}" for r in made["rows"]]


def test_details_have_the_knobs_of_their_own_run(make: Make) -> None:
    runs = [make(0.9, seed=s, result={"knobs": {"layout": layout, "threads": 2, "fused": fused}})
            for s, (layout, fused) in enumerate((("NHWC", True), ("NCHW", None)))]  # fmt: skip
    page = make_report(runs, runs[0].folder.parent).page
    assert page is not None
    own = [page["runs"][f"{r.result.run_id}/{r.result.environment_id}"]["knobs"] for r in runs]
    assert own == [{"layout": "NHWC"}, {"layout": "NCHW", "fused": None}]


def test_of_very_many_classes_the_largest_confusions_are_kept(make: Make) -> None:
    many = [f"class {number}" for number in range(41)]
    run = make(0.5, case={"dataset": {"classes": many}})
    (details,) = document(found(run), (), ())["runs"].values()
    assert details["confusion"] is None
    assert sum(count for *_, count in details["confusions"]["largest"]) > 100  # of 400 images


def test_images_that_were_left_out_are_named_and_left_out_again(make: Make) -> None:
    run = make(0.9, result={"unreadable_images": 3})
    assert any("unreadable images were left out in 1 of 1 run (at most 3 images in a run)" in note
               for note in footnotes(rows_of([run])))  # fmt: skip
    (details,) = document(found(run), (), ())["runs"].values()
    assert details["repeat"].endswith("--skip-unreadable")
    (whole,) = document(found(make(0.9)), (), ())["runs"].values()
    assert "--skip" not in whole["repeat"]


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


def test_the_order_of_rows_turns_no_difference_round(make: Make) -> None:
    rows = rows_of([make(0.9), make(0.9, backend="keras-tensorflow")])
    for order in (rows, rows[::-1]):
        (pair,) = findings_of(order).pairs
        assert (pair.a.row["backend"], pair.b.row["backend"]) == ("torch", "keras-tensorflow")
