"""Speeds of cells, and of one beside another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.report import statistics
from bench.report.cells import SIGNIFICANT, Cell
from bench.report.statistics import Estimate, holm
from bench.report.table_model import ABSENT
from bench.report.words import measured, times


@dataclass(frozen=True)
class Speed:
    """Images/s of a cell's training."""

    NOTE: ClassVar[str] = (
        "train images/s: whole steps, the median window; * in its place images of all epochs over "
        "the time of all training, where the values of a frozen part were computed once or the "
        "policy has phases. The two are never compared. ± is over the runs where there are three "
        "or more, else over the windows of one run."
    )

    value: float | None
    """None: over too soon, or trained at once with others."""
    text: str
    """As printed."""


def rate_of(cell: Cell) -> Speed:
    """With an interval over the runs, or over the windows of one."""
    windows = cell.runs[0].result.train_images_per_s_windows
    if len(cell.runs) == 1 and windows and cell.row["train_images_per_s"] is not None:
        found = statistics.median_of_windows(windows)
        return Speed(found.value, measured(found))
    for field, mark in (("train_images_per_s", ""), ("effective_images_per_s", " *")):
        values = [row[field] for row in cell.rows if row[field] is not None]
        if values:
            found = statistics.mean_of_runs(values)
            return Speed(found.value, measured(found) + mark)
    return Speed(None, ABSENT)


@dataclass(frozen=True)
class SpeedComparison:
    """Of two cells."""

    ratio: Estimate | None
    """Rate of the second over that of the first."""
    p: float | None
    """Corrected for all such comparisons."""
    of: str | None
    """What was measured."""

    @property
    def is_real(self) -> bool:
        """Whether one is faster."""
        e = self.ratio
        if e is None or e.low is None or e.high is None or self.p is None:
            return False
        return self.p < SIGNIFICANT and not e.low <= 1.0 <= e.high

    @property
    def size(self) -> float:
        """How many times as fast the faster one is."""
        return 1.0 if self.ratio is None else max(self.ratio.value, 1.0 / self.ratio.value)

    def verdict(self, first: str, second: str) -> str | None:
        """In words; None without a ratio.

        Args:
            first: Name of the first cell's backend.
            second: Of the second's.
        """
        if self.ratio is None:
            return None
        if self.ratio.low is None:
            return "no interval"
        if not self.is_real:
            return "tie"
        return f"{second if self.ratio.value > 1.0 else first} is faster"


def compare_speeds(pairs: Sequence[tuple[Cell, Cell]]) -> list[SpeedComparison]:
    """Of each pair, by what both have: windows of whole steps, else fit times."""
    found = [_ratio(a, b) for a, b in pairs]
    known = [e.p for e, _ in found if e is not None and e.p is not None]
    corrected = iter(holm(known))
    return [
        SpeedComparison(e, next(corrected) if e is not None and e.p is not None else None, of)
        for e, of in found
    ]


def _ratio(a: Cell, b: Cell) -> tuple[Estimate | None, str | None]:
    if a.machine != b.machine:
        return None, None
    common = [seed for seed in a.seeds if seed in b.seeds]
    first, second = ([c.runs[c.seeds.index(s)] for s in common] for c in (a, b))
    windows = [[run.result.train_images_per_s_windows for run in runs] for runs in (first, second)]
    if common and all(len(w) for side in windows for w in side):
        return statistics.ratio(*windows), "whole steps"
    fits = [[run.result.fit_s for run in runs] for runs in (first, second)]
    if not common or any(not fit for side in fits for fit in side):
        return None, None
    rates = [[[1.0 / fit] for fit in side if fit] for side in fits]
    return statistics.ratio(*rates), "whole fits"


def faster(found: SpeedComparison, names: tuple[str, str]) -> str:
    """A sentence's part: which is faster, and how much.

    Args:
        found: With a ratio that is real.
        names: Of the two.
    """
    e = found.ratio
    assert e is not None
    assert e.low is not None
    assert e.high is not None
    if e.value >= 1.0:
        return f"{names[1]} is {times(e)} as fast as {names[0]}"
    turned = Estimate(1 / e.value, 1 / e.high, 1 / e.low, e.p, e.about, e.seeds, e.images)
    return f"{names[0]} is {times(turned)} as fast as {names[1]}"
