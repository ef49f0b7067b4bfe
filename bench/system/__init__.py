"""Facts about this installation and this machine: version, cores, their load, memory, processes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
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
    core_count: int = 0
    """Number of these cores; 0 in readings of earlier versions."""

    def whole_s(self, later: CoreTimes) -> float:
        """Return the seconds that all these cores had until a later reading."""
        return max((later.at_s - self.at_s) * (self.core_count or cores()), 1e-9)

    def others(self, later: CoreTimes) -> OtherWork:
        """Return what other processes did until a later reading."""
        whole_s = self.whole_s(later)
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


def core_times(with_children: bool = False) -> CoreTimes | None:
    """Read the clocks of the cores, from /proc/stat (proc_stat(5)); None where there are none.

    Args:
        with_children: True to count the work of this process's children as its own.
    """
    try:
        allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # user, nice, system, idle, iowait, irq, softirq, steal
        ticks = [[int(v) for v in line[1:9]] for line in lines if line and line[0] in allowed]
        busy = sum(sum(each) - each[3] - each[4] for each in ticks)
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        times = os.times()
        own_s = times.user + times.system
        if with_children:
            ended_s = times.children_user + times.children_system
            own_s += ended_s + tick_s * sum(map(_ticks, _children(os.getpid())))
        return CoreTimes(time.perf_counter(), busy * tick_s, own_s, len(allowed))
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _children(pid: int) -> Iterator[int]:
    """Yield the ids of a process's living children and of theirs (proc_pid_task_children(5))."""
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread ended meanwhile
            for child in map(int, file.read_text().split()):
                yield child
                yield from _children(child)


def _ticks(pid: int) -> int:
    """Return the clock ticks that a process and its ended children took (proc_pid_stat(5)); 0 if it
    has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


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
