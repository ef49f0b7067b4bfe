"""Do planned runs in worker processes and save their results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.data import pack
from bench.data.model import Resize
from bench.errors import Unavailable, UserError
from bench.native.applications import resize_of
from bench.native.weights import native_network
from bench.network.backbones import backbone
from bench.network.blueprint import Blueprint, Network
from bench.network.export import blueprint_folder
from bench.network.freezing import boundary_index
from bench.network.head import attach_head
from bench.runner.display import Display
from bench.runner.planner import PlannedRun
from bench.spec.result import Failure, RunResult
from bench.storage.cache import CACHE_VARIABLE, limit_bytes, mark_used, prune, unwritable
from bench.storage.results import Store
from bench.training.predictions import FILE, prediction_fields
from bench.training.sweep import sweep_key
from bench.workers.pool import WorkerPool, kind_of
from bench.workers.process import Finished, Interpreters
from bench.workers.tasks import RunTask

LOG_FILE = "log.txt"


@dataclass
class Runner:
    """Does planned runs one after the other, those of a sweep at once, in a pool of workers."""

    store: Store
    """Results folder."""
    cache: Path
    """Root of the cache, with packed data and Blueprints."""
    interpreters: Interpreters
    timeout_s: float | None = None
    """Time limit of a run."""

    _used: set[Path] = field(default_factory=set)

    def run_all(self, runs: Sequence[PlannedRun], display: Display) -> None:
        """Do all runs; each result is on disk before the next run starts.

        Raises:
            UserError: Data or weights are bad, or the results folder can no longer be written.
        """
        try:
            self._prepare(runs, display)
            variables = {CACHE_VARIABLE: str(self.cache.absolute())}
            with WorkerPool(self.interpreters, variables) as workers:
                for group in _sweep_groups(_in_order(runs)):
                    first = group[0].spec
                    display.begin(first)
                    results = self._run(group, workers, partial(display.event, first))
                    display.end(first, results[0])
                    for run, result in zip(group[1:], results[1:], strict=True):
                        display.begin(run.spec)
                        display.end(run.spec, result)
        except OSError as error:
            if (user_error := unwritable(error, str(self.store.root))) is None:
                raise
            raise user_error from error
        finally:
            self.store.discard_partials()

    def _prepare(self, runs: Sequence[PlannedRun], display: Display) -> None:
        """Pack data and export Blueprints, so that bad input is found before any run."""
        seen: set[tuple[Any, ...]] = set()
        for run in runs:
            if run.unavailable is not None or run.weights is None:
                continue
            data = (run.dataset.content_hash, run.spec.recipe.px, _resize(run))
            if data not in seen:
                seen.add(data)
                self._packed(run)
            if run.spec.mode == "native":
                continue  # the framework brings its own network
            seed = run.spec.seed if run.weights.ref.kind == "random" else None
            network = (
                run.backbone,
                run.spec.recipe.px,
                run.spec.weights,
                seed,
                run.spec.policy,
                run.spec.recipe.head,
            )
            if network not in seen:
                seen.add(network)
                try:
                    blueprint = Blueprint.load(self._blueprint(run))
                except Unavailable as error:
                    display.note(str(error))
                    continue
                classes = len(run.dataset.classes)
                empty = Network.empty(blueprint)  # zeros that are never touched take no memory
                whole = attach_head(empty, run.spec.recipe.head, classes, seed=0)
                boundary_index(whole.blueprint, run.spec.policy.boundary)
        prune(self.cache, self._used, limit_bytes())

    def _packed(self, run: PlannedRun) -> Path:
        path = pack(run.dataset, run.spec.recipe.px, self.cache, _resize(run)).path
        mark_used(path)
        self._used.add(path)
        return path

    def _blueprint(self, run: PlannedRun) -> Path:
        assert run.weights is not None
        folder = blueprint_folder(
            run.backbone,
            run.spec.recipe.px,
            run.weights,
            run.spec.seed,
            self.cache,
            self.interpreters,
        )
        self._used.add(folder)
        return folder

    def _run(
        self,
        runs: Sequence[PlannedRun],
        workers: WorkerPool,
        on_event: Callable[[dict[str, Any]], None],
    ) -> list[RunResult]:
        """Do one run, or those of a sweep, and save the results."""
        folders = [self.store.partial_folder() for _ in runs]
        log = folders[0] / LOG_FILE
        log.touch()
        first = runs[0]
        if first.unavailable is not None:
            finished = [_unavailable(first.unavailable)]
        else:
            finished = self._start(runs, workers, folders, log, on_event)
        results = []
        for run, folder, end in zip(runs, folders, finished, strict=True):
            result = _result(run, end)
            if result.status != "ok":
                (folder / FILE).unlink(missing_ok=True)
            elif fields := prediction_fields(folder):
                result = result.model_copy(update=fields)
            if folder != folders[0]:
                shutil.copyfile(log, folder / LOG_FILE)
            results.append(result)
        for run, folder, result in zip(runs, folders, results, strict=True):
            self.store.save(run.spec, run.environment, result, folder)
        return results

    def _start(
        self,
        runs: Sequence[PlannedRun],
        workers: WorkerPool,
        folders: Sequence[Path],
        log: Path,
        on_event: Callable[[dict[str, Any]], None],
    ) -> list[Finished[RunResult]]:
        """Start runs in a worker and return how each ended."""
        first = runs[0]
        try:
            network = self._network(first)
        except Unavailable as error:
            return [_unavailable(str(error))] * len(runs)
        task = RunTask(
            specs=tuple(run.spec for run in runs),
            environment_id=first.environment.environment_id,
            packed=self._packed(first).name,
            folders=tuple(str(folder.resolve()) for folder in folders),
            **network,
        )
        end = workers.do(kind_of(first.spec), task, log, on_event, self.timeout_s)
        if end.answer is None:
            return [Finished(None, end.status, end.kind, end.message, end.hint)] * len(runs)
        return [Finished(result) for result in end.answer.results]

    def _network(self, run: PlannedRun) -> dict[str, Any]:
        """Return the fields of a task that name the network: a Blueprint, or a native one."""
        if run.spec.mode == "native":
            assert run.weights is not None
            entry = backbone(run.backbone, self.interpreters, self.cache)
            return {"native": native_network(run.weights, entry)}
        return {"blueprint": self._blueprint(run).name}


def _in_order(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Group runs on a GPU by kind of worker; leave the order of runs on a CPU.

    A GPU holds one worker at a time, and each new one imports its framework again.
    """
    kinds = list(dict.fromkeys(kind_of(run.spec) for run in runs))

    def turn(run: PlannedRun) -> int:
        return 0 if run.spec.device == "cpu" else kinds.index(kind_of(run.spec))

    return sorted(runs, key=turn)


def _sweep_groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return the runs in order, those of a sweep as one group, each other one alone."""
    groups: dict[Hashable, list[PlannedRun]] = {}
    for number, run in enumerate(runs):
        sweep = sweep_key(run.spec) if run.unavailable is None else None
        key = number if sweep is None else (sweep, run.environment.environment_id)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _resize(run: PlannedRun) -> Resize:
    return resize_of(run.spec.mode, run.spec.backend)


def _unavailable(reason: str) -> Finished[RunResult]:
    return Finished(None, "unavailable", "unavailable", reason)


def _result(run: PlannedRun, finished: Finished[RunResult]) -> RunResult:
    """Return the worker's result, or a failed one with the reason.

    Raises:
        UserError: The worker found a mistake of the user.
    """
    if finished.answer is not None:
        skipped = len(run.dataset.skipped) or None
        return finished.answer.model_copy(update={"unreadable_images": skipped})
    if finished.status == "bad_input":
        raise UserError(finished.message, finished.hint)
    return RunResult(
        run_id=run.spec.run_id,
        environment_id=run.environment.environment_id,
        status=finished.status,
        failure=Failure(kind=finished.kind, message=finished.message),
    )
