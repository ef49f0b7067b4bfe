"""A comparison from its question to its verdict: launches in blocks, looks, confirmation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pydantic import Field

from bench.errors import UserError
from bench.gate.attribution import Cause
from bench.gate.circumstances import Differences, Unequal, unequal_conditions
from bench.gate.decision import (
    BenchmarkVerdict,
    NullArm,
    Verdict,
    confirm,
    null_arm,
    overall,
    search,
)
from bench.gate.design import ARMS, Arm, Plan, block_orders, launches_per_arm
from bench.gate.journal import RESULT_FILE, Journal
from bench.gate.samples import ArmLaunch, BlockSeries, Stage, block_series
from bench.spec.base import Frozen
from bench.speed.cases import TimedCase
from bench.speed.launch import Launch, Place, group_cases, launch_together

PATIENCE = 2
"""Collecting stops when more than this many more blocks were disturbed than counted."""
CLOCK_SHARE = 0.5
"""A slowdown whose ratio in cycles is less than this share of it comes from the GPU's clock."""
Launcher = Callable[[Sequence[tuple[Sequence[TimedCase], Place]], Random], list[Launch]]
"""Takes cases with places, and launches them side by side."""


class GateResult(Frozen):
    """The answer of a comparison."""

    verdict: Verdict
    benchmarks: tuple[BenchmarkVerdict, ...]
    null_arm: NullArm
    false_alarm_rate: float | None = Field(
        default=None,
        description="The gate's rate of false alarms on this machine, as calibrated; null if it "
        "was not.",
    )
    differs: Differences = Field(default={}, description="What differs between A and B.")
    sides: tuple[str, str] = Field(description="A and B as they were named.")
    blocks: int = Field(description="Blocks that were measured.")
    confirm_blocks: int = Field(default=0, description="Blocks that confirmed a slowdown.")
    margin: float
    level: float
    spent_s: float = Field(description="Time of all launches.")
    budget_s: float | None = None
    unequal: tuple[Unequal, ...] = Field(
        default=(), description="Circumstances that differ between the arms."
    )
    causes: tuple[Cause, ...] = Field(default=(), description="Where slower cases lost time.")
    remarks: tuple[str, ...] = ()


def read_result(folder: Path) -> GateResult | None:
    """Return the answer that a comparison left in its folder; None if there is none, or it cannot
    be read."""
    try:
        return GateResult.model_validate_json((folder / RESULT_FILE).read_bytes())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Arms:
    """The three arms of a comparison: where each is launched, and its cases."""

    places: Mapping[Arm, Place]
    cases: Mapping[Arm, Sequence[TimedCase]]
    shares_gpu: bool = False
    """True if the memory of the GPU holds a launch of each arm at once."""

    @property
    def together(self) -> bool:
        """True if the launches of a block live side by side and take turns."""
        return self.shares_gpu or all(place.device == "cpu" for place in self.places.values())

    @property
    def groups(self) -> list[dict[Arm, list[TimedCase]]]:
        """The cases that one process of each arm times."""
        each = {arm: group_cases(self.cases[arm]) for arm in ARMS}
        return [{arm: each[arm][index] for arm in ARMS} for index in range(len(each["A"]))]


@dataclass(frozen=True)
class Progress:
    """The state of a comparison, for a display."""

    stage: Stage
    blocks: int
    """Blocks that are complete."""
    wanted: int
    """Blocks at the next look."""
    left_s: float | None
    """Time until the next look; None before the first block is complete."""


@dataclass
class Comparison:
    """Collects blocks for a question within its budget, and decides."""

    arms: Arms
    plan: Plan
    journal: Journal
    budget_s: float
    intended: Sequence[str] = ()
    """Environment variables that are meant to differ."""
    sides: tuple[str, str] = ("A", "B")
    random: Random = field(default_factory=Random)
    launcher: Launcher = launch_together
    watch: Callable[[Progress], None] = lambda progress: None
    is_warm: bool = False
    """True if the caller has already launched each arm once."""
    _block_s: float | None = None
    _began: float = 0.0

    def run(self) -> GateResult:
        """Collect blocks until every benchmark is settled or the budget is spent.

        Half of the budget is kept to confirm a slowdown by as many blocks as have found it. Where
        the other half ends, the data are looked at: a slowdown is confirmed; without one the rest
        of the budget serves the search, whose end can then raise no alarm.

        Raises:
            UserError: A side failed, and what was measured is kept; or the budget is too small.
        """
        self._began = time.monotonic()
        if not self.is_warm and not self.journal.launches:
            self._check_budget(self._warm_up())
        verdicts: list[BenchmarkVerdict] = []
        for look in self.plan.looks:
            is_complete = self._collect("search", look, reserves=self.plan.confirms)
            verdicts, settled = search(self._series("search"), self.plan)
            is_slower = overall(verdicts) == "slower"
            if settled is not None or is_slower or not self._is_fair():
                break
            if not is_complete:
                self._collect("search", self.plan.looks[-1])
                return self.result()
        if overall(verdicts) == "slower" and self.plan.confirms and self._is_fair():
            found_after = max(one.blocks for one in verdicts if one.verdict == "slower")
            self._collect("confirm", found_after)
        return self.result()

    def collect_all(self) -> None:
        """Collect blocks until the budget is spent, whatever they show."""
        self._began = time.monotonic()
        if not self.is_warm and not self.journal.launches:
            self._warm_up()
        self._collect("search", self.plan.looks[-1])

    def result(self) -> GateResult:
        """Decide from what was measured so far."""
        return result_of(
            self.journal.launches,
            self.plan,
            self.sides,
            self.arms.together,
            self.intended,
            self.budget_s,
        )

    def _warm_up(self) -> float:
        """Launch each arm once without counting it: the first launch of a session reads files from
        the disk and meets a cold machine. Return the seconds that a block takes."""
        began = time.monotonic()
        for group in self.arms.groups:
            for order in block_orders(self.random, self.arms.together)[: len(ARMS)]:
                self._launch(group, order)
        return (time.monotonic() - began) * launches_per_arm(self.arms.together)

    def _check_budget(self, block_s: float) -> None:
        """Raise UserError if the budget ends before the first look and its confirmation."""
        first = self.plan.looks[0] * (2 if self.plan.confirms else 1)
        if first * block_s > self.budget_s:
            raise UserError(
                f"A block takes about {block_s:.0f} s: the budget of {self.budget_s:.0f} s ends "
                f"before the first look and its confirmation ({first} blocks).",
                f"Use --budget {math.ceil(1.2 * first * block_s / 60)}m, or a smaller --suite.",
            )

    def _is_fair(self) -> bool:
        """Return True if the arms are launched alike and the null arm stands still."""
        launches = self.journal.launches
        is_still = null_arm(self._series("search"), self.plan).passed
        return is_still and not unequal_conditions(launches, self.intended)

    def _series(self, stage: Stage) -> dict[str, BlockSeries]:
        return block_series(self.journal.launches, stage, self.arms.together)

    def _collect(self, stage: Stage, wanted: int, reserves: bool = False) -> bool:
        """Measure blocks until every benchmark has ``wanted`` that count; return False if the
        budget does not last. With ``reserves`` it must last for as many blocks again."""
        while True:
            series = self._series(stage)
            counted = min((len(own.blocks) for own in series.values()), default=0)
            if counted >= wanted:
                return True
            done = 1 + max((o.block for o in self.journal.launches if o.stage == stage), default=-1)
            if done - counted > counted + PATIENCE:
                return True  # the machine is not quiet; the verdict says so
            if not self._fits(1 + (counted + 1 if reserves else 0)):
                return False
            self._measure_block(stage, wanted)

    def _fits(self, blocks: int) -> bool:
        if self._block_s is None:
            return True
        spent_s = time.monotonic() - self._began
        return spent_s + blocks * self._block_s <= self.budget_s

    def _measure_block(self, stage: Stage, wanted: int) -> None:
        """Measure a block. One that was interrupted stays incomplete and does not count, because
        time has passed since."""
        began = time.monotonic()
        numbers = [one.block for one in self.journal.launches if one.stage == stage]
        number = max(numbers, default=-1) + 1
        for part, group in enumerate(self.arms.groups):
            position = 0
            for order in block_orders(self.random, self.arms.together):
                self.watch(self._progress(stage, number, wanted, part))
                for arm, found in zip(order, self._launch(group, order), strict=True):
                    self.journal.add(
                        ArmLaunch(
                            stage=stage, block=number, position=position, arm=arm, launch=found
                        )
                    )
                    position += 1
        self._block_s = max(time.monotonic() - began, self._block_s or 0.0)

    def _progress(self, stage: Stage, number: int, wanted: int, part: int) -> Progress:
        left_s = None
        if self._block_s is not None:
            done = number + part / len(self.arms.groups)
            left_s = self._block_s * max(wanted - done, 0.0)
        return Progress(stage, number, wanted, left_s)

    def _launch(
        self, group: Mapping[Arm, Sequence[TimedCase]], order: Sequence[Arm]
    ) -> list[Launch]:
        found = self.launcher([(group[arm], self.arms.places[arm]) for arm in order], self.random)
        for arm, one in zip(order, found, strict=True):
            for name, failure in one.failures.items():
                label = self.sides[1] if arm == "B" else self.sides[0]
                raise UserError(
                    f"Side {'B' if arm == 'B' else 'A'} ({label}) failed at {name}: "
                    f"{failure.message}",
                    failure.hint
                    or f"What was measured is kept in '{self.journal.folder}'; the same command "
                    "goes on from there.",
                )
        return found


def result_of(
    launches: Sequence[ArmLaunch], plan: Plan, sides: tuple[str, str], together: bool,
    intended: Sequence[str] = (), budget_s: float | None = None,
) -> GateResult:  # fmt: skip
    """Decide from launches: the search, then the confirmation, then whether all of it was fair.

    Args:
        together: True if the launches of a block lived side by side and took turns.
        intended: Environment variables that are meant to differ.
    """
    searched, confirming = (
        block_series(launches, stage, together) for stage in ("search", "confirm")
    )
    verdicts, _ = search(searched, plan)
    if overall(verdicts) == "slower" and plan.confirms:
        verdicts = confirm(verdicts, confirming)
    both = {
        name: BlockSeries([*own.blocks, *confirming.get(name, BlockSeries()).blocks])
        for name, own in searched.items()
    }
    null = null_arm(both, plan)
    unequal = unequal_conditions(launches, intended)
    verdicts = [_by_clock(one) for one in verdicts]
    doubt = _doubt(null, unequal)
    if doubt is not None:
        changes = {"verdict": "cannot tell", "reason": doubt, "needed_blocks": None}
        verdicts = [one.model_copy(update=changes) for one in verdicts]
    counts = {
        stage: len({one.block for one in launches if one.stage == stage})
        for stage in ("search", "confirm")
    }
    return GateResult(
        verdict=overall(verdicts), benchmarks=tuple(verdicts), null_arm=null, sides=sides,
        blocks=counts["search"], confirm_blocks=counts["confirm"], margin=plan.margin,
        level=plan.level, spent_s=_spent_s(launches, together), budget_s=budget_s,
        unequal=tuple(unequal),
    )  # fmt: skip


def _spent_s(launches: Sequence[ArmLaunch], together: bool) -> float:
    """Return the time of launches: those that lived side by side count once."""
    if not together:
        return sum(one.launch.seconds for one in launches)
    longest: dict[tuple[str, int, str, str], float] = {}
    for one in launches:
        key = one.stage, one.block, one.launch.backend, one.launch.precision
        longest[key] = max(longest.get(key, 0.0), one.launch.seconds)
    return sum(longest.values())


def _by_clock(one: BenchmarkVerdict) -> BenchmarkVerdict:
    """Say where a slowdown comes from the GPU's clock: in cycles there is little of it. The verdict
    stays: the order of launches was drawn, so B itself made the clock lower (driver, power)."""
    if one.verdict != "slower" or one.cycles_ratio is None or one.ratio is None:
        return one
    if one.cycles_ratio - 1 > CLOCK_SHARE * (one.ratio - 1):
        return one
    reason = f"the GPU's clock was lower at B: {one.cycles_ratio:.3f} times the cycles"
    return one.model_copy(update={"reason": reason})


def _doubt(null: NullArm, unequal: Sequence[Unequal]) -> str | None:
    """Return why no verdict of a comparison counts; None if it was fair."""
    if unequal:
        return f"the sides were not launched alike ({unequal[0]})"
    if not null.passed and null.ratio is not None:
        return (
            f"the null arm moved: A, launched from another path with a larger environment, took "
            f"{null.ratio:.3f} times as long as A in {null.name}"
        )
    return None
