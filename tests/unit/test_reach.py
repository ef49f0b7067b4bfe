"""Limits of the numbers that a report states: ties, busy machines, rates at an edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.analysis.intervals import Estimate, detectable, difference, widened
from bench.analysis.rows import rows_of
from bench.analysis.speed import is_unsteady
from bench.report import make_report
from bench.report.answer import answer
from bench.report.document import document
from bench.report.notes import footnotes, limits
from bench.report.page import read_document
from bench.report.tables.standard import policies_table
from bench.storage.results import StoredRun
from tests.unit.made_runs import RANDOM, Make, cell, found, tables

SEEDS = range(3)


def test_what_could_have_been_told_apart_is_the_interval_at_the_corrected_level() -> None:
    a = np.zeros((3, 100))
    b = np.repeat([[0.1], [0.3], [0.2]], 100, axis=1)
    b[:, ::2] += 0.001  # otherwise every image differs by the same value
    e = difference(a, b)
    assert e.degrees == 2
    wider = stats.t.ppf(1 - 0.05 / 2 / 15, 2) / stats.t.ppf(0.975, 2)
    assert detectable(e, 15) == pytest.approx(e.half_width * wider)
    assert detectable(e, 1) == pytest.approx(e.half_width)
    one = difference(np.zeros((1, 50)), np.array([[1.0, 0.0] * 25]))
    assert detectable(one, 1) == pytest.approx(one.half_width)  # a bootstrap: by the normal law


def test_intervals_that_hold_together_are_wider() -> None:
    """By Bonferroni; a ratio's in its logarithm."""
    e = Estimate(0.1, 0.0, 0.2, 0.05, "recipes", 3, 100, degrees=2)
    wider = stats.t.ppf(1 - 0.05 / 2 / 4, 2) / stats.t.ppf(0.975, 2)
    assert widened(e, 4).high == pytest.approx(0.1 + 0.1 * wider)
    assert widened(e, 1) == e
    ratio = Estimate(2.0, 1.0, 4.0, 0.05, "recipes", 3, 9, degrees=2, is_ratio=True)
    assert widened(ratio, 4).low == pytest.approx(2.0 * 0.5**wider)
    assert widened(ratio, 4).high == pytest.approx(2.0 * 2.0**wider)


def test_a_tie_is_said_to_be_no_equality(make: Make) -> None:
    runs = [make(share, name, s) for s in SEEDS for name, share in
            (("freeze_all", 0.9), ("fine_tune_all", 0.91), ("from_scratch", 0.9))]  # fmt: skip
    (told,) = answer(found(*runs))
    assert "is tied with the best in 1. A tie does not mean equal: this comparison can only" in told
    assert told.endswith("points. from_scratch, the control, is tied as well in 1.")
    apart = [make(share, name, s) for s in SEEDS for name, share in
             (("freeze_all", 0.9), ("fine_tune_all", 0.91), ("from_scratch", 0.3))]  # fmt: skip
    assert "control" not in answer(found(*apart))[0]


def test_the_largest_difference_that_is_told_is_one_that_is_real(make: Make) -> None:
    """A larger difference with a wide interval does not count."""
    runs = []
    for seed in SEEDS:
        for backend, calm, wild in (("torch", 0.6, (0.2, 0.5, 0.8)),
                                    ("keras-tensorflow", 0.65, (0.4, 0.6, 0.7))):  # fmt: skip
            runs += [
                make(calm, seed=seed, backend=backend, luck=0.0),
                make(wild[seed], seed=seed, backend=backend, luck=0.0, backbone="vgg16"),
            ]
    told = " ".join(answer(found(*runs)))
    assert "differ in accuracy in 1 of 2 paired experiments" in told
    assert "The largest real difference, keras-tensorflow − torch, is +5" in told
    assert "vgg16" not in told


def test_backends_with_other_seeds_are_said_to_have_other_seeds(make: Make) -> None:
    runs = [make(0.9, seed=s) for s in SEEDS]
    runs += [make(0.9, seed=s, backend="keras-tensorflow") for s in range(2)]
    assert answer(found(*runs)) == [
        "Nothing can be compared image by image: the experiments were run with different seeds."
    ]
    assert cell(tables(*runs)["backends"], 0, "verdict") == "not comparable: other seeds"


def test_a_run_that_is_ok_without_an_accuracy_has_not_failed(make: Make) -> None:
    run = make(0.9, result={"test_top1": None})
    assert answer(found(run)) == ["No successful run has an accuracy, so there is no answer."]


def test_a_policy_with_random_weights_was_run(make: Make) -> None:
    table = tables(make(0.9, weights=RANDOM), make(0.9, "from_scratch"))["cases"]
    assert cell(table, 0, "prescribed_top1") == "run with random weights"
    assert cell(table, 0, "verdict") == "the article's policy: run with random weights"


def test_generated_images_make_no_policy_better(make: Make) -> None:
    pages = {"name": "rvl_cdip", "label": "rvl_cdip (synthetic pages)"}
    runs = [make(share, name, case={"dataset": pages}) for name, share in
            (("freeze_all", 0.5), ("fine_tune_all", 0.9))]  # fmt: skip
    assert cell(tables(*runs)["cases"], 0, "verdict") == "generated images: meaningless"


def times(make: Make, *fits_s: float, **more: object) -> list[StoredRun]:
    return [make(0.9, seed=s, result={"fit_s": fit, "train_images_per_s": 100.0 / fit, **more})
            for s, fit in enumerate(fits_s)]  # fmt: skip


def test_runs_of_one_experiment_that_took_many_times_as_long_are_unsteady(make: Make) -> None:
    busy, quiet = times(make, 1.26, 41.9, 33.2), times(make, 4.0, 4.4, 4.2)
    (cells, calm) = found(*busy).groups, found(*quiet).groups
    assert is_unsteady(cells[0])
    assert not is_unsteady(calm[0])
    table = policies_table(cells, [])
    assert cell(table, 0, "fit_s") == "1.26 to 41.9 s, unsteady"
    assert cell(table, 0, "train_images_per_s") == "2.39 to 79.4, unsteady"
    assert any(note.startswith("unsteady: ") for note in table.notes)
    assert cell(tables(*busy)["cost"], 0, "seconds").endswith(" s, unsteady")
    assert cell(policies_table(calm, []), 0, "fit_s") == "4.2 ± 0.5 s"
    others = [make(0.9, seed=s, backend="keras-tensorflow", result={"fit_s": 4.0}) for s in SEEDS]
    pair = tables(*busy, *others)["backends"]
    assert (cell(pair, 0, "speed_ratio"), cell(pair, 0, "speed_verdict")) == ("–", "unsteady")


def test_compilation_makes_no_run_unsteady(make: Make) -> None:
    times_s = ((20.0, 17.0), (3.0, 0.0), (3.1, 0.0))
    runs = [make(0.9, seed=s, result={"fit_s": fit, "compile_s": compiled})
            for s, (fit, compiled) in enumerate(times_s)]  # fmt: skip
    assert not is_unsteady(found(*runs).groups[0])


def trials(*rates: float) -> list[dict[str, float]]:
    return [{"learning_rate": rate, "val_top1": 0.5, "val_loss": 1.0} for rate in rates]


def test_rates_at_the_edge_of_the_grid_are_counted(make: Make, tmp_path: Path) -> None:
    grid = trials(0.001, 0.003, 0.01)
    chosen = {"freeze_all": 0.01, "fine_tune_all": 0.003, "retrain_all": 0.001}
    runs = [make(0.9, name, result={"tuning": grid, "learning_rate": rate})
            for name, rate in chosen.items()]  # fmt: skip
    (note,) = [n for n in limits(found(*runs)) if n.startswith("learning rates")]
    assert "in 1 of 3 tuned runs validation chose the highest rate" in note
    assert "Highest: freeze_all 1 of 1." in note
    assert "in 1 the lowest" in note
    inside = [make(0.9, "fine_tune_all", result={"tuning": grid, "learning_rate": 0.003})]
    assert not [n for n in limits(found(*inside)) if n.startswith("learning rates")]
    make_report(runs, tmp_path).write(("md",))
    assert note in read_document(tmp_path / "report.html")["notes"]


def test_questions_on_the_same_test_images_are_told(make: Make) -> None:
    runs = [make(0.9, policy, backend=backend) for policy in ("freeze_all", "fine_tune_all")
            for backend in ("torch", "keras-tensorflow")]  # fmt: skip
    told = " ".join(limits(found(*runs)))
    assert "These 2 questions share 1 test set and are not independent" in told
    assert "overlap" in told  # the crops of photos
    assert "not independent" not in " ".join(limits(found(*runs[::2])))


def test_frozen_parts_computed_once_are_counted_with_or_without_a_rate(make: Make) -> None:
    runs = [make(0.9, seed=s, result={"prefix_values": how, "effective_images_per_s": rate})
            for s, (how, rate) in enumerate((("computed", 50.0), ("reused", None)))]  # fmt: skip
    (note,) = [n for n in footnotes(rows_of(runs)) if n.startswith("effective images/s")]
    assert "in 2 of 2 runs" in note
    assert "1 reused the values" in note


def test_the_cost_table_names_data_as_the_others_do(make: Make) -> None:
    made = tables(make(0.9))
    assert cell(made["cost"], 0, "data") == cell(made["policies"], 0, "data")
    raw = [c.raw for c in made["cost"].rows[0]]
    assert raw[0] == "photos (stand-in), 216"


def test_balanced_accuracy_that_repeats_top1_is_said_to(make: Make) -> None:
    same, other = ([make(0.9, result={"test_balanced_accuracy": b})] for b in (None, 0.2))
    same[0] = make(0.9, luck=0.0, result={"test_balanced_accuracy": 0.9, "test_top1": 0.9})
    notes = [" ".join(policies_table(found(*r).groups, []).notes) for r in (same, other)]
    assert ["balanced accuracy equals top-1" in note for note in notes] == [True, False]


def test_of_very_many_classes_the_largest_confusions_are_kept(make: Make) -> None:
    many = [f"class {number}" for number in range(41)]
    run = make(0.5, case={"dataset": {"classes": many}})
    (told,) = document(found(run), (), ())["runs"].values()
    assert told["confusion"] is None
    assert sum(count for *_, count in told["confusions"]["largest"]) > 100  # of 400 images


def test_random_weights_do_not_make_pretrained_ones_say_nothing(make: Make) -> None:
    """If a folder holds both, the pretrained ones compete and the others do not."""
    runs = [make(0.9), make(0.3, weights=RANDOM), make(0.5, "from_scratch")]
    made = found(*runs)
    (contest,) = made.contests
    assert [c.row["weights"] for c in contest.groups] == ["pretrained", "random"]
    assert contest.groups[1].row["policy"] == "from_scratch"
    table = tables(*runs)["cases"]
    assert cell(table, 0, "verdict").startswith("the article's is best, +")
    assert "1 experiment with random instead of pretrained weights did not compete." in table.notes


def test_a_control_that_is_beaten_is_no_victory_over_policies(make: Make) -> None:
    control = make(0.3, "from_scratch")
    (told,) = answer(found(make(0.9), control))
    assert "best in 1. In all of them its only rival was from_scratch, the control" in told
    assert "only rival" not in answer(found(make(0.9), make(0.5, "fine_tune_all"), control))[0]


def test_what_the_article_says_may_not_have_been_run(make: Make, tmp_path: Path) -> None:
    runs = [make(0.9, "fine_tune_last"), make(0.3, "from_scratch")]
    assert make_report(runs, tmp_path).write(("md",))
    page = (tmp_path / "report.html").read_text()
    assert "the article&#39;s policy was not run" in page
    assert "not the article&#39;s policy" not in page


def test_few_seeds_are_told_once(make: Make) -> None:
    runs = [make(share, name, backend=backend) for backend in ("torch", "keras-tensorflow")
            for share, name in ((0.9, "freeze_all"), (0.5, "fine_tune_all"))]  # fmt: skip
    told = answer(found(*runs))
    assert len(told) > 1
    assert sum("fewer than three seeds" in sentence for sentence in told) == 1
    assert "fewer than three seeds" in told[-1]


def test_inference_beside_other_runs_tells_of_a_busy_machine(make: Make) -> None:
    """Runs whose frozen part was computed once have no step times, but inference is comparable."""
    rates = {"freeze_all": 85.0, "fine_tune_last": 640.0, "fine_tune_all": 600.0}
    runs = [make(0.9, name, result={"infer_images_per_s": rate}) for name, rate in rates.items()]
    told = {row["policy"]: row["unsteady"] for row in rows_of(runs)}
    assert told == {"freeze_all": True, "fine_tune_last": False, "fine_tune_all": False}
    other = make(0.9, backend="keras-tensorflow", result={"infer_images_per_s": 100.0})
    assert not rows_of([*runs, other])[-1]["unsteady"]
    assert any(note.startswith("unsteady: in 1 of 3 runs") for note in footnotes(rows_of(runs)))


def test_rates_that_are_missing_are_told_apart(make: Make) -> None:
    fields = {"train_images_per_s": 9.0, "infer_images_per_s": None}
    (note,) = [n for n in footnotes(rows_of([make(0.9, result=fields)])) if "too short" in n]
    assert note == "– infer images/s: 1 of 1 runs were too short for a steady rate of inference."


def test_images_that_were_left_out_are_told_and_left_out_again(make: Make) -> None:
    run = make(0.9, result={"unreadable_images": 3})
    assert any("unreadable images were left out in 1 of 1 runs (at most 3 images)" in note
               for note in footnotes(rows_of([run])))  # fmt: skip
    (told,) = document(found(run), (), ())["runs"].values()
    assert told["repeat"].endswith("--skip-unreadable")
    (whole,) = document(found(make(0.9)), (), ())["runs"].values()
    assert "--skip" not in whole["repeat"]


def test_what_tells_rows_apart_stands_beside_the_backend(make: Make) -> None:
    runs = [make(0.9, name, recipe={"px": px}) for px in (64, 96)
            for name in ("freeze_all", "fine_tune_all")]  # fmt: skip
    lost = make(0.9, backbone="vgg16", result={"status": "oom", "test_top1": None,
                "failure": {"kind": "oom", "message": "no memory"}})  # fmt: skip
    made = tables(*runs, lost)
    for name in ("cases", "policies"):
        headings = [c.name for c in made[name].columns]
        assert headings[headings.index("backend") + 1] == "setting"
        assert {len(row) for row in made[name].rows} == {len(headings)}
    told = [cell(made["cases"], row, "setting") for row in range(3)]
    assert told == ["px 64", "px 96", "–"]
    assert cell(made["cases"], 2, "verdict") == "no run is ok"


def test_the_price_goes_by_intervals_that_hold_for_all_pairs(make: Make) -> None:
    """A single pair would be significant, one of twelve is not."""

    def grid(backbones: int) -> list[StoredRun]:
        return [
            make(share, name, s, luck=0.0, result={"fit_s": fit},
                 backbone=f"module:net{number}.py:build")
            for number in range(backbones) for s in SEEDS
            for name, share, fit in (("fine_tune_all", 0.9 + 0.005 * (s == 0), 20.0),
                                     ("freeze_all", 0.9, 5.0 + 2.5 * s))
        ]  # fmt: skip

    alone, among = (" ".join(answer(found(*grid(n)))) for n in (1, 12))
    assert "a quicker policy loses at most 3 points" in alone
    assert "a quicker policy" not in among
