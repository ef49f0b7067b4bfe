"""Twins whose numbers say that they were not the same experiment are marked, not compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.findings import findings_of
from bench.analysis.rows import Row, rows_of
from bench.analysis.same_experiment import CHOSEN_RATE, HARMLESS, THREADS
from bench.parity.proofs import ProvedSubject, proved_subjects
from bench.report.notes import footnotes
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make
from tests.unit.pairs import pair as proof

MakeRun = Callable[..., StoredRun]
FIRST: dict[str, Any] = {
    "step_losses": (3.0, 2.9), "repeated_losses": (3.0, 2.9), "logits_after_step": (1.0, -4.0),
    "cached_difference": 1e-6,
}  # fmt: skip
"""Fingerprint of a run without a fault."""


def pair(make_run: MakeRun, one: dict[str, Any], other: dict[str, Any], **spec: Any) -> list[Row]:
    """Return rows of both backends, with all that is needed for the mark 'shown'."""
    runs = [make_run(one, **spec), make_run(other, **spec, backend="keras-tensorflow")]
    places = [run.environment.environment_id for run in runs]
    return rows_of(runs, {ProvedSubject.of_run(runs[0].spec, places)})


def marks(rows: list[Row]) -> list[tuple[str, ...]]:
    return [row.differs for row in rows]


@pytest.mark.parametrize(
    ("field", "values", "name"),
    [
        ("data_sha256", ("aa", "bb"), "data_sha256"),
        ("total_parameters", (10, 11), "total_parameters"),
        ("trainable_parameters", (10, 9), "trainable_parameters"),
        ("state_values", (4, 0), "state_values"),
        ("knobs", ({"threads": 2}, {"threads": 1}), "threads"),
        ("learning_rate", (0.001, 0.0003), CHOSEN_RATE),
    ],
)
def test_what_must_be_equal(
    make_run: MakeRun, field: str, values: tuple[Any, Any], name: str
) -> None:
    rows = pair(make_run, {field: values[0]}, {field: values[1]})
    assert marks(rows) == [(name,)] * 2
    assert [row.parity for row in rows] == ["shown" if name == THREADS else "not_shown"] * 2
    assert [row.is_valid for row in rows] == [name in HARMLESS] * 2
    said = (
        "other learning rates: "
        if name == CHOSEN_RATE
        else f"NOT THE SAME EXPERIMENT: {name} differs"
    )
    assert any(note.startswith(said) for note in
               footnotes(rows))  # fmt: skip
    same = pair(make_run, {field: values[0]}, {field: values[0]})
    assert marks(same) == [()] * 2
    assert [row.parity for row in same] == ["shown"] * 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"step_losses": (3.0003, 2.9)}, "loss of step 1"),
        ({"step_losses": (3.0, 2.9 * 1.0006)}, "loss of step 2"),
        ({"logits_after_step": (1.0, -4.3)}, "logits after step 1"),
        ({"logits_after_step": (1.0, None)}, "logits after step 1"),
    ],
)
def test_first_steps_that_differ(make_run: MakeRun, change: dict[str, Any], name: str) -> None:
    other = {**FIRST, **change, "repeated_losses": ()}
    rows = pair(make_run, {"fingerprint": FIRST}, {"fingerprint": other})
    assert marks(rows) == [(name,)] * 2
    assert not any(row.is_valid for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        {"step_losses": (3.0 + 6e-7, 2.9 * (1 + 4e-5))},
        {"logits_after_step": (1.01, -4.01)},
    ],
)
def test_rounding_is_no_difference(make_run: MakeRun, change: dict[str, Any]) -> None:
    other = {**FIRST, **change, "repeated_losses": ()}
    rows = pair(make_run, {"fingerprint": FIRST}, {"fingerprint": other})
    assert marks(rows) == [()] * 2


@pytest.mark.parametrize("missing", ["fingerprint", "data_sha256"])
def test_what_one_run_alone_lacks_is_a_difference_within_a_version(
    make_run: MakeRun, missing: str
) -> None:
    whole = {"fingerprint": FIRST, "data_sha256": "aa"}
    other = {name: value for name, value in whole.items() if name != missing}
    assert all(row.differs and not row.is_valid for row in pair(make_run, whole, other))
    older = {"thawbench": "0.0+earlier.code"}
    runs = [
        make_run(backend="torch", result=whole),
        make_run(backend="keras-tensorflow", result=other, environment=older),
    ]
    assert marks(rows_of(runs, set())) == [()] * 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"cached_difference": 2e-4}, "cached values"),
        ({"repeated_losses": (3.0, 2.897)}, "repeated steps"),
    ],
)
def test_a_run_that_contradicts_itself(
    make_run: MakeRun, change: dict[str, Any], name: str
) -> None:
    (row,) = rows_of([make_run({"fingerprint": {**FIRST, **change}})])
    assert row.differs == (name,)
    assert not row.is_valid
    assert any(f"{name} differs within {row.result.run_id}" in note for note in footnotes([row]))


def test_half_precision_is_compared_loosely_and_double_tightly(make_run: MakeRun) -> None:
    other = {**FIRST, "step_losses": (3.0 + 1e-5, 2.9), "repeated_losses": ()}
    for precision, wanted in (("bf16", ()), ("fp32", ()), ("fp64", ("loss of step 1",))):
        recipe = {"precision": precision}
        rows = pair(make_run, {"fingerprint": FIRST}, {"fingerprint": other}, recipe=recipe)
        assert marks(rows) == [wanted] * 2


def test_a_pair_that_differs_is_not_compared(make: Make) -> None:
    same, other = {"data_sha256": "aa"}, {"data_sha256": "bb"}
    for result, comparable in ((same, True), (other, False)):
        runs = [
            make(share, seed=seed, backend=backend, result=more)
            for seed in range(3)
            for backend, share, more in (("torch", 0.8, same), ("keras-tensorflow", 0.8, result))
        ]
        (found,) = findings_of(rows_of(runs)).pairs
        assert (found.why_not is None) is comparable
        if not comparable:
            assert found.why_not == "not the same experiment"
            assert (found.top1, found.speed) == (None, None)


def test_a_difference_within_ten_times_the_noise_of_a_run_is_none(make_run: MakeRun) -> None:
    chaotic = {**FIRST, "noise": (1e-7, 1e-3, 1e-3)}
    for second, wanted in ((2.9 * 1.009, ()), (2.9 * 1.011, ("loss of step 2",))):
        other = {**chaotic, "step_losses": (3.0, second), "repeated_losses": ()}
        rows = pair(make_run, {"fingerprint": chaotic}, {"fingerprint": other})
        assert marks(rows) == [wanted] * 2


def test_another_chosen_rate_is_said_once_and_leaves_runs_valid(make_run: MakeRun) -> None:
    """Every number after the first step differs then, too."""
    other = {**FIRST, "step_losses": (3.0, 2.5), "repeated_losses": (3.0, 2.5)}
    rows = pair(
        make_run, {"learning_rate": 0.001, "fingerprint": FIRST},
        {"learning_rate": 0.0003, "fingerprint": other},
    )  # fmt: skip
    assert marks(rows) == [(CHOSEN_RATE,)] * 2
    assert all(row.is_valid for row in rows)


def test_a_run_that_contradicts_itself_does_not_compete_with_other_policies(make: Make) -> None:
    for fault, why in ((1e-6, None), (0.3, "not the same experiment")):
        first = {**FIRST, "cached_difference": fault}
        runs = [
            make(share, policy=policy, seed=seed, result={"fingerprint": first})
            for seed in range(3)
            for policy, share in (("freeze_all", 0.8), ("fine_tune_last", 0.7))
        ]
        (contest,) = findings_of(rows_of(runs)).contests
        assert {reason for _, reason in contest.apart} == ({why} if why else set())
        assert contest.is_compared is (why is None)


def test_rows_of_a_sweep_carry_no_mark_that_no_proof_covers(make_run: MakeRun) -> None:
    for sweep, mark in ((False, "shown"), (True, "not_shown")):
        rows = pair(make_run, {}, {}, recipe={"sweep": sweep})
        assert [row.parity for row in rows] == [mark] * 2


def test_a_crash_in_any_proof_takes_the_mark_back() -> None:
    crash = "keras-tensorflow crashed: the worker ended by signal SIGSEGV"
    sound = proof()
    in_float32 = proof(dtype="float32", passed=False, levels=(), reason=crash)
    assert len(proved_subjects([sound])) == 1
    assert proved_subjects([sound, in_float32]) == set()
