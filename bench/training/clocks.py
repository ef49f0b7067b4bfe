"""Clocks: durations, and throughput in synchronised windows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.training.adapter import Trainer

WINDOW_S = 0.1
"""Shortest window, in seconds; a window ends with the first step after that time."""
LEAST_WINDOWS = 3
"""Windows needed for a throughput; with fewer no steady state was reached."""
LEAST_STEADY = 6
"""Windows needed to see that other work disturbed them."""
DISTURBED = 2.0
"""Ratio of the median rate to that of the slow quarter of the windows from which on other work has
disturbed them; idle machines had up to 1.3."""
WARMUP_STEPS = 3
"""Steps at the start of a run outside every window: compilation, allocation, caches."""


class Stopwatch:
    """A stopwatch that can be paused and to which seconds measured elsewhere can be added."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._began: float | None = None

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self._counted, self._began = self.seconds, None

    def add(self, seconds: float) -> None:
        self._counted += seconds

    @property
    def seconds(self) -> float:
        """Seconds counted so far, up to now while the stopwatch runs."""
        running = 0.0 if self._began is None else time.perf_counter() - self._began
        return self._counted + running


@dataclass
class Windows:
    """Images per second over windows that end when the device is done, not when work is queued."""

    synchronise: Callable[[], None]
    warmup_steps: int = WARMUP_STEPS
    """Steps left until the first window opens."""
    rates_per_s: list[float] = field(default_factory=list)
    """Images per second of each closed window."""
    seconds: float = 0.0
    """Total duration of the closed windows."""
    waited_s: float = 0.0
    """Part of ``seconds`` spent waiting for input."""
    _opened: float | None = None
    _images: int = 0
    _steps: int = 0
    _wait: float = 0.0

    def open(self) -> None:
        """Open a window, at the start of an epoch or of an inference pass."""
        self.synchronise()
        self._opened, self._images, self._steps, self._wait = time.perf_counter(), 0, 0, 0.0

    def step(self, images: int, waited_s: float = 0.0) -> None:
        """Count a step over ``images`` images that is done or queued on the device."""
        if self.warmup_steps > 0:
            self.warmup_steps -= 1
            if self.warmup_steps == 0:
                self.open()
            return
        self._images += images
        self._steps += 1
        self._wait += waited_s
        if self._opened is not None and time.perf_counter() - self._opened >= WINDOW_S:
            self.close()
            self.open()

    def close(self) -> None:
        """Close the open window; drop it if it holds a single short step, which is too noisy."""
        if self._opened is None or not self._images:
            return
        self.synchronise()
        elapsed = time.perf_counter() - self._opened
        if self._steps >= 2 or elapsed >= WINDOW_S:
            self.rates_per_s.append(self._images / elapsed)
            self.seconds += elapsed
            self.waited_s += self._wait
        self._opened, self._images = None, 0

    @property
    def is_steady(self) -> bool:
        """True unless the slowest quarter of the windows is far slower than the median one, as
        beside other work; few windows cannot show it."""
        rates = sorted(self.rates_per_s)
        if len(rates) < LEAST_STEADY:
            return True
        return rates[len(rates) // 4] * DISTURBED > statistics.median(rates)

    def median_per_s(self) -> float | None:
        """Return the rate of the median window, None if there are fewer than ``LEAST_WINDOWS``."""
        rates = self.rates_per_s
        return statistics.median(rates) if len(rates) >= LEAST_WINDOWS else None


def seconds_of(work: Callable[[], object], synchronise: Callable[[], None]) -> float:
    """Time ``work`` from an idle device; ``work`` must itself wait for what it started."""
    synchronise()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def step_durations(trainer: Trainer, prepared: Any, learning_rate: float) -> Iterator[float]:
    """Train on one batch that lies on the device, without end; yield the seconds of each step."""

    def step() -> None:
        trainer.train_step(prepared, learning_rate)
        trainer.synchronise()

    while True:
        yield seconds_of(step, trainer.synchronise)
