"""Sweeps: which runs are trained at once, and the result of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.runner.planner import PlannedRun
from bench.runner.suite import Options, Suite, apply_options, grid_points
from bench.spec.result import RunResult
from bench.spec.run import Recipe, RunSpec
from bench.training.sweep import heads_of, layout_of, may_sweep, sweep_key
from bench.workers.pool import WorkerPool
from bench.workers.process import Finished
from bench.workers.tasks import RunAnswer, RunTask
from tests.unit.test_runner import ANSWER, _kept, _run, _World, plan, world

MakeSpec = Callable[..., RunSpec]
fixtures = (plan, world)
LOST = {"kind": "diverged", "message": "the loss is nan"}


def _recipe(make_spec: MakeSpec, **changes: Any) -> Recipe:
    wanted = {"head": "linear", "augmentation": "none", **changes}
    recipe = make_spec().recipe.model_dump() | wanted
    return Recipe.model_validate(recipe)


@pytest.mark.parametrize(
    ("changes", "boundary", "mode", "may"),
    [
        ({}, "head", "matched", True),
        ({"precision": "fp64"}, "head", "matched", True),
        ({}, "all", "matched", False),
        ({}, "last_stage", "matched", False),
        ({}, "head", "native", False),
        ({"head": "dense:8"}, "head", "matched", False),
        ({"head": "original"}, "head", "matched", False),
        ({"augmentation": "crop_flip"}, "head", "matched", False),
        ({"augmentation": "crop_flip", "views": 2}, "head", "matched", False),
        ({"prefix_cache": "off"}, "head", "matched", False),
        ({"precision": "bf16"}, "head", "matched", False),
        ({"precision": "tf32"}, "head", "matched", False),
        ({"compile": "compiled"}, "head", "matched", False),
        ({"epochs": 1}, "head", "matched", False),
        ({"learning_rate_grid": (0.1, 0.2)}, "head", "matched", False),
    ],
)
def test_only_linear_heads_on_values_that_repeat_are_swept(
    make_spec: MakeSpec, changes: dict[str, Any], boundary: str, mode: str, may: bool
) -> None:
    assert may_sweep(boundary, _recipe(make_spec, **changes), mode) is may


CONSIDERED = {
    "head", "px", "epochs", "batch_size", "precision", "optimizer", "learning_rate", "momentum",
    "weight_decay", "schedule", "warmup_fraction", "augmentation", "views", "prefix_cache",
    "learning_rate_grid", "sweep", "compile",
}  # fmt: skip


def test_a_new_recipe_field_is_considered_where_heads_are_trained_at_once() -> None:
    """A head of a sweep must obey every field, or ``may_sweep`` must refuse its values; then add it
    here. CONTRIBUTING.md lists the places."""
    assert set(Recipe.model_fields) == CONSIDERED


def _swept(make_spec: MakeSpec, seed: int = 0, weights: str = "pretrained", **more: Any) -> RunSpec:
    recipe = _recipe(make_spec, sweep=True, **more)
    ref = {"kind": weights, "source": "x", "sha256": None}
    return make_spec(recipe=recipe.model_dump(), seed=seed, weights=ref)


def test_runs_of_a_sweep_differ_in_rate_decay_and_seed_alone(make_spec: MakeSpec) -> None:
    one = sweep_key(_swept(make_spec))
    for same in (
        {"seed": 3}, {"learning_rate": 0.7}, {"weight_decay": 0.7}, {"seed": 1, "weight_decay": 0.1}
    ):  # fmt: skip
        assert sweep_key(_swept(make_spec, **same)) == one
    for other in ({"epochs": 77}, {"optimizer": "adamw"}, {"px": 33}, {"weights": "random"}):
        assert sweep_key(_swept(make_spec, **other)) != one
    random = [sweep_key(_swept(make_spec, seed, "random")) for seed in (0, 1)]
    assert random[0] != random[1], "a seed also decides the frozen part where that is random"
    assert sweep_key(make_spec()) is None


def test_heads_lie_by_seed_and_unused_ones_do_not_train(make_spec: MakeSpec) -> None:
    specs = [
        _swept(make_spec, seed=5, learning_rate=0.1, weight_decay=0.01),
        _swept(make_spec, seed=2, learning_rate=0.2, weight_decay=0.02),
        _swept(make_spec, seed=5, learning_rate=0.3, weight_decay=0.03),
    ]
    layout = layout_of(specs)
    assert layout.seeds == (2, 5)
    assert layout.places == ((1, 0), (0, 0), (1, 1))
    first = [(np.full((3, 4), float(seed)), np.full(3, -float(seed))) for seed in layout.seeds]
    heads = heads_of(specs, layout, first)
    assert heads.weights.shape == (2, 2, 3, 4)
    assert heads.learning_rates.tolist() == [[0.2, 0.0], [0.1, 0.3]]
    assert heads.weight_decays.tolist() == [[0.02, 0.0], [0.01, 0.03]]
    assert set(heads.weights[1].ravel()) == {5.0}
    assert set(heads.biases[0].ravel()) == {-2.0}


def _grid(**changes: Any) -> Suite:
    data = {"name": "x", "seeds": [0, 1], "backends": ["torch"],
            "grid": [{"dataset": "photos", "policies": ["freeze_all"], **changes}]}  # fmt: skip
    return Suite.model_validate(data)


def test_lists_of_rates_and_decays_multiply() -> None:
    found = [
        (c.seed, c.recipe["learning_rate"], c.recipe["weight_decay"])
        for c in grid_points(_grid(learning_rate=[0.1, 0.2], weight_decay=[0, 0.5]))
    ]
    assert len(found) == len(set(found)) == 8
    assert {c[1:] for c in found} == {(0.1, 0), (0.1, 0.5), (0.2, 0), (0.2, 0.5)}
    given = apply_options(_grid(), Options(learning_rate=[0.3, 0.4], weight_decay=[0.7]))
    assert {(c.recipe["learning_rate"], c.recipe["weight_decay"]) for c in grid_points(given)} == {
        (0.3, 0.7),
        (0.4, 0.7),
    }


def _plan(plan: Callable[..., list[PlannedRun]]) -> list[PlannedRun]:
    """Plan two runs of a sweep, and one alone between them."""
    runs = plan(0, 1, 2)
    for index in (0, 2):
        spec = runs[index].spec
        recipe = spec.recipe.model_copy(update={"sweep": True, "learning_rate": 0.1 + index})
        ref = spec.weights.model_copy(update={"kind": "pretrained"})
        runs[index] = replace(
            runs[index], spec=spec.model_copy(update={"recipe": recipe, "weights": ref})
        )
    return runs


@pytest.mark.parametrize(
    ("answer", "statuses"),
    [
        ([ANSWER, {"status": "diverged", "failure": LOST}], {0: "ok", 2: "diverged"}),
        (Finished(None, "crashed", "SIGSEGV", "died"), {0: "crashed", 2: "crashed"}),
        (Finished(None, "timeout", "timeout", "too long"), {0: "timeout", 2: "timeout"}),
    ],
)
def test_a_sweep_is_one_job_and_a_result_for_each_run(
    world: _World,
    plan: Callable[..., list[PlannedRun]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Finished[RunAnswer] | list[dict[str, Any]],
    statuses: dict[int, str],
) -> None:
    tasks: list[RunTask] = []

    def do(_: WorkerPool, kind: Any, task: RunTask, log: Path, *more: Any) -> Finished[RunAnswer]:
        tasks.append(task)
        answers = [ANSWER] if len(task.specs) == 1 else answer
        if len(task.specs) > 1:
            log.write_text("words of the worker")
            for folder in task.folders:
                (Path(folder) / "predictions.npz").write_text("numbers")
        if isinstance(answers, Finished):
            return answers
        results = [
            RunResult.model_validate(
                {"run_id": spec.run_id, "environment_id": task.environment_id, **fields}
            )
            for spec, fields in zip(task.specs, answers, strict=True)
        ]
        return Finished(RunAnswer(results=tuple(results)))

    monkeypatch.setattr(WorkerPool, "do", do)
    _run(world, _plan(plan), tmp_path)
    assert [[spec.seed for spec in task.specs] for task in tasks] == [[0, 2], [1]]
    assert len(set(tasks[0].folders)) == 2
    assert _kept(world) == {1: "ok", **statuses}
    for run in world.store.load()[0]:
        if run.spec.seed != 1:
            assert (run.folder / "log.txt").read_text() == "words of the worker"
            assert (run.folder / "predictions.npz").exists() == (run.result.status == "ok")
