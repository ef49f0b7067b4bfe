"""The state of the machine around a measurement, and the rule that marks a disturbed one.

A window of time is marked by what the machine did meanwhile, never by the time that was measured:
leaving out slow windows because they are slow would hide exactly what a benchmark looks for.
"""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.system import OTHERS_DISTURB, CoreTimes, core_times
from bench.system.gpu import GpuState
from bench.system.nvml import gpu_state

CPU_FOLDERS = Path("/sys/devices/system/cpu")
CPU_INFO = Path("/proc/cpuinfo")
TICKS = 2
"""Clock ticks by which the kernel's counts of a window may be wrong, at its two ends."""
THROTTLING = ("hardware slowdown", "software thermal", "hardware thermal", "power brake")
"""Reasons for low clocks that mark a window. The power cap is none of them: under load it is the
usual state of many cards; it is recorded, and ratios are given in cycles too."""


@dataclass(frozen=True)
class MachineState:
    """The state of the machine at a moment. None: the machine does not tell."""

    cores: CoreTimes | None
    """Clocks of the cores."""
    load: float | None
    """Processes that ran or wanted to run, mean of the last minute."""
    cpu_mhz: float | None
    """Mean frequency of the cores that this process may use."""
    gpu: GpuState | None
    """State of the GPU; None on a CPU."""


def read_state(
    gpu_uuid: str | None = None, ours: tuple[int, ...] = (), with_children: bool = False
) -> MachineState:
    """Read the state of this machine now; it takes about 0.1 ms on a CPU.

    Args:
        gpu_uuid: UUID of the GPU that is measured; None on a CPU.
        ours: Ids of processes on the GPU that belong to the measurement.
        with_children: True if the children of this process belong to it, too.
    """
    load = None
    with suppress(OSError):
        load = os.getloadavg()[0]
    gpu = None if gpu_uuid is None else gpu_state(gpu_uuid, ours)
    return MachineState(core_times(with_children), load, _cpu_mhz(), gpu)


def sibling_processes() -> tuple[int, ...]:
    """Return the ids of the other children of this process's parent; none where the system has no
    such list (proc_pid_children(5))."""
    own, parent = os.getpid(), Path(f"/proc/{os.getppid()}/task")
    found: set[int] = set()
    with suppress(OSError, ValueError):
        for file in parent.glob("*/children"):
            found |= set(map(int, file.read_text().split()))
    return tuple(sorted(found - {own}))


def _cpu_mhz() -> float | None:
    """Return the mean frequency of the cores, from the kernel's cpufreq files or /proc/cpuinfo."""
    with suppress(OSError, ValueError, AttributeError):
        files = [CPU_FOLDERS / f"cpu{n}/cpufreq/scaling_cur_freq" for n in os.sched_getaffinity(0)]
        return statistics.mean(float(file.read_text()) for file in files) / 1000
    with suppress(OSError, ValueError):
        lines = CPU_INFO.read_text().splitlines()
        return statistics.mean(float(x.split(":")[1]) for x in lines if x.startswith("cpu MHz"))
    return None


def disturbance(before: MachineState, after: MachineState) -> str | None:
    """Return in words what disturbed the time between two states; None if nothing is known to.

    A time is disturbed if

    - other processes took more than a tenth of the cores' time (plus what the kernel's clock cannot
      resolve) while the cores were busy for more than nine tenths of it;
    - the GPU's clocks were held down by heat, by a power brake or by hardware, before or after;
    - another process computed on the GPU, before or after.
    """
    if before.cores is not None and after.cores is not None:
        work = before.cores.others(after.cores)
        blurred = TICKS / os.sysconf("SC_CLK_TCK") / before.cores.whole_s(after.cores)
        if work.disturbs and work.others > blurred + OTHERS_DISTURB:
            return "other processes used the cores"
    for state in (before.gpu, after.gpu):
        if state is None:
            continue
        reasons = [reason for reason in state.throttled_by if reason in THROTTLING]
        if reasons:
            return f"the GPU was throttled ({', '.join(reasons)})"
        if state.other_processes:
            return "another process computed on the GPU"
    return None
