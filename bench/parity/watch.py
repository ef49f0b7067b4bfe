"""Progress of a proof on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.parity.model import Pair
from bench.parity.plan import Subject
from bench.progress import Clock, duration


def _say(line: str) -> None:
    """In one piece, for several proofs are at work."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Lines:
    """Progress as plain lines, with the time left."""

    def __init__(self, total: float) -> None:
        self._clock = Clock(total)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measuring(self, subject: Subject, backend: str) -> None:
        _say(
            f"[{duration(self._clock.left_s())} left] {subject.backbone} {subject.precision} "
            f"{backend}: {len(subject.items)} measurements"
        )

    def measured(self) -> None:
        self._clock.done += 1

    def proved(self, pair: Pair) -> None:
        _say(f"    {summary(pair)}")


class Bar(Lines):
    """Progress as a bar."""

    def __init__(self, total: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def measuring(self, subject: Subject, backend: str) -> None:
        words = f"{subject.backbone} {subject.precision} {backend}"
        self._progress.update(self._task, description=words)  # of those at work, the latest

    def measured(self) -> None:
        self._progress.advance(self._task)

    def proved(self, pair: Pair) -> None:
        self._progress.console.print(summary(pair), markup=False, highlight=False)


def summary(pair: Pair) -> str:
    """A pair in a line."""
    what = (
        f"{pair.backbone} {pair.policy} {pair.optimizer} {pair.dtype} {' = '.join(pair.backends)}"
    )
    return f"{what}: {'shown' if pair.passed else pair.reason}"


def watcher(subjects: Sequence[Subject], backends: int) -> Lines:
    """The one that suits standard error."""
    total = float(sum(len(subject.items) for subject in subjects) * backends)
    return Bar(total) if sys.stderr.isatty() else Lines(total)
