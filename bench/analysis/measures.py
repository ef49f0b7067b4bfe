"""Measures that are compared between two folders: accuracy, training speed and fit time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis import intervals
from bench.analysis.groups import SIGNIFICANT, SeedGroup, paired
from bench.analysis.intervals import Estimate, holm
from bench.analysis.speed import is_unsteady, shares_prefix, without_interval


@dataclass(frozen=True)
class Measure:
    """A measure, and how it is compared between two seed groups."""

    name: Literal["top1", "images_per_s", "fit_s"]
    neutral: float
    """The value of no difference: 0 for a difference, 1 for a ratio."""
    estimate: Callable[[SeedGroup, SeedGroup], Estimate | None]
    """Returns the second group's difference from or ratio to the first; None: not comparable."""


def _top1(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    answers = paired(a, b)
    if answers is not None:
        return intervals.difference(*answers)
    shares = [[row.result.test_top1 for row in group.rows] for group in (a, b)]
    if any(share is None for side in shares for share in side):
        return None
    first, second = (np.array(side, dtype=np.float64) for side in shares)
    value = float(np.mean(second - first))
    return Estimate(value, None, None, None, "models", len(a.seeds), 0)


def _rate(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    whole = _ratio(a, b, "train_images_per_s")
    if whole is None:
        return _unless_shared(a, b, _ratio(a, b, "effective_images_per_s"))
    windows = [[row.result.train_images_per_s_windows for row in c.rows] for c in (a, b)]
    if all(len(run) for side in windows for run in side):
        return intervals.ratio(*windows)
    return whole


def _fit(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if is_unsteady(a) or is_unsteady(b):
        return None
    return _unless_shared(a, b, _ratio(a, b, "fit_s"))


def _ratio(a: SeedGroup, b: SeedGroup, field: str) -> Estimate | None:
    """Return the ratio of a figure of which each run has one; None if a run lacks it."""
    pairs = [(x[field], y[field]) for x, y in zip(a.rows, b.rows, strict=True)]
    if not all(x and y for x, y in pairs):
        return None
    return intervals.ratio([[x] for x, _ in pairs], [[y] for _, y in pairs])


def _unless_shared(a: SeedGroup, b: SeedGroup, e: Estimate | None) -> Estimate | None:
    """Drop the interval where runs share one measurement of a frozen part's values."""
    shared = shares_prefix(a) or shares_prefix(b)
    return without_interval(e) if e is not None and shared else e


MEASURES = (
    Measure("top1", 0.0, _top1),
    Measure("images_per_s", 1.0, _rate),
    Measure("fit_s", 1.0, _fit),
)


@dataclass(frozen=True, eq=False)
class Compared:
    """A measure of one experiment, compared between both folders."""

    measure: Measure
    a: SeedGroup
    b: SeedGroup
    estimate: Estimate
    p: float | None
    """p value, corrected for all comparisons of the measure."""

    @property
    def change(self) -> Literal["more", "less"] | None:
        """Direction of a significant difference from the first to the second folder; else None."""
        e = self.estimate
        if self.p is None or self.p >= SIGNIFICANT or self.holds_neutral:
            return None
        return "more" if e.value > self.measure.neutral else "less"

    @property
    def holds_neutral(self) -> bool:
        """True if the interval contains the value of no difference, or there is no interval."""
        e = self.estimate
        return e.low is None or e.high is None or e.low <= self.measure.neutral <= e.high

    @property
    def size(self) -> float:
        """Size of the difference, or of the ratio's logarithm, without its sign."""
        e = self.estimate.value
        return abs(e) if self.measure.neutral == 0.0 else abs(float(np.log(e)))


def compare_measures(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[Compared]:
    """Compare all measures of all experiments, each corrected for its number of comparisons."""
    compared = []
    for measure in MEASURES:
        found = [(a, b, e) for a, b in pairs if (e := measure.estimate(a, b)) is not None]
        corrected = iter(holm([e.p for *_, e in found if e.p is not None]))
        for a, b, e in found:
            p = None if e.p is None else next(corrected)
            compared.append(Compared(measure, a, b, e, p))
    return compared
