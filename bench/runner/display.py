"""bench.runner.display."""

from __future__ import annotations

from typing import Any, Protocol

from bench.spec.result import RunResult
from bench.spec.run import RunSpec


class Display(Protocol):
    """Where progress goes."""

    def note(self, text: str) -> None:
        """One line about the call as a whole."""

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Something that a worker says of its run."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """A run has ended, well or badly."""

    def close(self) -> None:
        """All is done, or interrupted."""
