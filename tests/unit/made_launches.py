"""Launches with given times, for tests of the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.gate.design import ARMS, Arm
from bench.gate.samples import ArmLaunch, Stage
from bench.speed.launch import Launch
from bench.system import CoreTimes
from bench.system.gpu import GpuState
from bench.system.machine_state import MachineState
from bench.workers.tasks import LaunchConditions, Software, SpeedAnswer, SpeedWindow

CASE = "net-all-fp32-batch8-torch"
CONDITIONS = LaunchConditions(
    cpus=(0, 1), nice=0, cpu_quota=None, memory_bytes=2**34, huge_pages="madvise", allocator={},
    variables={},
)  # fmt: skip
SOFTWARE = Software(
    python="3.11.7", distributions={"torch": "2.14.1"}, code="c", system="Linux x86_64",
    kernel="6.1", container=None, processor="CPU", device_model="CPU", gpu_uuid=None, driver=None,
    device_settings={},
)  # fmt: skip
IDLE = MachineState(None, 0.0, None, None)
BUSY = (
    MachineState(CoreTimes(0.0, 0.0, 0.0), None, None, None),
    MachineState(CoreTimes(1.0, 1000.0, 0.1), None, None, None),
)
"""States before and after a window in which others used all cores."""


def made_window(
    seconds: float, *, disturbed: bool = False, clock: float | None = None
) -> SpeedWindow:
    """Return a window of training steps."""
    before, after = BUSY if disturbed else (IDLE, IDLE)
    if clock is not None:
        before = after = MachineState(None, None, None, GpuState(sm_clock_mhz=clock))
    return SpeedWindow(measure="train_step", seconds=seconds, before=before, after=after)


def made_launch(
    cases: Mapping[str, Sequence[SpeedWindow]] | Sequence[float],
    conditions: LaunchConditions | None = CONDITIONS,
) -> Launch:
    """Return a launch with windows by case, or with windows of these seconds in ``CASE``."""
    if not isinstance(cases, Mapping):
        cases = {CASE: [made_window(seconds) for seconds in cases]}
    answers = {
        name: SpeedAnswer(
            windows=tuple(windows), images={"train_step": 8}, setup_s=0.1, compile_s=0.2,
            peak_host_bytes=None,
        )
        for name, windows in cases.items()
    }  # fmt: skip
    return Launch(
        backend="torch", precision="fp32", started_at="2026-01-01T00:00:00", seconds=1.0,
        order=tuple(cases), conditions=conditions, cases=answers,
    )  # fmt: skip


def made_blocks(
    ratios: Sequence[float], nulls: Sequence[float] | None = None, stage: Stage = "search",
    base_s: float = 0.01,
) -> list[ArmLaunch]:  # fmt: skip
    """Return blocks of launches that took turns, with these ratios of B, and of N, to A."""
    found = []
    for block, ratio in enumerate(ratios):
        null = 1.0 if nulls is None else nulls[block]
        seconds: dict[Arm, float] = {"A": base_s, "B": base_s * ratio, "N": base_s * null}
        for position, arm in enumerate(ARMS):
            launch = made_launch([seconds[arm] * wobble for wobble in (1.0, 1.02, 0.98)])
            found.append(
                ArmLaunch(stage=stage, block=block, position=position, arm=arm, launch=launch)
            )
    return found
