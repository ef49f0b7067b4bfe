"""False claims that unusual results once led the report to make."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.intervals import Estimate, detectable, difference
from bench.analysis.rows import rows_of
from bench.analysis.speed import is_unsteady
from bench.report.answer import answer
from bench.report.compare import side_by_side
from bench.report.format import times
from bench.report.notes import footnotes, limits
from bench.report.tables.standard import policies_table
from bench.storage.results import StoredRun
from tests.unit.made_runs import RANDOM, Make, cell, found, tables

SEEDS = range(3)
NEW = {"packages": {"numpy": "2.0.0", "torch": "9.9"}}


def fits(make: Make, *fits_s: float, **more: object) -> list[StoredRun]:
    environment = more.pop("environment", None)
    changes = {} if environment is None else {"environment": environment}
    return [make(0.9, seed=s, result={"fit_s": fit, **more}, **changes)
            for s, fit in enumerate(fits_s)]  # fmt: skip


@pytest.mark.parametrize("busy", ["first", "second"])
def test_two_folders_compare_no_speeds_of_a_busy_machine(make: Make, busy: str) -> None:
    slow = {"step_s_p50": 0.01, "step_s_p95": 0.2}
    calm = {"step_s_p50": 0.01, "step_s_p95": 0.012}
    before = fits(make, 5.0, 5.1, 4.9, **(slow if busy == "first" else calm))
    after = fits(make, 9.0, 9.1, 8.9, **(slow if busy == "second" else calm), environment=NEW)
    side = side_by_side(before, after, ("before", "after"))
    assert [t.name for t in side.tables if "fit" in t.name] == []
    assert "takes longer" not in " ".join(side.sentences)
    (told,) = [s for s in side.sentences if "unsteady" in s]
    assert told.startswith("Speeds of 1 of 1 experiment are not compared")


def test_two_folders_tell_a_busy_run_by_others_of_its_own_folder(make: Make) -> None:
    """Inference is compared with a run that only the second folder holds."""
    before = fits(make, 5.0, 5.1, 4.9, infer_images_per_s=300.0)
    after = fits(make, 9.0, 9.1, 8.9, infer_images_per_s=30.0, environment=NEW)
    other = make(0.9, "fine_tune_all", result={"infer_images_per_s": 300.0}, environment=NEW)
    side = side_by_side(before, [*after, other], ("before", "after"))
    assert any(s.startswith("Speeds of 1 of 1 experiment") for s in side.sentences)
    alone = side_by_side(before, after, ("before", "after"))
    assert not any(s.startswith("Speeds of 1") for s in alone.sentences)


def test_small_batches_are_no_busy_machine(make: Make) -> None:
    runs = [make(0.9, recipe={"batch_size": size}, result={"infer_images_per_s": rate})
            for size, rate in ((4, 100.0), (128, 400.0))]  # fmt: skip
    assert [row["unsteady"] for row in rows_of(runs)] == [False, False]


def test_next_to_nothing_beside_compilation_is_no_busy_machine(make: Make) -> None:
    times_s = ((10.0, 9.9), (10.1, 9.95), (10.3, 9.7))
    runs = [make(0.9, seed=s, result={"fit_s": fit, "compile_s": compiled})
            for s, (fit, compiled) in enumerate(times_s)]  # fmt: skip
    assert not is_unsteady(found(*runs).groups[0])


def test_the_article_s_policy_with_random_weights_beside_pretrained_ones(make: Make) -> None:
    runs = [make(0.6, weights=RANDOM), make(0.9, "fine_tune_all"), make(0.7, "retrain_all")]
    table = tables(*runs)["cases"]
    assert cell(table, 0, "prescribed_top1") == "run with random weights"
    assert "validation accuracy" not in " ".join(table.notes)
    assert any(note.startswith("weights random: 1 of 3 runs") for note in footnotes(rows_of(runs)))


def test_a_policy_that_could_not_be_compared_does_not_hide_that_the_article_s_is_beaten(
    make: Make,
) -> None:
    runs = [make(share, name, s) for s in SEEDS
            for name, share in (("freeze_all", 0.6), ("fine_tune_all", 0.8))]  # fmt: skip
    failed = {"status": "diverged", "test_top1": None,
              "failure": {"kind": "diverged", "message": "no number"}}  # fmt: skip
    highest = [make(0.95, "retrain_all", s, result=failed if s == 0 else None) for s in SEEDS]
    made = found(*runs, *highest)
    told = answer(made)[0]
    assert "beaten in 1" in told
    assert "fine_tune_all gets +" in told
    verdict = cell(tables(*runs, *highest)["cases"], 0, "verdict")
    assert verdict.startswith("fine_tune_all is better, +")
    rival = [make(share, "fine_tune_all", s) for s, share in enumerate((0.6, 0.61, 0.6))]
    tied = answer(found(*runs[::2], *rival, *highest))
    assert tied[0].startswith("The best policy could not be compared with all others: seeds failed")


@pytest.mark.parametrize(
    ("field", "value"),
    [("schedule", "constant"), ("warmup_fraction", 0.25), ("momentum", 0.5), ("views", 3)],
)
def test_questions_that_differ_in_the_recipe_are_no_repetition(
    make: Make, field: str, value: object
) -> None:
    """Two recipes in two backends each are two experiments, each of them repeated."""
    runs = [
        make(0.9, name, backend=backend, recipe=recipe)
        for name in ("freeze_all", "fine_tune_all")
        for backend in ("torch", "keras-tensorflow")
        for recipe in ({}, {field: value})
    ]
    (told,) = (text for text in limits(found(*runs)) if "not independent" in text)
    assert told.startswith("These 4 questions")
    assert "Backends repeat the same 2 on" in told


def test_one_backend_repeats_nothing(make: Make) -> None:
    runs = [make(0.9, name, backbone=b) for name in ("freeze_all", "fine_tune_all")
            for b in ("vgg16", "resnet50")]  # fmt: skip
    told = " ".join(limits(found(*runs)))
    assert "These 2 questions share 1 test set and are not independent" in told
    assert "Backends repeat" not in told


def test_the_control_ties_in_questions_where_the_article_s_does(make: Make) -> None:
    """A tie of two other policies above the article's does not count."""
    runs = []
    for seed in SEEDS:
        tie = (("freeze_all", 0.9), ("fine_tune_all", 0.91), ("from_scratch", 0.9))
        beaten = (("freeze_all", 0.3), ("fine_tune_all", 0.9), ("from_scratch", 0.9))
        runs += [make(share, name, seed) for name, share in tie]
        runs += [make(share, name, seed, backbone="vgg16") for name, share in beaten]
    (told,) = answer(found(*runs))
    assert "tied with the best in 1 and beaten in 1" in told
    assert "is tied as well in 1" in told


def test_differences_of_shares_end_at_one(make: Make) -> None:
    a = np.zeros((3, 100))
    b = np.repeat([[0.1], [0.9], [0.2]], 100, axis=1) > np.linspace(0, 1, 100)
    e = difference(a, b)
    assert (e.low, e.high) == (-1.0 if e.low == -1.0 else e.low, 1.0)
    assert e.uncapped is not None
    assert e.uncapped > 1.0
    assert detectable(e, 1) == pytest.approx(e.uncapped)
    wild = {"freeze_all": (0.1, 0.95, 0.2), "fine_tune_all": (0.95, 0.3, 0.9)}
    runs = [make(share, name, s) for name, shares in wild.items() for s, share in enumerate(shares)]
    (told,) = answer(found(*runs))
    assert "this comparison cannot detect any difference" in told


def test_ratios_above_none_are_never_printed_as_none() -> None:
    def ratio(value: float, low: float, high: float) -> str:
        return times(Estimate(value, low, high, 0.5, "recipes", 3, 9))

    assert ratio(2.32, 0.37, 6.40) == "2.3 × (0.4 to 6.4)"
    assert ratio(1.43, 0.15, 13.7) == "1.4 × (0.1 to 13.7)"
    assert ratio(1.43, 0.012, 170.0).startswith("1.43 × (0.01 to ")


def test_seeds_of_a_pair_are_those_that_both_have(make: Make) -> None:
    runs = [make(0.9, seed=s) for s in SEEDS]
    runs += [make(0.9, seed=s, backend="keras-tensorflow") for s in (2, 3, 4)]
    assert cell(tables(*runs)["backends"], 0, "seeds") == "1"


def test_balanced_accuracy_that_equals_top1_by_chance(make: Make) -> None:
    alike = {"test_balanced_accuracy": 1.0, "test_top1": 1.0}
    cells = found(make(1.0, luck=0.0, result=alike)).groups
    (note,) = [n for n in policies_table(cells, []).notes if n.startswith("balanced")]
    assert note.startswith("balanced accuracy equals top-1 in every row here, as it does if")


def test_questions_without_the_article_s_policy_are_counted(make: Make) -> None:
    runs = [make(0.9), make(0.5, "fine_tune_all")]
    runs += [make(share, name, backbone="vgg16")
             for name, share in (("fine_tune_all", 0.9), ("retrain_all", 0.5))]  # fmt: skip
    assert "1 further question without the article's policy" in answer(found(*runs))[0]
