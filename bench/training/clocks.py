"""Clocks: synchronised windows, throughput, memory."""

from __future__ import annotations

import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

WINDOW_S = 0.1
"""A window closes at the first step that ends this long after it opened."""
LEAST_WINDOWS = 3
"""With fewer there is no steady state to speak of, and no figure."""
WARMUP_STEPS = 3
"""Steps at the start of a run that are outside every window: compilation, allocation, caches."""


class Stopwatch:
    """Seconds that are counted, up to now where it goes."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._began: float | None = None

    def go(self) -> None:
        """Count from now on."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Count no more."""
        self._counted, self._began = self.seconds, None

    def add(self, seconds: float) -> None:
        """Count these too."""
        self._counted += seconds

    @property
    def seconds(self) -> float:
        """Counted so far."""
        running = 0.0 if self._began is None else time.perf_counter() - self._began
        return self._counted + running


@dataclass
class Windows:
    """Images per second over windows that end with a device synchronise.

    Ends that are not synchronised would time the queueing of work, not the work.
    """

    synchronise: Callable[[], None]
    """Waits for the device."""
    warmup_steps: int = WARMUP_STEPS
    """Steps still to pass before the first window opens."""
    rates_per_s: list[float] = field(default_factory=list)
    """Images per second of each closed window."""
    seconds: float = 0.0
    """In all closed windows together."""
    waited_s: float = 0.0
    """Of these, spent waiting for input."""

    _opened: float | None = None
    _images: int = 0
    _steps: int = 0
    _wait: float = 0.0

    def open(self) -> None:
        """Begin, at the start of an epoch or pass."""
        self.synchronise()
        self._opened, self._images, self._steps, self._wait = time.perf_counter(), 0, 0, 0.0

    def step(self, images: int, waited_s: float = 0.0) -> None:
        """A step over ``images`` real images is done, or on its way to the device."""
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
        """End the open window; one of a single short step is too noisy and is dropped."""
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
        """Median window; None with too few windows to speak of a steady state."""
        if len(self.rates_per_s) < LEAST_WINDOWS:
            return None
        return statistics.median(self.rates_per_s)


def forget_peak() -> bool:
    """From here on ``peak_host_bytes`` is of what follows; whether the system can do that.

    Source: proc_pid_clear_refs(5): 5 sets the peak to what is held now.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_host_bytes() -> int:
    """Most memory that this process held since it began, or since ``forget_peak``."""
    found = _status_bytes("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): KiB but on macOS


def give_back() -> None:
    """Give the allocator's free pages back to the system, so that what is measured next does not
    begin with them (malloc_trim(3)); nothing where the C library cannot."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def held_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not tell."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    """A line of /proc/self/status (proc_pid_status(5)), which is in KiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
