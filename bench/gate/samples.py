"""Samples of a comparison: the times of every launch, arranged in blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import Field

from bench.gate.design import ARMS, Arm, launches_per_arm
from bench.spec.base import Frozen
from bench.speed.launch import Launch
from bench.speed.values import MOSTLY, Windows, benchmarks_of, value_of

Stage = Literal["search", "confirm"]


class ArmLaunch(Frozen):
    """A launch in its place of the design."""

    stage: Stage
    block: int = Field(description="Number of the block in its stage, from 0.")
    position: int = Field(description="Place in the block's order, from 0.")
    arm: Arm
    launch: Launch


class LogTimes(NamedTuple):
    """Mean log seconds of a benchmark's launches in a block, by arm."""

    a: float
    b: float
    null: float

    @property
    def log_ratio(self) -> float:
        """Log of B's time over A's."""
        return self.b - self.a

    @property
    def null_log_ratio(self) -> float:
        """Log of the time of A, launched in another way, over A's."""
        return self.null - self.a


@dataclass
class BlockSeries:
    """A benchmark over the blocks of a stage."""

    blocks: list[LogTimes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Number of each of those blocks in its stage."""
    cycles: list[float] = field(default_factory=list)
    """Log ratios of time × GPU clock; empty on a CPU."""
    disturbed: list[str] = field(default_factory=list)
    """Why blocks were left out, one reason for each."""


def block_series(
    launches: Iterable[ArmLaunch], stage: Stage, together: bool
) -> dict[str, BlockSeries]:
    """Arrange launches by benchmark and block. A block counts for a benchmark if every arm has all
    of its launches and they were not disturbed.

    Args:
        together: True if the launches of a block lived side by side and took turns.
    """
    blocks: dict[int, list[ArmLaunch]] = {}
    for one in launches:
        if one.stage == stage:
            blocks.setdefault(one.block, []).append(one)
    series: dict[str, BlockSeries] = {}
    for number in sorted(blocks):
        names = {name for one in blocks[number] for name in benchmarks_of(one.launch)}
        for name in sorted(names):
            arms = {
                arm: [
                    windows
                    for one in blocks[number]
                    if one.arm == arm and (windows := benchmarks_of(one.launch).get(name))
                ]
                for arm in ARMS
            }
            own = series.setdefault(name, BlockSeries())
            if all(len(found) == launches_per_arm(together) for found in arms.values()):
                _add_block(own, number, arms, together)
    return series


def _add_block(
    series: BlockSeries, number: int, arms: Mapping[Arm, list[Windows]], together: bool
) -> None:
    problem, times = (_turns if together else _sequence)(arms)
    if problem is not None:
        series.disturbed.append(problem)
    if times is None:
        return
    series.blocks.append(times)
    series.numbers.append(number)
    clocks = {arm: _clock(arms[arm]) for arm in ARMS}
    if clocks["A"] is not None and clocks["B"] is not None:
        series.cycles.append(times.log_ratio + math.log(clocks["B"] / clocks["A"]))


def _sequence(arms: Mapping[Arm, list[Windows]]) -> tuple[str | None, LogTimes | None]:
    """Return what disturbed launches that ran one after the other, or their log times."""
    means = {}
    for arm in ARMS:
        values = [value_of(windows) for windows in arms[arm]]
        for value in values:
            if value.disturbed_by is not None:
                return f"{value.disturbed_by} during a launch of {arm}", None
        means[arm] = statistics.fmean(math.log(value.seconds) for value in values)
    return None, LogTimes(means["A"], means["B"], means["N"])


def _turns(arms: Mapping[Arm, list[Windows]]) -> tuple[str | None, LogTimes | None]:
    """Return what disturbed launches that took turns, or their log times: the median over rounds of
    turns of the log ratio to A, of the rounds in which nothing disturbed any arm."""
    rounds = list(zip(*(arms[arm][0] for arm in ARMS), strict=False))
    reasons = [
        f"{reason} during a launch of {arm}"
        for one in rounds
        for arm, window in zip(ARMS, one, strict=True)
        if (reason := window.disturbed_by) is not None
    ]
    calm = [one for one in rounds if all(window.disturbed_by is None for window in one)]
    if len(calm) < MOSTLY * len(rounds) or not calm:
        return statistics.mode(reasons), None
    logs = [[math.log(window.seconds) for window in one] for one in calm]
    base = statistics.median(a for a, _, _ in logs)
    return None, LogTimes(
        base,
        base + statistics.median(b - a for a, b, _ in logs),
        base + statistics.median(n - a for a, _, n in logs),
    )


def _clock(launches: Sequence[Windows]) -> float | None:
    """Return the median clock of the GPU in launches; None if it is not told."""
    found = [value_of(windows).sm_clock_mhz for windows in launches]
    told = [clock for clock in found if clock]
    return statistics.median(told) if len(told) == len(found) else None
