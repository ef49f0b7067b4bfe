"""The runner: each result is saved before the next run, and failures lose nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES
from bench.cli.progress import LineDisplay
from bench.data import Dataset
from bench.errors import Unavailable, UserError
from bench.network import export as blueprints
from bench.network.blueprint import Network
from bench.network.weights import random_weights
from bench.runner import runner
from bench.runner.planner import PlannedRun
from bench.runner.runner import Runner
from bench.spec.result import RunResult
from bench.spec.run import RunSpec
from bench.storage.results import Store
from bench.workers import process
from bench.workers.pool import WorkerKind, WorkerPool
from bench.workers.process import Finished, Interpreters
from bench.workers.tasks import RunAnswer, RunTask

ANSWER = {"status": "ok", "test_top1": 0.5, "fit_s": 1.0, "train_images_per_s": 10.0}
Plan = Callable[..., list[PlannedRun]]


@dataclass
class _World:
    """Stands for workers, packing and exporting."""

    store: Store
    blueprint: Path
    answers: dict[int, Finished[RunAnswer] | dict[str, Any] | BaseException] = field(
        default_factory=dict
    )
    jobs: list[RunTask] = field(default_factory=list)
    packed: int = 0
    exported: int = 0
    export_fails: Exception | None = None
    saved_before: list[int] = field(default_factory=list)

    def do(self, kind: WorkerKind, task: RunTask, log: Path, *_: Any) -> Finished[RunAnswer]:
        (spec,), (folder,) = task.specs, map(Path, task.folders)
        assert kind.backend == spec.backend
        self.jobs.append(task)
        self.saved_before.append(len(self.store.load()[0]) if self.store.root.is_dir() else 0)
        assert folder.is_dir()
        (folder / "predictions.npz").write_text("numbers")
        answer = self.answers.get(spec.seed, ANSWER)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Finished):
            return answer
        identity = {"run_id": spec.run_id, "environment_id": task.environment_id}
        result = RunResult.model_validate({**identity, **answer})
        return Finished(RunAnswer(results=(result,)))

    def pack(self, dataset: Dataset, px: int, cache: Path, resize: str) -> Any:
        self.packed += 1

        class Packed:
            path = cache / "packed" / "x"

        Packed.path.mkdir(parents=True, exist_ok=True)

        return Packed

    def blueprint_folder(self, *arguments: Any) -> Path:
        self.exported += 1
        if self.export_fails is not None:
            raise self.export_fails
        return self.blueprint


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network) -> _World:
    world = _World(Store(tmp_path / "out"), tmp_path / "blueprint")
    world.blueprint.mkdir()
    network.save(world.blueprint)
    monkeypatch.setattr(WorkerPool, "do", lambda _, *arguments: world.do(*arguments))
    for name in ("pack", "blueprint_folder"):
        monkeypatch.setattr(runner, name, getattr(world, name))
    return world


@pytest.fixture
def plan(make_spec: Callable[..., RunSpec], make_environment: Callable[..., Any]) -> Plan:
    """Plan runs with the given seeds; those in ``unavailable`` cannot be started."""

    def plan(*seeds: int, unavailable: tuple[int, ...] = ()) -> list[PlannedRun]:
        dataset = Dataset("photos", "h", ("a", "b"), 216, 90, 1080, None)  # type: ignore[arg-type]
        weights = random_weights(BACKBONES["vgg16"])
        return [
            PlannedRun(
                make_spec(seed=seed),
                make_environment(),
                "efficientnet_lite0",
                dataset,
                None if seed in unavailable else weights,
                "not to be had: get it" if seed in unavailable else None,
                "photos",
            )
            for seed in seeds
        ]

    return plan


def _with(run: PlannedRun, boundary: str, head: str = "linear") -> PlannedRun:
    """Return the run with another boundary and head."""
    changes = {
        "policy": run.spec.policy.model_copy(update={"boundary": boundary}),
        "recipe": run.spec.recipe.model_copy(update={"head": head}),
    }
    return replace(run, spec=run.spec.model_copy(update=changes))


def _run(world: _World, runs: list[PlannedRun], tmp_path: Path) -> None:
    display = LineDisplay([r.spec for r in runs])
    Runner(world.store, tmp_path / "cache", Interpreters({})).run_all(runs, display)


def _kept(world: _World) -> dict[int, str]:
    runs, problems = world.store.load()
    assert problems == []
    return {r.spec.seed: r.result.status for r in runs}


def _no_partials(world: _World) -> bool:
    return not any((world.store.root / ".partial").glob("*"))


def test_results_are_saved_one_by_one(world: _World, plan: Plan, tmp_path: Path) -> None:
    _run(world, plan(0, 1, 2), tmp_path)
    assert world.saved_before == [0, 1, 2]
    assert _kept(world) == {0: "ok", 1: "ok", 2: "ok"}
    run = world.store.load()[0][0]
    assert {p.name for p in run.folder.iterdir()} == {
        "spec.json", "environment.json", "result.json", "predictions.npz", "log.txt",
        "suite.toml",
    }  # fmt: skip
    assert _no_partials(world)


def test_the_task_names_specs_and_cache_keys(world: _World, plan: Plan, tmp_path: Path) -> None:
    runs = plan(0)
    _run(world, runs, tmp_path)
    (task,) = world.jobs
    assert task.specs == (runs[0].spec,)
    assert task.environment_id == runs[0].environment.environment_id
    assert (task.packed, task.blueprint) == ("x", "blueprint"), "keys of the cache, no paths"


@pytest.mark.parametrize("status", ["oom", "timeout", "crashed"])
def test_a_run_that_fails_is_a_result_and_the_next_one_runs(
    world: _World, plan: Plan, tmp_path: Path, status: str
) -> None:
    world.answers[1] = Finished(None, status, "kind", "why")
    _run(world, plan(0, 1, 2), tmp_path)
    assert _kept(world) == {0: "ok", 1: status, 2: "ok"}
    failed = next(r for r in world.store.load()[0] if r.spec.seed == 1)
    assert failed.result.failure is not None
    assert failed.result.failure.message == "why"
    assert not (failed.folder / "predictions.npz").exists()


def test_a_worker_that_diverged_says_so_itself(world: _World, plan: Plan, tmp_path: Path) -> None:
    failure = {"kind": "diverged", "message": "the loss is nan"}
    world.answers[0] = {"status": "diverged", "failure": failure}
    _run(world, plan(0), tmp_path)
    assert _kept(world) == {0: "diverged"}


def test_an_unavailable_run_is_a_row_and_no_worker_starts(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    _run(world, plan(0, 1, unavailable=(0,)), tmp_path)
    assert [task.specs[0].seed for task in world.jobs] == [1]
    assert _kept(world) == {0: "unavailable", 1: "ok"}
    row = next(r for r in world.store.load()[0] if r.spec.seed == 0)
    assert row.result.failure is not None
    assert row.result.failure.message == "not to be had: get it"


def test_without_an_exporter_every_run_is_a_row(world: _World, plan: Plan, tmp_path: Path) -> None:
    world.export_fails = Unavailable("torch is not installed")
    _run(world, plan(0, 1), tmp_path)
    assert world.jobs == []
    assert _kept(world) == {0: "unavailable", 1: "unavailable"}


def test_bad_input_is_found_before_any_run(world: _World, plan: Plan, tmp_path: Path) -> None:
    world.export_fails = UserError("the weights do not fit")
    with pytest.raises(UserError, match="do not fit"):
        _run(world, plan(0), tmp_path)
    assert world.jobs == []


def test_an_export_that_crashes_is_a_row(
    world: _World,
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_environment: Callable[..., Any],
) -> None:
    died: Finished[Any] = Finished(
        None, "crashed", "SIGSEGV", "the worker ended by signal SIGSEGV: no output"
    )
    monkeypatch.setattr(runner, "blueprint_folder", blueprints.blueprint_folder)
    monkeypatch.setattr(blueprints, "environment_of", lambda *_: make_environment())
    monkeypatch.setattr(process, "run_task", lambda *_, **__: died)
    _run(world, plan(0), tmp_path)
    assert world.jobs == []
    ((run,), _) = world.store.load()
    assert run.result.status == "unavailable"
    assert run.result.failure is not None
    said = run.result.failure.message
    assert said.startswith("exporting efficientnet_lite0 failed: the worker ended by signal SIGS")
    assert "exporting-efficientnet_lite0-torch.txt" in said


@pytest.mark.parametrize("seed", [0, 1], ids=["same network", "another network"])
def test_a_boundary_that_a_network_lacks_is_found_before_any_run(
    world: _World, plan: Plan, tmp_path: Path, seed: int
) -> None:
    first, second = plan(0, seed)
    with pytest.raises(UserError, match=r"'layer2\.O'\. Did you mean 'layer2\."):
        _run(world, [first, _with(second, "layer2.O")], tmp_path)
    assert world.jobs == []
    assert not (world.store.root / "runs").exists()


@pytest.mark.parametrize("boundary", ["all", "last_stage", "head", "stage1", "layer2.0.bn"])
def test_a_boundary_that_the_network_has_is_run(
    world: _World, plan: Plan, tmp_path: Path, boundary: str
) -> None:
    _run(world, [_with(run, boundary) for run in plan(0)], tmp_path)
    assert _kept(world) == {0: "ok"}


def test_a_boundary_in_the_head_that_is_replaced_is_found_before_any_run(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="classifier"):
        _run(world, [_with(run, "classifier.1") for run in plan(0)], tmp_path)


def test_a_boundary_in_the_new_head_is_run(world: _World, plan: Plan, tmp_path: Path) -> None:
    _run(world, [_with(run, "head.dense1", "dense:4") for run in plan(0)], tmp_path)
    assert _kept(world) == {0: "ok"}


def test_images_that_were_left_out_are_counted_in_the_result(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    plain, short = plan(0, 1)
    skipped = replace(short.dataset, skipped=("a.png: broken", "b.png: empty"))
    world.answers[1] = {**ANSWER, "notes": ["of the worker"]}
    _run(world, [plain, replace(short, dataset=skipped)], tmp_path)
    results = {run.spec.seed: run.result for run in world.store.load()[0]}
    assert results[0].unreadable_images is None
    assert results[1].unreadable_images == 2
    assert results[1].notes == ("of the worker",)


def test_bad_input_that_the_worker_finds_ends_the_call_and_keeps_what_is_done(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    world.answers[1] = Finished(None, "bad_input", "bad_input", "wrong boundary", "hint")
    with pytest.raises(UserError, match="wrong boundary") as error:
        _run(world, plan(0, 1, 2), tmp_path)
    assert error.value.hint == "hint"
    assert _kept(world) == {0: "ok"}
    assert _no_partials(world)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_fills_up_ends_the_call_and_keeps_what_is_done(
    world: _World, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save = world.store.save

    def full(spec: RunSpec, *more: Any) -> Path:
        if spec.seed == 2:
            raise OSError(number, "it is full", "/results/x")
        return save(spec, *more)

    monkeypatch.setattr(world.store, "save", full)
    with pytest.raises(UserError, match="write /results/x: it is full") as error:
        _run(world, plan(0, 1, 2, 3), tmp_path)
    assert "Finished runs are kept" in str(error.value)
    assert _kept(world) == {0: "ok", 1: "ok"}
    assert _no_partials(world)


def test_another_error_of_the_system_is_not_called_a_full_disk(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    world.answers[0] = OSError(errno.EIO, "input/output error")
    with pytest.raises(OSError, match="input/output"):
        _run(world, plan(0), tmp_path)


def test_ctrl_c_keeps_what_is_done(world: _World, plan: Plan, tmp_path: Path) -> None:
    world.answers[1] = KeyboardInterrupt()
    runs = plan(0, 1, 2)
    with pytest.raises(KeyboardInterrupt):
        _run(world, runs, tmp_path)
    assert _kept(world) == {0: "ok"}
    assert _no_partials(world)
    environment_id = runs[0].environment.environment_id
    assert [world.store.is_missing(r.spec.run_id, environment_id) for r in runs] == [
        False, True, True,
    ]  # fmt: skip


def test_data_and_networks_are_prepared_before_the_first_run(
    world: _World, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[tuple[int, int]] = []

    def watched(_: WorkerPool, *arguments: Any) -> Finished[RunAnswer]:
        ready.append((world.packed, world.exported))
        return world.do(*arguments)

    monkeypatch.setattr(WorkerPool, "do", watched)
    _run(world, plan(0, 1, 0), tmp_path)
    # Random weights depend on the seed: two networks. All runs share the data.
    assert ready[0] == (1 + 1, 2 + 1), "the run itself looks them up in the cache again"
    assert len(ready) == 3


def test_a_number_that_is_not_finite_in_the_knobs_does_not_lose_the_run(
    world: _World, plan: Plan, tmp_path: Path
) -> None:
    world.answers[0] = {**ANSWER, "knobs": {"scale": float("inf")}}
    _run(world, plan(0), tmp_path)
    assert _kept(world) == {0: "ok"}
