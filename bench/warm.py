"""Workers that have imported their framework already do run after run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from bench.environment import machine_bytes
from bench.launch import Event, Finished, Interpreters, Worker
from bench.spec import Mode, Precision, RunSpec

LEAST_HELD_BYTES = 3 * 2**30
HELD_SHARE = 8
"""A worker that holds more than 1/8 of the machine's memory between runs, and more than 3 GiB, has
leaked, or keeps a large network's buffers: another takes its place."""


class Kind(NamedTuple):
    """What a worker cannot change between runs: which framework, and its process-wide settings."""

    backend: str
    """Whose worker."""
    device: str
    """cpu or cuda:N."""
    mode: Mode
    """Native networks seed and compile by the framework's own means."""
    precision: Precision
    """Frameworks keep default types for the whole process."""


def kind_of(spec: RunSpec) -> Kind:
    """The kind of worker that a run needs."""
    return Kind(spec.backend, spec.device, spec.mode, spec.recipe.precision)


class WarmWorkers:
    """At most one worker of each kind; on a GPU one at all, for frameworks do not give memory back.

    A context manager: at its end all are ended.
    """

    def __init__(self, interpreters: Interpreters) -> None:
        """
        Args:
            interpreters: Which Python runs which backend.
        """
        self._interpreters = interpreters
        self._workers: dict[Kind, Worker] = {}
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
        kind: Kind,
        job: dict[str, Any],
        log: Path,
        on_event: Callable[[Event], None] = lambda event: None,
        timeout_s: float | None = None,
    ) -> Finished:
        """Do one job in a worker of this kind, a new one if there is none that is fit.

        Args:
            kind: Of worker.
            job: 'task' and its arguments, see ``backends.worker``.
            log: File that the worker's output goes to.
            on_event: Called with each event that the task sends.
            timeout_s: After which the worker is ended.
        """
        worker = self._take(kind, log)
        is_fit = False
        try:
            finished = worker.do({**job, "log": str(log.resolve())}, log, on_event, timeout_s)
            is_fit = self._is_fit(finished)
        finally:
            if not is_fit:
                self._end(kind)
        return finished

    def _take(self, kind: Kind, log: Path) -> Worker:
        if kind.device != "cpu":
            for other in [k for k in self._workers if k != kind and k.device == kind.device]:
                self._end(other)
        if kind in self._workers and not self._workers[kind].is_running():
            self._end(kind)
        if kind not in self._workers:
            self._workers[kind] = Worker(kind.backend, log, self._interpreters)
        return self._workers[kind]

    def _is_fit(self, finished: Finished) -> bool:
        """Whether the worker may do another job: it gave an answer, and gave its memory back."""
        if finished.answer is None or finished.answer.get("held_bytes") is None:
            return False
        if finished.answer.get("result", {}).get("status") == "oom":
            return False
        return bool(finished.answer["held_bytes"] <= self._most_held_bytes)

    def _end(self, kind: Kind) -> None:
        self._workers.pop(kind).end()
