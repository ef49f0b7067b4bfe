"""The state of the machine around a window, and the rule that marks a disturbed one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bench.system import CoreTimes, cores, project_root
from bench.system.gpu import GpuState, count_others
from bench.system.machine_state import MachineState, disturbance, read_state
from bench.system.nvml import _library, gpu_state


def _state(busy_s: float = 0.0, own_s: float = 0.0, at_s: float = 0.0, **gpu: Any) -> MachineState:
    return MachineState(
        CoreTimes(at_s, busy_s, own_s), None, None, GpuState(**gpu) if gpu else None
    )


@pytest.mark.parametrize(
    ("busy", "own", "is_disturbed"),
    [(1.0, 1.0, False), (1.0, 0.8, True), (0.5, 0.2, False), (1.0, 0.92, False)],
)
def test_other_work_on_busy_cores_disturbs(busy: float, own: float, is_disturbed: bool) -> None:
    whole = 10.0 * cores()
    after = _state(busy * whole, own * whole, 10.0)
    assert (disturbance(_state(), after) is not None) == is_disturbed


def test_what_the_kernels_clock_cannot_resolve_is_no_disturbance() -> None:
    after = _state(0.02 * cores(), 0.015 * cores(), 0.02)  # 20 ms, of which others took a quarter
    assert disturbance(_state(), after) is None


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ({"throttled_by": ("software thermal",)}, "throttled (software thermal)"),
        ({"throttled_by": ("power brake", "power cap")}, "throttled (power brake)"),
        ({"other_processes": 1}, "another process"),
        ({"throttled_by": ("power cap",)}, None),
        ({"other_processes": 0}, None),
    ],
)
def test_the_gpu_marks_a_window(gpu: dict[str, Any], words: str | None) -> None:
    for before, after in ((_state(**gpu), _state()), (_state(), _state(**gpu))):
        found = disturbance(before, after)
        assert found is None if words is None else words in str(found)


def test_a_window_is_never_marked_where_nothing_is_told() -> None:
    nothing = MachineState(None, None, None, None)
    assert disturbance(nothing, nothing) is None


def test_the_state_of_this_machine() -> None:
    state = read_state()
    assert state.gpu is None
    assert state.load is None or state.load >= 0
    assert state.cpu_mhz is None or 100 < state.cpu_mhz < 10_000


class _NvmlError(Exception):
    pass


def _fails(*_: Any) -> Any:
    raise _NvmlError("not supported")


def _handle(uuid: str) -> str:
    return uuid if uuid == "GPU-1" else _fails()


NVML = {
    "NVMLError": _NvmlError, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2, "NVML_TEMPERATURE_GPU": 0,
    "nvmlInit": lambda: None,
    "nvmlDeviceGetHandleByUUID": _handle,
    "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2 * 2**30, total=8 * 2**30),
    "nvmlDeviceGetPowerUsage": lambda handle: 350_500,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x20 | 0x4,
    "nvmlDeviceGetUtilizationRates": _fails,
    "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
        SimpleNamespace(pid=7), SimpleNamespace(pid=8)
    ],
    "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1755, 2: 2619}[kind],
    "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
}  # fmt: skip
"""The functions of NVML that are used (docs.nvidia.com, NVML API Reference)."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**NVML))  # type: ignore[arg-type]
    _library.cache_clear()
    yield
    _library.cache_clear()


def test_nvml_tells_clocks_power_throttling_and_others(nvml: None) -> None:
    state = gpu_state("GPU-1", ours=(7,))
    assert state == GpuState(
        sm_clock_mhz=1755, memory_clock_mhz=2619, power_w=350.5, temperature_c=61,
        utilisation_percent=None, memory_used_mib=2048, memory_total_mib=8192,
        throttled_by=("power cap", "software thermal"), other_processes=1,
    )  # fmt: skip
    assert gpu_state("GPU-2") is None


def test_without_a_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(**{**NVML, "nvmlInit": _fails})
    monkeypatch.setitem(sys.modules, "pynvml", broken)  # type: ignore[arg-type]
    _library.cache_clear()
    assert gpu_state("GPU-1") is None
    _library.cache_clear()


@pytest.mark.parametrize(
    ("found", "ours", "others"),
    [
        ([1, 2, 3, 9], (1, 2, 3), 1),
        ([1], (1, 2, 3), 0),
        ([70, 71, 72], (1, 2, 3), 0),  # the driver's own ids, as in a container
        ([70, 71, 72, 73], (1, 2, 3), 1),
        ([70, 71], (1,), 1),
        ([5], (), 1),
        ([], (1, 2), 0),
    ],
)
def test_those_that_take_turns_are_no_others(
    found: list[int], ours: tuple[int, ...], others: int
) -> None:
    assert count_others(found, ours) == others


SIBLINGS = """
from bench.system.machine_state import sibling_processes
input()
print(*sibling_processes())
"""


def test_siblings_are_the_other_children_of_the_parent() -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", SIBLINGS], cwd=project_root(), text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]  # fmt: skip
    said, _ = running[0].communicate("go\n", timeout=60)  # the others wait for theirs
    found = set(map(int, said.split()))
    assert {one.pid for one in running[1:]} <= found
    assert running[0].pid not in found
    for one in running[1:]:
        one.communicate("go\n", timeout=60)
