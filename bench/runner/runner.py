"""Do planned runs in worker processes and save their results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.data import has_path, pack
from bench.errors import Unavailable, UserError
from bench.native.applications import resize_of
from bench.native.weights import native_network
from bench.network.backbones import backbone
from bench.network.blueprint import Blueprint, Network
from bench.network.export import blueprint_folder
from bench.network.freezing import boundary_index, plan_training
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.runner.planner import PlannedRun
from bench.runner.repeat import SUITE_FILE, suite_text
from bench.spec.result import Failure, RunResult
from bench.spec.run import RunSpec
from bench.storage.cache import CACHE_VARIABLE, limit_bytes, mark_used, prune, unwritable
from bench.storage.results import Store
from bench.storage.text_files import replace_text
from bench.training.predictions import FILE, prediction_fields
from bench.training.sweep import sweep_key
from bench.workers.events import OnEvent, Progress
from bench.workers.pool import WorkerPool, kind_of
from bench.workers.process import Finished, Interpreters
from bench.workers.tasks import RunAnswer, RunTask

LOG_FILE = "log.txt"


class Display(Protocol):
    """Shows the progress of runs."""

    def note(self, text: str) -> None:
        """Show a line about the call as a whole."""

    def begin(self, spec: RunSpec) -> None:
        """Show that a run starts."""

    def event(self, spec: RunSpec, event: Progress) -> None:
        """Show an event that the worker of a run sent."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """Show how a run ended."""

    def close(self) -> None:
        """End the display, when all runs are done or the command is interrupted."""


class SilentDisplay:
    """A display that shows nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def begin(self, spec: RunSpec) -> None:
        """Show nothing."""

    def event(self, spec: RunSpec, event: Progress) -> None:
        """Show nothing."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Runner:
    """Does planned runs one after the other, those of a sweep at once, in a pool of workers."""

    store: Store
    cache: Path
    """Root of the cache, with packed data and Blueprints."""
    interpreters: Interpreters
    timeout_s: float | None = None
    """Time limit of a run."""

    _used: set[Path] = field(default_factory=set)

    def pool(self) -> WorkerPool:
        """Return a pool of workers that use the runner's cache."""
        return WorkerPool(self.interpreters, {CACHE_VARIABLE: str(self.cache.absolute())})

    def run_all(
        self, runs: Sequence[PlannedRun], display: Display, workers: WorkerPool | None = None
    ) -> None:
        """Do all runs; each result is on disk before the next run starts. ``workers`` are used and
        kept; without them, workers are started and ended. Raise UserError if data or weights are
        bad, or the results folder can no longer be written."""
        try:
            self._prepare(runs, display)
            with self.pool() if workers is None else nullcontext(workers) as workers:
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
        seen: set[Hashable] = set()
        notes: list[str | None] = []
        for run in runs:
            if run.unavailable is not None or run.weights is None:
                continue
            spec, recipe = run.spec, run.spec.recipe
            data = (run.dataset.content_hash, recipe.px, resize_of(spec.mode, spec.backend))
            if data not in seen:
                seen.add(data)
                self._packed(run)
            if spec.mode == "native":  # the framework brings its own network
                notes.append(_about_last_batch(run, "native mode may train BatchNorm over one"))
                continue
            seed = spec.seed if run.weights.ref.kind == "random" else None
            shape = (recipe.head, recipe.epochs, recipe.batch_size, run.dataset.train_images)
            network = (run.backbone, recipe.px, spec.weights, seed, spec.policy, shape)
            if network not in seen:
                seen.add(network)
                try:
                    blueprint = Blueprint.load(self._blueprint(run))
                except Unavailable as error:
                    display.note(str(error))
                    continue
                empty = Network.empty(blueprint)  # zeros that are never touched take no memory
                whole = attach_head(empty, recipe.head, len(run.dataset.classes), seed=0)
                boundary_index(whole.blueprint, spec.policy.boundary)
                phases = phases_of(whole.blueprint, spec.policy, recipe.epochs)
                if any(plan_training(whole.blueprint, p.policy).needs_two_images for p in phases):
                    notes.append(
                        _about_last_batch(run, f"BatchNorm trains at {recipe.px} px over one")
                    )
        for note in dict.fromkeys(filter(None, notes)):
            display.note(note)
        prune(self.cache, self._used, limit_bytes())

    def _packed(self, run: PlannedRun) -> Path:
        resize = resize_of(run.spec.mode, run.spec.backend)
        path = pack(run.dataset, run.spec.recipe.px, self.cache, resize).path
        if not mark_used(path):  # another process removed it in between
            path = pack(run.dataset, run.spec.recipe.px, self.cache, resize).path
            mark_used(path)
        self._used.add(path)
        return path

    def _blueprint(self, run: PlannedRun) -> Path:
        spec = run.spec
        assert run.weights is not None
        folder = blueprint_folder(
            run.backbone, spec.recipe.px, run.weights, spec.seed, self.cache, self.interpreters
        )
        self._used.add(folder)
        return folder

    def _run(
        self, runs: Sequence[PlannedRun], workers: WorkerPool, on_event: OnEvent
    ) -> list[RunResult]:
        """Do one run, or those of a sweep, and save the results."""
        spec = runs[0].spec
        folders = [self.store.partial_folder() for _ in runs]
        log = folders[0] / LOG_FILE
        log.touch()
        try:
            task = self._task(runs, folders)
            finished = workers.do(kind_of(spec), task, log, on_event, self.timeout_s)
        except Unavailable as error:
            finished = Finished(None, "unavailable", "unavailable", str(error))
        results = []
        for index, (run, folder) in enumerate(zip(runs, folders, strict=True)):
            result = _result(run, finished, index)
            if result.status != "ok":
                (folder / FILE).unlink(missing_ok=True)
            elif fields := prediction_fields(folder):
                result = result.model_copy(update=fields)
            if index > 0:
                shutil.copyfile(log, folder / LOG_FILE)
            results.append(result)
        for run, folder, result in zip(runs, folders, results, strict=True):
            if run.given_dataset:
                replace_text(folder / SUITE_FILE, _suite_of(run, [other.spec for other in runs]))
            self.store.save(run.spec, run.environment, result, folder)
        return results

    def _task(self, runs: Sequence[PlannedRun], folders: Sequence[Path]) -> RunTask:
        """Return the task of one run, or of those of a sweep; raise Unavailable if weights, a
        package or the exporter are missing."""
        first = runs[0]
        if first.unavailable is not None:
            raise Unavailable(first.unavailable)
        assert first.weights is not None
        blueprint = native = None
        if first.spec.mode == "native":
            entry = backbone(first.backbone, self.interpreters, self.cache)
            native = native_network(first.weights, entry)
        else:
            blueprint = self._blueprint(first).name
        return RunTask(
            specs=tuple(run.spec for run in runs),
            environment_id=first.environment.environment_id,
            packed=self._packed(first).name,
            blueprint=blueprint,
            native=native,
            folders=tuple(str(folder.resolve()) for folder in folders),
        )


def _suite_of(run: PlannedRun, swept: Sequence[RunSpec]) -> str:
    """Return the suite that repeats a run on this machine, with absolute paths."""
    kind, _, path = run.given_dataset.partition(":")
    is_own = has_path(run.given_dataset)
    dataset = f"{kind}:{_absolute(path)}" if is_own else run.given_dataset
    weights = None if run.given_weights is None else _absolute(run.given_weights)
    return suite_text(run.spec, swept if len(swept) > 1 else (), dataset, run.backbone, weights)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _about_last_batch(run: PlannedRun, why: str) -> str | None:
    """Return a sentence if a single last image joins the batch before it, in a run that may train a
    BatchNorm over a single position; raise UserError if every batch has one image, which PyTorch
    refuses and Keras gets wrong. ``why`` begins the reason."""
    recipe, images = run.spec.recipe, run.dataset.train_images
    what = f"{run.backbone}, {run.spec.policy.name}"
    reason = f"{why} position, which needs two images"
    if min(recipe.batch_size, images) == 1:
        raise UserError(
            f"{what}: batches of one image cannot be trained: {reason}.",
            "Use --batch-size 2 or more, a larger --px, or --mode matched with freeze_all.",
        )
    if images % recipe.batch_size != 1:
        return None
    return f"{what}: the last of {images} training images joins the batch before it: {reason}"


def _in_order(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Group runs on a GPU by kind of worker, since it holds one at a time and each new one imports
    its framework again; leave the order of runs on a CPU."""
    kinds = list(dict.fromkeys(kind_of(run.spec) for run in runs))
    return sorted(runs, key=lambda r: 0 if r.spec.device == "cpu" else kinds.index(kind_of(r.spec)))


def _sweep_groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return the runs in order, those of a sweep as one group, each other one alone."""
    groups: dict[Hashable, list[PlannedRun]] = {}
    for number, run in enumerate(runs):
        sweep = sweep_key(run.spec) if run.unavailable is None else None
        key = number if sweep is None else (sweep, run.environment.environment_id)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _result(run: PlannedRun, finished: Finished[RunAnswer], index: int) -> RunResult:
    """Return the worker's result of the run with this index, or a failed one with the reason; raise
    UserError if the worker found a mistake of the user."""
    if finished.answer is not None:
        data = run.dataset
        about_data = {
            "unreadable_images": len(data.skipped) or None, "data_options": data.options,
            "data_remarks": data.remarks,
        }  # fmt: skip
        return finished.answer.results[index].model_copy(update=about_data)
    if finished.status == "bad_input":
        raise UserError(finished.message, finished.hint)
    return RunResult(
        run_id=run.spec.run_id,
        environment_id=run.environment.environment_id,
        status=finished.status,
        failure=Failure(kind=finished.kind, message=finished.message),
    )
