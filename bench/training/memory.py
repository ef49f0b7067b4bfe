"""Host memory of a worker process, which may have done other runs before."""

from __future__ import annotations

import ctypes
import math
import resource
import sys
from contextlib import suppress
from pathlib import Path

FOREIGN_SHARE = 0.1
"""Largest share of a reported peak that earlier runs may have left in the process."""


_fresh: dict[str, int | None] = {}


def note_fresh(device: str) -> None:
    """Remember the memory held now, when the framework has just been imported (``device`` 'cpu') or
    has just begun to use a GPU; only the first call for each device counts."""
    if device not in _fresh:
        _fresh[device] = held_bytes()


def fresh_bytes() -> int | None:
    """Return the memory that a process holds before its first run; None where it is not known."""
    return next(reversed(_fresh.values()), None)


class Peak:
    """The most memory that the process holds from the creation of this object on."""

    def __init__(self, is_warm: bool) -> None:
        """Begin; ``is_warm`` is True if the process has done another job before."""
        self._is_known = not is_warm or reset_peak()
        self._left_bytes = 0.0
        """Memory held above that of a fresh process, infinity where it is not known."""
        if is_warm:
            held, fresh = held_bytes(), fresh_bytes()
            self._left_bytes = math.inf if held is None or fresh is None else held - fresh

    def own_bytes(self, peak_bytes: int | None) -> int | None:
        """Return the peak during a job, from ``peak_host_bytes``, None where
        over a tenth of it may belong to earlier jobs."""
        if peak_bytes is None or not self._is_known:
            return None
        return peak_bytes if self._left_bytes <= FOREIGN_SHARE * peak_bytes else None


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
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
