"""What the runner tells a display of progress."""

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
        """Show an event that a worker sent of its run."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """Show how a run ended."""

    def close(self) -> None:
        """End the display; all is done, or interrupted."""
