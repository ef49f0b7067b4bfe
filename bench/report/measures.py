"""What is compared between the runs of two folders: accuracy, training speed and fit time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from bench.report import statistics
from bench.report.cells import SIGNIFICANT, Cell, paired
from bench.report.speeds import (
    Speed,
    fit_cell,
    is_unsteady,
    rate_cells,
    shares_prefix,
    without_interval,
)
from bench.report.statistics import Estimate
from bench.report.table_model import Cell as TableCell
from bench.report.table_model import estimated
from bench.report.twins import Row
from bench.report.words import percent, points, times


@dataclass(frozen=True)
class Measure:
    """Something that is compared."""

    name: str
    """Of the table."""
    title: str
    """What is measured."""
    unit: str
    """End of the columns' names."""
    neutral: float
    """The difference or ratio that is none."""
    more: str
    """What the second folder does where the estimate lies above ``neutral``."""
    less: str
    """And below."""
    estimate: Callable[[Cell, Cell], Estimate | None]
    """None where the two cannot be compared."""
    side: Callable[[Cell], TableCell]
    """A folder's own figure."""
    shown: Callable[[Estimate], str]
    """The difference or ratio."""
    lacking: str
    """Why there may be no interval."""
    notes: tuple[str, ...] = ()
    """Of the table."""


def _top1(a: Cell, b: Cell) -> Estimate | None:
    answers = paired(a, b)
    if answers is not None and len(answers[0]) == len(a.seeds):
        return statistics.difference(*answers)
    shares = [(x["test_top1"], y["test_top1"]) for x, y in _rows(a, b)]
    if any(share is None for pair in shares for share in pair):
        return None
    value = float(np.mean([y - x for x, y in shares]))
    return Estimate(value, None, None, None, "models", len(a.seeds), 0)


def _rate(a: Cell, b: Cell) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    whole = _single(a, b, "train_images_per_s")
    windows = [[run.result.train_images_per_s_windows for run in c.runs] for c in (a, b)]
    if whole is not None and all(len(run) for side in windows for run in side):
        return statistics.ratio(*windows)
    if whole is not None:
        return whole
    found = _single(a, b, "effective_images_per_s")
    shared = shares_prefix(a) or shares_prefix(b)
    return without_interval(found) if found is not None and shared else found


def _fit(a: Cell, b: Cell) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    found = _single(a, b, "fit_s")
    shared = shares_prefix(a) or shares_prefix(b)
    return without_interval(found) if found is not None and shared else found


def _single(a: Cell, b: Cell, field: str) -> Estimate | None:
    """The ratio of a figure that a run has one of."""
    pairs = [(x[field], y[field]) for x, y in _rows(a, b)]
    if not all(x and y for x, y in pairs):
        return None
    return statistics.ratio([[x] for x, _ in pairs], [[y] for _, y in pairs])


def _rows(a: Cell, b: Cell) -> Iterable[tuple[Row, Row]]:
    return zip(a.rows, b.rows, strict=True)


def _rate_cell(cell: Cell) -> TableCell:
    """Of whole steps, else the effective one with a mark."""
    whole, effective = rate_cells(cell)
    if whole.raw is not None or effective.raw is None:
        return whole
    return replace(effective, text=f"{effective.text} *")


MEASURES = (
    Measure(
        "side_by_side_top1", "test top-1", "top1", 0.0, "is better", "is worse", _top1,
        lambda cell: estimated(percent(cell.top1), cell.top1), points,
        "a seed of the experiment failed, the test images are not the same, or the answers to them "
        "are not there (predictions.npz)",
    ),
    Measure(
        "side_by_side_images_per_s", "train images/s", "images_per_s", 1.0, "is faster",
        "is slower", _rate, _rate_cell, times,
        f"it takes three seeds, none with another run's values of a frozen part, or "
        f"{statistics.LEAST_WINDOWS} measured windows of whole steps",
        (Speed.NOTE,),
    ),
    Measure(
        "side_by_side_fit_s", "fit time", "fit_s", 1.0, "takes longer", "takes less time", _fit,
        fit_cell, times,
        "it takes three seeds, and none with another run's values of a frozen part",
    ),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Compared:
    """A measure of one experiment in both folders."""

    measure: Measure
    a: Cell
    b: Cell
    estimate: Estimate
    p: float | None
    """Corrected for all comparisons of the measure."""

    @property
    def word(self) -> str | None:
        """What the second folder does, of a difference that is real; else None."""
        e, neutral = self.estimate, self.measure.neutral
        if e.low is None or e.high is None or self.p is None or self.p >= SIGNIFICANT:
            return None
        if e.low <= neutral <= e.high:
            return None
        return self.measure.more if e.value > neutral else self.measure.less

    @property
    def size(self) -> float:
        """Of the difference, whichever way round."""
        e = self.estimate.value
        return abs(e) if self.measure.neutral == 0.0 else abs(float(np.log(e)))

    def verdict(self, names: tuple[str, str]) -> str:
        """In words."""
        if self.estimate.low is None:
            return "no interval"
        if self.word:
            return f"real: {names[1]} {self.word}"
        neutral = self.measure.neutral
        holds = self.estimate.low <= neutral <= (self.estimate.high or neutral)
        return "no difference shown" + ("" if holds else " after correction")
