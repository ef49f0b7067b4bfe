"""A pool of workers that do run after run, so that frameworks are imported once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

from bench.spec.run import Mode, Precision, RunSpec
from bench.system import machine_bytes
from bench.workers.events import OnEvent
from bench.workers.process import Finished, Interpreters, Worker
from bench.workers.tasks import Answer, RunAnswer, Task

LEAST_HELD_BYTES = 3 * 2**29
HELD_SHARE = 16
"""A worker is replaced if it holds more than 1/16 of the machine's memory between runs, and more
than 1.5 GiB: it has leaked, or keeps the buffers of a large network."""
CONTEXT_BYTES = 4 * 2**30
"""A worker on a GPU may hold so much more: the driver's context and the libraries of CUDA take 1.5
to 3 GB of the machine's memory from the first run on."""
TIDY_TIMEOUT_S = 20.0
"""Time in which a worker must have freed its memory after a task."""


class WorkerKind(NamedTuple):
    """Properties that a worker cannot change between runs: framework and process-wide settings."""

    backend: str
    device: str
    """cpu or cuda:N."""
    mode: Mode = "matched"
    """Mode; native networks change the framework's seeding and compilation."""
    precision: Precision = "fp32"
    """Precision; frameworks have one default dtype for the whole process."""
    code_sha256: str | None = None
    """SHA-256 of a user's own code, which may change any setting; None in matched mode, where
    the worker does not run it."""


def kind_of(spec: RunSpec) -> WorkerKind:
    """Return the kind of worker that a run needs."""
    code = spec.code_sha256 if spec.mode == "native" else None
    return WorkerKind(spec.backend, spec.device, spec.mode, spec.recipe.precision, code)


class WorkerPool:
    """A context manager that keeps at most one worker of each backend on a CPU, and one worker on
    a GPU, since frameworks do not give its memory back. At its end all workers are ended."""

    def __init__(
        self, interpreters: Interpreters, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Take ``variables`` for the workers besides those of their backend."""
        self._interpreters = interpreters
        self._variables = variables
        self._workers: dict[WorkerKind, Worker] = {}
        self._most_held_bytes = max(LEAST_HELD_BYTES, machine_bytes() // HELD_SHARE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in list(self._workers):
            self._end(held)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes of the workers."""
        return [worker.process.pid for worker in self._workers.values()]

    def do(
        self, kind: WorkerKind, task: Task[Answer], log: Path,
        on_event: OnEvent = lambda event: None, timeout_s: float | None = None,
    ) -> Finished[Answer]:  # fmt: skip
        """Do a task in a worker of this kind, as ``run_task`` does; start one if none can be used
        again."""
        worker = self._take(kind, log)
        is_usable = False
        try:
            logged = task.model_copy(update={"log": str(log.resolve())})
            finished = worker.do(logged, log, on_event, timeout_s)
            answer = finished.answer
            results = answer.results if isinstance(answer, RunAnswer) else ()
            is_usable = answer is not None and all(r.status != "oom" for r in results)
        finally:
            if not is_usable:
                self._end(kind)
        return finished

    def _take(self, kind: WorkerKind, log: Path) -> Worker:
        for other in list(self._workers):
            # A GPU holds one worker, and a CPU one of each backend.
            is_in_the_way = other.device != "cpu" or other.backend == kind.backend
            if other != kind and other.device == kind.device and is_in_the_way:
                self._end(other)
        if kind in self._workers:
            held = self._workers[kind].held_bytes(TIDY_TIMEOUT_S)
            is_running = self._workers[kind].process.poll() is None
            most = self._most_held_bytes + (0 if kind.device == "cpu" else CONTEXT_BYTES)
            if not is_running or held is None or held > most:
                self._end(kind)
        if kind not in self._workers:
            self._workers[kind] = Worker(
                kind.backend, kind.device, log, self._interpreters, self._variables
            )
        return self._workers[kind]

    def _end(self, kind: WorkerKind) -> None:
        self._workers.pop(kind).end()
