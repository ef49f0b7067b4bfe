"""Runs what is missing: plan → workers → results on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.backbones import backbone
from bench.blueprint import Blueprint, Network
from bench.blueprints import blueprint_folder
from bench.cache import limit_bytes, mark_used, prune, unwritable
from bench.catalog.native import resize_of
from bench.data import pack
from bench.data.model import Resize
from bench.errors import Unavailable, UserError
from bench.head import attach_head
from bench.launch import Finished, Interpreters
from bench.native_weights import native_job
from bench.plan import boundary_index
from bench.prepare import PlannedRun
from bench.progress import Display
from bench.spec import Failure, RunResult
from bench.store import Store
from bench.warm import WarmWorkers, kind_of

LOG = "log.txt"


@dataclass
class Runner:
    """Executes planned runs one after the other, in worker processes that serve run after run."""

    store: Store
    """Where results go."""
    cache: Path
    """Packed data and Blueprints."""
    interpreters: Interpreters
    """Which Python runs which backend."""
    timeout_s: float | None = None
    """For one run."""

    _used: set[Path] = field(default_factory=set)

    def run_all(self, runs: Sequence[PlannedRun], display: Display) -> None:
        """Run them all; each result is on disk before the next run starts.

        Raises:
            UserError: Bad data or weights, or the results folder can no longer be written.
        """
        try:
            self._prepare(runs, display)
            with WarmWorkers(self.interpreters) as workers:
                for run in runs:
                    display.begin(run.spec)
                    result = self._run(run, workers, partial(display.event, run.spec))
                    display.end(run.spec, result)
        except OSError as error:
            if (told := unwritable(error, str(self.store.root))) is None:
                raise
            raise told from error
        finally:
            self.store.discard_partials()

    def _prepare(self, runs: Sequence[PlannedRun], display: Display) -> None:
        """Pack data and export Blueprints first, so that bad input is known before any run."""
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
        run: PlannedRun,
        workers: WarmWorkers,
        on_event: Callable[[dict[str, Any]], None],
    ) -> RunResult:
        folder = self.store.partial_folder()
        log = folder / LOG
        log.touch()
        if run.unavailable is not None:
            finished = Finished(None, "unavailable", "unavailable", run.unavailable)
        else:
            finished = self._start(run, workers, folder, log, on_event)
        result = _result(run, finished)
        if result.status != "ok":
            (folder / "predictions.npz").unlink(missing_ok=True)
        self.store.save(run.spec, run.environment, result, folder)
        return result

    def _start(
        self,
        run: PlannedRun,
        workers: WarmWorkers,
        folder: Path,
        log: Path,
        on_event: Callable[[dict[str, Any]], None],
    ) -> Finished:
        try:
            network = self._network(run)
        except Unavailable as error:
            return Finished(None, "unavailable", "unavailable", str(error))
        job = {
            "task": "run",
            "spec": run.spec.model_dump(mode="json"),
            "environment_id": run.environment.environment_id,
            "packed": str(self._packed(run).resolve()),
            "folder": str(folder.resolve()),
            "cache": str(self.cache.resolve()),
            **network,
        }
        return workers.do(kind_of(run.spec), job, log, on_event, self.timeout_s)

    def _network(self, run: PlannedRun) -> dict[str, Any]:
        """What a worker needs to build the network: a Blueprint, or where native weights lie."""
        if run.spec.mode == "native":
            assert run.weights is not None
            return {
                "native": native_job(
                    run.weights, backbone(run.backbone, self.interpreters, self.cache)
                )
            }
        return {"blueprint": str(self._blueprint(run).resolve())}


def _resize(run: PlannedRun) -> Resize:
    return resize_of(run.spec.mode, run.spec.backend)


def _result(run: PlannedRun, finished: Finished) -> RunResult:
    """A result from what the worker said, or from how it ended.

    Raises:
        UserError: The worker found that the question was wrong.
    """
    identity = {
        "run_id": run.spec.run_id,
        "environment_id": run.environment.environment_id,
    }
    if finished.answer is not None:
        result = RunResult.model_validate({**identity, **finished.answer["result"]})
        left_out = len(run.dataset.skipped)
        notes = [f"{left_out} unreadable images were left out"] if left_out else []
        return result.model_copy(update={"notes": [*result.notes, *notes]})
    if finished.status == "bad_input":
        raise UserError(finished.message, finished.hint)
    failure = Failure(kind=finished.kind, message=finished.message)
    return RunResult.model_validate({**identity, "status": finished.status, "failure": failure})
