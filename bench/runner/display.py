"""The protocol of a progress display, as the runner uses it."""

from __future__ import annotations

from typing import Any, Protocol

from bench.spec.result import RunResult
from bench.spec.run import RunSpec


class Display(Protocol):
    """Shows the progress of a grid."""

    def note(self, text: str) -> None:
        """Show a line about the call as a whole."""

    def begin(self, spec: RunSpec) -> None:
        """Show that a run starts."""

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Show an event that the worker of a run sent."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """Show how a run ended."""

    def close(self) -> None:
        """End the display, when all runs are done or the command is interrupted."""
