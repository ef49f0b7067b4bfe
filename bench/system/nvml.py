"""The state of a GPU by NVIDIA's library NVML, which answers within a millisecond.

``nvidia-smi`` (``bench.system.gpu``) tells the same, but starts a process of 0.1 s and more, too
long between two windows of a measurement. Source: docs.nvidia.com, NVML API Reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bench.system.gpu import THROTTLE_BITS, GpuState, count_others


@functools.cache
def _library() -> Any:
    """Return the loaded module of nvidia-ml-py; None where it, or a driver, is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no module, no library, no driver: each has its own exception
        return None
    return pynvml


def gpu_state(uuid: str, ours: tuple[int, ...] = ()) -> GpuState | None:
    """Return the state of the GPU with this UUID; None if NVML does not answer.

    Args:
        ours: Ids of processes that are not other ones.
    """
    nvml = _library()
    if nvml is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return None

    def ask(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except nvml.NVMLError:  # this card or driver does not tell
            return None

    def mib(value: Any) -> float | None:
        return None if value is None else value / 2**20

    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    power_mw = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    bits = ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
    usage = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    processes = ask(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return GpuState(
        sm_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        memory_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        power_w=None if power_mw is None else power_mw / 1000,
        temperature_c=ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        utilisation_percent=None if usage is None else usage.gpu,
        memory_used_mib=mib(memory and memory.used),
        memory_total_mib=mib(memory and memory.total),
        throttled_by=tuple(word for bit, word in THROTTLE_BITS.items() if bits & bit),
        other_processes=None
        if processes is None
        else count_others([p.pid for p in processes], ours),
    )
