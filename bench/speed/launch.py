"""Launches: a fresh process of a backend times all its cases once, in an order drawn anew.

The launch is the unit of every comparison. A process keeps its own luck (where its memory lies,
which kernels it chose), so that windows of one process are alike and say little about the next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field

from bench.errors import Unavailable, UserError, WorkerFailed
from bench.spec.base import Frozen
from bench.spec.run import Precision, Status
from bench.speed.cases import TimedCase
from bench.storage.cache import CACHE_VARIABLE
from bench.workers.process import Interpreters, Site, Worker, fresh_log
from bench.workers.tasks import (
    LaunchConditions,
    LaunchConditionsTask,
    SpeedAnswer,
    Task,
)

PADDING = "THAWBENCH_PADDING"
"""Environment variable without meaning. Its length shifts the stack of a process, which alone can
change its speed by some percent (Mytkowicz et al., "Producing Wrong Data Without Doing Anything
Obviously Wrong!", ASPLOS 2009), so each launch draws it."""
PADDING_BYTES = 4096
TIDY_TIMEOUT_S = 20.0
WAIT_TIMEOUT_S = 1800.0
"""Seconds without an answer, or a wish for a turn, after which a worker is ended."""


@dataclass(frozen=True)
class Place:
    """Where launches run: interpreters, code and settings."""

    interpreters: Interpreters
    cache: Path
    device: str = "cpu"
    site: Site = field(default_factory=Site)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables besides those of the backend."""
    padding_bytes: tuple[int, int] = (0, PADDING_BYTES)
    """Range of the padding's length in bytes, end excluded."""


class CaseFailure(Frozen):
    """The failure of a case in a launch."""

    status: Status | Literal["bad_input"]
    message: str
    hint: str | None = None

    def error(self, name: str) -> Exception:
        """Return the exception that reports it: UserError, Unavailable or WorkerFailed."""
        if self.status == "bad_input":
            return UserError(self.message, self.hint)
        text = f"timing {name} failed: {self.message}"
        return (Unavailable if self.status == "unavailable" else WorkerFailed)(text)


class Launch(Frozen):
    """Measurements of one fresh process."""

    backend: str
    precision: Precision
    started_at: str = Field(description="Time in UTC, ISO 8601.")
    seconds: float = Field(description="Duration of the launch, start of the process included.")
    order: tuple[str, ...] = Field(description="Cases in the order in which they were timed.")
    conditions: LaunchConditions | None = Field(description="Null if the process could not tell.")
    cases: dict[str, SpeedAnswer]
    failures: dict[str, CaseFailure] = Field(default={}, description="Cases without an answer.")

    def require_all(self) -> None:
        """Raise the error of the first case that failed, see ``CaseFailure.error``."""
        for name, failure in self.failures.items():
            raise failure.error(name)


def launch(cases: Sequence[TimedCase], place: Place, random: Random) -> Launch:
    """Time cases of one backend and precision in a fresh process, see ``launch_together``."""
    return launch_together([(cases, place)], random)[0]


def launch_together(
    sides: Sequence[tuple[Sequence[TimedCase], Place]], random: Random
) -> list[Launch]:
    """Time the same cases in several fresh processes that live at the same time and take turns.

    Each waits before each window until no other computes. Turns go in a random order of the
    processes and then in its mirror image, so that a machine that becomes slower for a second, or
    for a minute, does so for all of them. A single process has no need to wait.

    A case that fails is noted, and another process does the rest of that side.

    Args:
        sides: Cases of one backend and precision, the same number for each side, in the same
            order; and where they are launched.
    """
    running = [_Running(cases, place, random) for cases, place in sides]
    takes_turns = len(running) > 1
    try:
        for one in running:
            one.start()
        for index in random.sample(range(len(sides[0][0])), len(sides[0][0])):
            for one in running:
                one.begin(index, takes_turns)
            for one in running:
                one.go_on()
            while any(one.is_waiting for one in running):
                there = random.sample(running, len(running))
                for one in (*there, *reversed(there)):
                    if one.is_waiting:
                        one.take_turn()
    finally:
        for one in running:
            one.end()
    return [one.result() for one in running]


class _Running:
    """A launch under way."""

    def __init__(self, cases: Sequence[TimedCase], place: Place, random: Random) -> None:
        self._cases, self._place = cases, place
        self._backend = cases[0].backend
        self._padding = "x" * random.randrange(*place.padding_bytes)
        self._log = fresh_log(place.cache, f"speed-{self._backend}-{random.getrandbits(32):08x}")
        self._began = time.perf_counter()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._order: list[str] = []
        self._answers: dict[str, SpeedAnswer] = {}
        self._failures: dict[str, CaseFailure] = {}
        self._conditions: LaunchConditions | None = None
        self._worker: Worker | None = None
        self._is_asked = False
        self._current: TimedCase | None = None
        self._task: Task[SpeedAnswer] | None = None

    @property
    def is_waiting(self) -> bool:
        """True if the process waits for its turn."""
        return self._current is not None

    def start(self) -> None:
        """Start the process."""
        if self._worker is None:
            self._worker = start_worker(self._backend, self._place, self._log, self._padding)
            self._worker.begin(LaunchConditionsTask())
            self._is_asked = True

    def begin(self, index: int, takes_turns: bool) -> None:
        """Begin a case."""
        self.start()
        worker, case = self._worker, self._cases[index]
        assert worker is not None
        if self._is_asked:  # a new process, whose circumstances were asked for
            told = worker.go_on(LaunchConditionsTask(), self._log, ignore, WAIT_TIMEOUT_S)
            if told is not None and told.answer is not None:
                self._conditions = told.answer
            worker.held_bytes(TIDY_TIMEOUT_S)
            self._is_asked = False
        self._order.append(case.name)
        self._current = case
        self._task = case.task.model_copy(update={"turns": takes_turns})
        worker.begin(self._task)

    def take_turn(self) -> None:
        """Time a window."""
        assert self._worker is not None
        self._worker.grant_turn()
        self.go_on()

    def go_on(self) -> None:
        """Wait until the process waits for its turn, or has done the case and tidied up."""
        worker, case, task = self._worker, self._current, self._task
        assert worker is not None
        assert case is not None
        assert task is not None
        finished = worker.go_on(task, self._log, ignore, WAIT_TIMEOUT_S)
        if finished is None:
            return
        self._current = None
        if finished.answer is not None:
            self._answers[case.name] = finished.answer
            worker.held_bytes(TIDY_TIMEOUT_S)
        else:
            self._failures[case.name] = CaseFailure(
                status=finished.status,
                message=f"{finished.message} (the worker's output: {self._log})",
                hint=finished.hint,
            )
            self.end()

    def end(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def result(self) -> Launch:
        """Return what was measured; the worker's output is kept if something failed."""
        if not self._failures:
            self._log.unlink(missing_ok=True)
        return Launch(
            backend=self._backend, precision=self._cases[0].precision,
            started_at=self._started_at, seconds=time.perf_counter() - self._began,
            order=tuple(self._order), conditions=self._conditions, cases=self._answers,
            failures=self._failures,
        )  # fmt: skip


def group_cases(cases: Sequence[TimedCase]) -> list[list[TimedCase]]:
    """Return the cases that one process times together: of one backend and precision, which a
    process cannot change."""
    groups: dict[tuple[str, str], list[TimedCase]] = {}
    for case in cases:
        groups.setdefault((case.backend, case.precision), []).append(case)
    return list(groups.values())


def start_worker(backend: str, place: Place, log: Path, padding: str) -> Worker:
    """Start a worker at a place, with that padding of its environment."""
    variables = {**place.variables, CACHE_VARIABLE: str(place.cache.absolute()), PADDING: padding}
    return Worker(backend, place.device, log, place.interpreters, variables, place.site)


def ignore(event: object) -> None:
    """Take no notice of an event."""
