"""Measures that are compared between two folders: accuracy, training speed and fit time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis import intervals
from bench.analysis.groups import SeedGroup, difference
from bench.analysis.intervals import Estimate, corrected
from bench.analysis.speed import is_unsteady, unless_shared, window_ratio

Measure = Literal["top1", "images_per_s", "fit_s"]


def _top1(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if (by_image := difference(a, b)) is not None:
        return by_image
    shares = [[row.result.test_top1 for row in group.rows] for group in (a, b)]
    if any(share is None for side in shares for share in side):
        return None
    first, second = (np.array(side, dtype=np.float64) for side in shares)
    return Estimate(float(np.mean(second - first)), None, None, None, "models", len(a.seeds), 0)


def _rate(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if (whole := _ratio(a, b, "train_images_per_s")) is not None:
        return window_ratio(a.rows, b.rows) or whole
    return unless_shared(_ratio(a, b, "effective_images_per_s"), a, b)


def _ratio(a: SeedGroup, b: SeedGroup, field: str) -> Estimate | None:
    """Return the ratio of a figure of which each run has one; None if a run lacks it, or was
    unsteady."""
    sides = [[[row[field]] for row in group.rows] for group in (a, b)]
    if is_unsteady(a) or is_unsteady(b) or not all(run[0] for side in sides for run in side):
        return None
    return intervals.ratio(*sides)


MEASURES: dict[Measure, Callable[[SeedGroup, SeedGroup], Estimate | None]] = {
    "top1": _top1,
    "images_per_s": _rate,
    "fit_s": lambda a, b: unless_shared(_ratio(a, b, "fit_s"), a, b),
}
"""Measure → function that returns the second group's difference from or ratio to the first; None:
not comparable."""


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
        if not self.estimate.is_real(self.p):
            return None
        return "more" if self.estimate.value > self.estimate.neutral else "less"

    @property
    def size(self) -> float:
        """Size of the difference, or of the ratio's logarithm, without its sign."""
        e = self.estimate
        return abs(float(np.log(e.value)) if e.is_ratio else e.value)


def compare_measures(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[Compared]:
    """Compare all measures of all experiments, each corrected for its number of comparisons."""
    compared = []
    for measure, estimate in MEASURES.items():
        found = [(a, b, e) for a, b in pairs if (e := estimate(a, b)) is not None]
        ps = corrected([e for *_, e in found])
        compared += [Compared(measure, *each, p) for each, p in zip(found, ps, strict=True)]
    return compared
