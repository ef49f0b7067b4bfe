"""Workers that have imported their framework already do run after run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from bench.spec.run import Mode, Precision, RunSpec
from bench.system import machine_bytes
from bench.workers.process import Event, Finished, Interpreters, Worker
from bench.workers.tasks import Answer, RunAnswer, Task

LEAST_HELD_BYTES = 3 * 2**29
HELD_SHARE = 16
"""A worker that holds more than 1/16 of the machine's memory between runs, and more than 1.5 GiB,
has leaked, or keeps a large network's buffers: another takes its place."""
PATIENCE_S = 20.0
"""For a worker that tidies up."""


class WorkerKind(NamedTuple):
    """What a worker cannot change between runs: which framework, and its process-wide settings."""

    backend: str
    """Whose worker."""
    device: str
    """cpu or cuda:N."""
    mode: Mode
    """Native networks seed and compile by the framework's own means."""
    precision: Precision
    """Frameworks keep default types for the whole process."""
    code_sha256: str | None = None
    """Of a user's own network, whose code may set anything, where the worker runs it: in native
    mode."""


def kind_of(spec: RunSpec) -> WorkerKind:
    """The kind of worker that a run needs."""
    code = spec.code_sha256 if spec.mode == "native" else None
    return WorkerKind(spec.backend, spec.device, spec.mode, spec.recipe.precision, code)


class WarmWorkers:
    """At most one worker of each backend on a device; on a GPU one at all, for frameworks do not
    give its memory back.

    A context manager: at its end all are ended.
    """

    def __init__(
        self, interpreters: Interpreters, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """
        Args:
            interpreters: Which Python runs which backend.
            variables: Environment variables of the workers, beside their backend's own.
        """
        self._interpreters = interpreters
        self._variables = variables
        self._workers: dict[WorkerKind, Worker] = {}
        self._most_held_bytes = max(LEAST_HELD_BYTES, machine_bytes() // HELD_SHARE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for held in list(self._workers):
            self._end(held)

    def do(
        self,
        kind: WorkerKind,
        task: Task[Answer],
        log: Path,
        on_event: Callable[[Event], None] = lambda event: None,
        timeout_s: float | None = None,
    ) -> Finished[Answer]:
        """Do one task in a worker of this kind, a new one if there is none that is fit.

        Args:
            kind: Of worker.
            task: What to do.
            log: File that the worker's output goes to.
            on_event: Called with each event that the task sends.
            timeout_s: After which the worker is ended.
        """
        worker = self._take(kind, log)
        is_fit = False
        try:
            logged = task.model_copy(update={"log": str(log.resolve())})
            finished = worker.do(logged, log, on_event, timeout_s)
            is_fit = finished.answer is not None and not _ran_out(finished.answer)
        finally:
            if not is_fit:
                self._end(kind)
        return finished

    def _take(self, kind: WorkerKind, log: Path) -> Worker:
        for other in [k for k in self._workers if k != kind and _in_the_way(k, kind)]:
            self._end(other)
        if kind in self._workers:
            held = self._workers[kind].held_bytes(PATIENCE_S)
            is_there = self._workers[kind].is_running()
            if not is_there or held is None or held > self._most_held_bytes:
                self._end(kind)
        if kind not in self._workers:
            self._workers[kind] = Worker(kind.backend, log, self._interpreters, self._variables)
        return self._workers[kind]

    def _end(self, kind: WorkerKind) -> None:
        self._workers.pop(kind).end()


def _in_the_way(held: WorkerKind, wanted: WorkerKind) -> bool:
    """Whether a worker must go before another kind's can work."""
    same_device = held.device == wanted.device
    return same_device and (held.backend == wanted.backend or wanted.device != "cpu")


def _ran_out(answer: object) -> bool:
    return isinstance(answer, RunAnswer) and any(r.status == "oom" for r in answer.results)
