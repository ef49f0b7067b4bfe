"""Clocks: synchronised windows, throughput, memory."""

from __future__ import annotations

import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.training.adapter import Trainer

WINDOW_S = 0.1
"""Shortest window, in seconds; a window ends with the first step after that time."""
LEAST_WINDOWS = 3
"""Windows needed for a throughput; with fewer no steady state was reached."""
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


def reset_peak() -> bool:
    """Let ``peak_host_bytes`` start anew; return False where the system cannot do that."""
    try:  # proc_pid_clear_refs(5): 5 sets the peak to the memory held now
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_host_bytes() -> int:
    """Return the most memory that this process held since its start or since ``reset_peak``."""
    if (found := _status_bytes("VmHWM")) is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): KiB except on macOS


def trim_memory() -> None:
    """Return the allocator's free pages to the system (malloc_trim(3)), where the C library can, so
    that the next measurement does not begin with them."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def held_bytes() -> int | None:
    """Return the memory that this process holds now, None where the system does not report it."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    """Read a line of /proc/self/status (proc_pid_status(5)), which is in KiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
