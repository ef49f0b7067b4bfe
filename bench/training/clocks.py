"""Clocks: durations, and throughput in synchronised windows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from bench.training.adapter import Trainer

WINDOW_S = 0.1
"""Shortest window, in seconds; a window ends with the first step after that time."""
GPU_WINDOW_S = 0.5
"""The same on a GPU, which stands still after each window until the next steps are launched."""
LEAST_WINDOWS = 3
"""Windows needed for a throughput; with fewer no steady state was reached."""
LEAST_STEADY = 6
"""Windows needed to see that other work disturbed them."""
DISTURBED = 2.0
"""Ratio of the median rate to that of the slow quarter of the windows from which on other work has
disturbed them; idle machines had up to 1.3."""
QUEUED_STEPS = 5
WARMUP_STEPS = 3
"""Steps at the start of a run outside every window: compilation, allocation, caches."""


T = TypeVar("T")


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
    device: str = "cpu"
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
        if self._opened is not None and time.perf_counter() - self._opened >= self.window_s:
            self.close()
            self.open()

    def leave_out(self) -> None:
        """Go on after a step that is in no window, such as the first one of a batch size, before
        which the window was closed."""
        if self.warmup_steps > 0:
            self.warmup_steps -= 1
        self.open()

    @property
    def window_s(self) -> float:
        """Shortest window, in seconds."""
        return WINDOW_S if self.device == "cpu" else GPU_WINDOW_S

    def close(self) -> None:
        """Close the open window; drop it if it holds a single short step, which is too noisy."""
        if self._opened is None or not self._images:
            return
        self.synchronise()
        elapsed = time.perf_counter() - self._opened
        if self._steps >= 2 or elapsed >= self.window_s:
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


class FirstCalls:
    """Clock of the first two calls of each kind of work and each batch size. In the first one
    frameworks compile, libraries choose their kernels and memory is allocated."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self._synchronise = synchronise
        self._seconds: dict[str, dict[int, list[float]]] = {}
        """Work → number of images → seconds of its first and second call."""

    def is_first(self, work: str, images: int) -> bool:
        """Return True if this work was not done with so many images yet."""
        return not self._seconds.get(work, {}).get(images)

    def time(self, work: str, images: int, call: Callable[[], T]) -> T:
        """Return the result of a call, which is waited for if it is one of the first two."""
        seconds = self._seconds.setdefault(work, {}).setdefault(images, [])
        if len(seconds) == 2:
            return call()
        self._synchronise()
        began = time.perf_counter()
        result = call()
        self._synchronise()
        seconds.append(time.perf_counter() - began)
        return result

    def compile_s(self, only: str = "") -> float | None:
        """Return by how many seconds first calls exceed second ones, over all batch sizes of all
        work, or of one kind; None if no work was called twice. A size that came once is compared
        with the rate of others."""
        total: float | None = None
        for work, sizes in self._seconds.items():
            if only and work != only:
                continue
            rates = [calls[1] / images for images, calls in sizes.items() if len(calls) == 2]
            if not rates:
                continue
            total = total or 0.0
            for images, calls in sizes.items():
                usual = calls[1] if len(calls) == 2 else statistics.median(rates) * images
                total += max(calls[0] - usual, 0.0)
        return total


class Stretch(NamedTuple):
    """Training steps queued one after the other, and waited for once."""

    step_s: float
    """Seconds a step, until the device had done all of them."""
    device_step_s: list[float]
    """Seconds of each step on the device's own timeline; empty where it has no clock."""


def stretch(trainer: Trainer, prepared: Any, learning_rate: float, steps: int) -> Stretch:
    """Train ``steps`` times on one batch that lies on the device, without waiting in between, so
    that the host's work is hidden as in training."""
    trainer.synchronise()
    events = trainer.events()
    began = time.perf_counter()
    if events is not None:
        events.mark()
    for _ in range(steps):
        trainer.train_step(prepared, learning_rate)
        if events is not None:
            events.mark()
    trainer.synchronise()
    done_s = time.perf_counter() - began
    return Stretch(done_s / steps, events.seconds() if events else [])


def queue_s(trainer: Trainer, prepared: Any, learning_rate: float) -> float | None:
    """Return the median seconds in which the host queues one step on an idle device; None if the
    trainer waits for its steps.

    Of many steps in a row it would be the device's time: the driver lets some thousand launches
    wait, and then makes the host wait.
    """
    if trainer.waits_for_steps:
        return None
    found = []
    for _ in range(QUEUED_STEPS):
        trainer.synchronise()
        began = time.perf_counter()
        trainer.train_step(prepared, learning_rate)
        found.append(time.perf_counter() - began)
    trainer.synchronise()
    return statistics.median(found)


def step_phases(
    trainer: Trainer, prepared: Any, learning_rate: float, steps: int
) -> dict[str, float]:
    """Return the median seconds of each part of a training step, waited for after each; empty
    where the framework runs the step as one program."""
    seconds: dict[str, list[float]] = {}
    began = 0.0

    def after(phase: str) -> None:
        nonlocal began
        trainer.synchronise()
        seconds.setdefault(phase, []).append(time.perf_counter() - began)
        began = time.perf_counter()

    for _ in range(steps):
        trainer.synchronise()
        began = time.perf_counter()
        trainer.step_in_phases(prepared, learning_rate, after)
    return {phase: statistics.median(each) for phase, each in seconds.items()}


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
