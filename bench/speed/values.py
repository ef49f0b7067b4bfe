"""The value of a launch: one number for each measure of a case, from its windows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pydantic import Field

from bench.spec.base import Frozen
from bench.speed.cases import MEASURES, TimedCase
from bench.speed.launch import Launch
from bench.workers.tasks import SpeedWindow

MOSTLY = 0.5
"""Share of disturbed windows from which on a measure of a launch counts as disturbed."""
Windows = Sequence[SpeedWindow]
"""Windows of one measure of a case, in order."""


class Value(Frozen):
    """A measure of a case in one launch."""

    seconds: float = Field(description="Median over the windows that nothing disturbed.")
    windows: int = Field(description="Number of those windows.")
    disturbed_by: str | None = Field(
        default=None, description="What disturbed most of its windows; they all count then."
    )
    sm_clock_mhz: float | None = Field(
        default=None, description="Median clock of the GPU; null on a CPU."
    )


def benchmark_names(cases: Sequence[TimedCase]) -> list[str]:
    """Return the names of all measures of cases: ``train_step CASE`` …"""
    return [benchmark_name(measure, case.name) for case in cases for measure in case.measures]


def benchmark_name(measure: str, case: str) -> str:
    """Return the name under which a measure of a case is compared and stored."""
    return f"{measure} {case}"


def benchmarks_of(found: Launch) -> dict[str, Windows]:
    """Return the windows of every measure of a launch by the name of its benchmark."""
    return {
        benchmark_name(measure, name): [w for w in answer.windows if w.measure == measure]
        for name, answer in found.cases.items()
        for measure in MEASURES
        if measure in answer.images
    }


def value_of(windows: Windows) -> Value:
    """Return a measure of a launch: the median of the windows that nothing disturbed, or of all if
    most were disturbed, which is then said."""
    calm = [window for window in windows if window.disturbed_by is None]
    reasons = [reason for window in windows if (reason := window.disturbed_by) is not None]
    is_disturbed = len(reasons) > MOSTLY * len(windows)
    used = windows if is_disturbed or not calm else calm
    clocks = [
        state.gpu.sm_clock_mhz
        for window in used
        for state in (window.before, window.after)
        if state.gpu is not None and state.gpu.sm_clock_mhz is not None
    ]
    return Value(
        seconds=statistics.median(window.seconds for window in used),
        windows=len(used),
        disturbed_by=statistics.mode(reasons) if is_disturbed else None,
        sm_clock_mhz=statistics.median(clocks) if clocks else None,
    )


def case_of(benchmark: str) -> str:
    """Return the case of a benchmark's name."""
    return benchmark.partition(" ")[2]
