"""The time that advice may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RESERVED_SHARE = 0.03
"""Share of the budget kept for what follows the last trial: the answer itself."""


@dataclass
class Budget:
    """A time limit."""

    seconds: float
    now: Callable[[], float] = time.monotonic
    before_s: float = 0.0
    """Seconds that were spent before now, such as by the start of the program."""
    reserved_s: float = 0.0
    """Least seconds that are kept for what follows the last trial."""
    full_run_s: float = 0.0
    """Seconds that are kept for the full run; 0: it is not part of the budget."""
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.now() - self.before_s

    @property
    def spent_s(self) -> float:
        """Seconds spent."""
        return self.now() - self.began

    @property
    def left_s(self) -> float:
        """Seconds left for trials; not below 0."""
        reserved_s = max(RESERVED_SHARE * self.seconds, self.reserved_s)
        return max(self.seconds - reserved_s - self.full_run_s - self.spent_s, 0.0)

    def holds(self, estimated_s: float) -> bool:
        """Return True if work of this estimated length fits."""
        return estimated_s <= self.left_s


class BudgetSpent(Exception):
    """The budget ended during work that has no estimate, such as reading files."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C in the body, so that a second one does not lose the answer. Do nothing outside
    the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ended_by(budget: Budget) -> Iterator[None]:
    """Raise BudgetSpent in the body when the budget is spent, by a timer (setitimer(2)). Do nothing
    outside the main thread, and on systems that have no such timer."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def end(*_: object) -> None:
        raise BudgetSpent

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(budget.left_s, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
