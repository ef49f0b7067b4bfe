"""Steps as written and compiled steps stand on different rungs: they are labelled, never paired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.analysis.findings import findings_of
from bench.analysis.rows import rows_of
from bench.analysis.speed import step_signature
from bench.catalog.backends import BACKENDS
from bench.parity.proofs import ProvedSubject
from bench.report.notes import footnotes
from bench.runner import planner
from bench.runner.suite import GridPoint, Suite, grid_points
from bench.spec.run import Recipe
from bench.storage.results import StoredRun
from tests.unit.made_runs import Make, found

MakeRun = Callable[..., StoredRun]


def _two(make: Make, first: str, second: str, **other: Any) -> list[StoredRun]:
    """Return two runs of one experiment, by torch and by another backend."""
    return [
        make(0.9, backend="torch", recipe={"compile": first}, result={"train_images_per_s": 100.0}),
        make(0.9, **{"backend": "keras-torch", **other}, recipe={"compile": second},
             result={"train_images_per_s": 150.0}),
    ]  # fmt: skip


def test_runs_of_one_rung_are_paired_and_those_of_two_are_not(make: Make) -> None:
    for rung in ("plain", "compiled"):
        (pair,) = found(*_two(make, rung, rung)).pairs
        assert pair.speed is not None
        assert pair.speed.ratio.value == pytest.approx(1.5)
    assert found(*_two(make, "plain", "compiled")).pairs == []


def test_speeds_of_two_rungs_are_not_pooled(make: Make) -> None:
    """The ratio of plain steps is no evidence about compiled ones."""
    plain, compiled = (rows_of(_two(make, rung, rung))[0] for rung in ("plain", "compiled"))
    assert step_signature(plain) != step_signature(compiled)


def test_results_without_the_field_are_plain_and_keep_their_id(make_run: MakeRun) -> None:
    run = make_run()
    stored = run.spec.model_dump(mode="json")
    assert "compile" not in stored["recipe"]
    assert run.spec.recipe.compile == "plain"
    compiled = make_run(recipe={"compile": "compiled"})
    assert compiled.spec.run_id != run.spec.run_id


def _point(backend: str, compiled: str, **grid: Any) -> GridPoint:
    changes = {"dataset": "photos", "backbones": ["squeezenet1_1"], "policies": ["freeze_all"],
               "compile": compiled, **grid}  # fmt: skip
    (point,) = grid_points(
        Suite.model_validate({"name": "x", "backends": [backend], "grid": [changes]})
    )
    return point


def _recipe(backend: str, compiled: str, **grid: Any) -> Recipe:
    point = _point(backend, compiled, **grid)
    policy = planner.policy_of("freeze_all", point.grid.boundary)
    return planner._recipe(point, policy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", ["plain", "compiled"])
def test_jax_always_compiles_and_says_so(backend: str, asked: str) -> None:
    always = backend == "keras-jax"
    assert BACKENDS[backend].always_compiled is always
    assert _recipe(backend, asked).compile == ("compiled" if always else asked)


@pytest.mark.parametrize(
    ("backend", "compiled", "is_swept"),
    [("torch", "plain", True), ("torch", "compiled", False), ("keras-jax", "plain", True)],
)
def test_heads_that_train_at_once_are_on_the_backends_own_rung(
    backend: str, compiled: str, is_swept: bool
) -> None:
    found = _recipe(backend, compiled, learning_rate=[0.001, 0.01][:1])
    assert found.sweep is False
    grid = {"learning_rate": [0.001, 0.01]}
    suite = Suite.model_validate(
        {"name": "x", "backends": [backend], "grid": [
            {"dataset": "photos", "backbones": ["squeezenet1_1"], "policies": ["freeze_all"],
             "compile": compiled, **grid}]}
    )  # fmt: skip
    recipes = [
        planner._recipe(point, planner.policy_of("freeze_all", None))
        for point in grid_points(suite)
    ]
    assert {recipe.sweep for recipe in recipes} == {is_swept}


def test_a_note_says_why_jax_is_not_compared(make: Make) -> None:
    note = "keras-jax always compiles its steps"
    for rung, is_said in (("plain", True), ("compiled", False)):
        rows = rows_of(_two(make, rung, "compiled", backend="keras-jax"))
        assert any(note in said for said in footnotes(rows)) is is_said
    assert not any(note in said for said in footnotes(rows_of(_two(make, "plain", "plain"))))


@pytest.mark.parametrize(("rung", "pairing"), [("plain", "proved"), ("compiled", "not_shown")])
def test_a_proof_of_plain_steps_covers_no_compiled_ones(
    make: Make, rung: str, pairing: str
) -> None:
    """`parity` proves steps as they are written."""
    runs = _two(make, rung, rung)
    proof = ProvedSubject.of_run(runs[0].spec, {run.result.environment_id for run in runs})
    assert {row.pairing for row in rows_of(runs, {proof})} == {pairing}
    (pair,) = findings_of(rows_of(runs, {proof}), {proof}).pairs
    assert pair.is_proved is (rung == "plain")
