"""Facts about this installation and this machine: version, cores, memory, load, processes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path

VERSION = "0.1.0"
"""Version of Thawbench; pyproject.toml reads it from here."""


CGROUP = Path("/sys/fs/cgroup")
CONTAINER_LIMITS = (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes")
"""Files that hold the memory limit of the container, in bytes (docs.kernel.org, "Control Group v2"
and "Memory Resource Controller")."""


@functools.cache
def processor() -> str:
    """Return the model name of the CPU."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Return how many processes ran or waited for a core, on average over the last minute; None
    where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def core_wait_s() -> float | None:
    """Return how long the threads of this process were ready and had to wait for a core, in sum
    since each began; None where the system does not tell.

    It is the second figure of /proc/PID/task/TID/schedstat, in nanoseconds (docs.kernel.org,
    "Scheduler Statistics").
    """
    total = 0
    try:
        for path in Path("/proc/self/task").glob("*/schedstat"):
            total += int(path.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9


def is_alive(pid: str) -> bool:
    """Return True if a process with this id exists on this machine."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def machine_bytes() -> int:
    """Return the memory of the machine, or of this process's container if that has less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such controller, or 'max'
            limits.append(int(path.read_text()))
    return min(limits)


def package_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def project_root() -> Path:
    """Return the folder that holds the packages ``bench`` and ``backends``."""
    return Path(__file__).resolve().parent.parent.parent
