"""Measures that are compared between two folders: accuracy, training speed and fit time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis import intervals
from bench.analysis.groups import SIGNIFICANT, SeedGroup, paired
from bench.analysis.intervals import Estimate, corrected
from bench.analysis.speed import is_unsteady, unless_shared, window_ratio


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
    if (whole := _ratio(a, b, "train_images_per_s")) is not None:
        return window_ratio(a.rows, b.rows) or whole
    return unless_shared(_ratio(a, b, "effective_images_per_s"), a, b)


def _fit(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    return unless_shared(_ratio(a, b, "fit_s"), a, b)


def _ratio(a: SeedGroup, b: SeedGroup, field: str) -> Estimate | None:
    """Return the ratio of a figure of which each run has one; None if a run lacks it, or was
    unsteady."""
    sides = [[[row[field]] for row in group.rows] for group in (a, b)]
    if is_unsteady(a) or is_unsteady(b) or not all(run[0] for side in sides for run in side):
        return None
    return intervals.ratio(*sides)


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
        if self.p is None or self.p >= SIGNIFICANT or self.holds_neutral:
            return None
        return "more" if self.estimate.value > self.measure.neutral else "less"

    @property
    def holds_neutral(self) -> bool:
        """True if the interval contains the value of no difference, or there is no interval."""
        return self.estimate.may_be(self.measure.neutral)

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
        ps = corrected([e for *_, e in found])
        compared += [Compared(measure, *each, p) for each, p in zip(found, ps, strict=True)]
    return compared
