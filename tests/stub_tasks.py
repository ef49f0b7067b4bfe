"""A task for workers that are stubs: it carries any fields, and so does its answer."""

from __future__ import annotations

from pydantic import ConfigDict

from bench.spec.result import RunResult
from bench.workers.tasks import RunAnswer, Task


class StubAnswer(RunAnswer):
    """Any fields, and perhaps results of runs."""

    model_config = ConfigDict(extra="allow")
    results: tuple[RunResult, ...] = ()


class StubTask(Task[StubAnswer]):
    """A task with arbitrary extra fields."""

    model_config = ConfigDict(extra="allow")
    task: str = "x"
