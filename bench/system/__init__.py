"""Facts about this installation and this machine: version, cores, their load, memory, processes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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


class CoreTimes(NamedTuple):
    """Seconds that the cores this process may use were busy, and for how many of them with it."""

    at_s: float
    """Moment of the reading."""
    busy_s: float
    own_s: float

    def others(self, later: CoreTimes) -> OtherWork:
        """Return what other processes did until a later reading."""
        whole_s = max((later.at_s - self.at_s) * cores(), 1e-9)
        busy_s, own_s = later.busy_s - self.busy_s, later.own_s - self.own_s
        return OtherWork(max(busy_s - own_s, 0.0) / whole_s, busy_s / whole_s)


class OtherWork(NamedTuple):
    """The use of the cores over a stretch of time, as shares of all that they could do."""

    others: float
    """Share that other processes used."""
    busy: float
    """Share that any process used."""

    @property
    def disturbs(self) -> bool:
        """True if other processes took cores that this one would have used."""
        return self.others > OTHERS_DISTURB and self.busy > ALL_BUSY


OTHERS_DISTURB, ALL_BUSY = 0.1, 0.9
"""Shares of the cores' time from which on other work disturbs a measurement: that of others, on
cores that are busy. On an idle machine others used up to 0.04."""


def core_times() -> CoreTimes | None:
    """Read the clocks of the cores, from /proc/stat (proc_stat(5)); None where there are none."""
    try:
        allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # user, nice, system, idle, iowait, irq, softirq, steal
        ticks = [[int(v) for v in line[1:9]] for line in lines if line and line[0] in allowed]
        busy = sum(sum(each) - each[3] - each[4] for each in ticks)
        own = os.times()
        return CoreTimes(
            time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), own.user + own.system
        )
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def other_work(seconds: float = 0.3) -> OtherWork | None:
    """Watch the cores for a moment; return what other processes do, None if it is not told."""
    before = core_times()
    time.sleep(seconds)
    after = core_times()
    return None if before is None or after is None else before.others(after)


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
