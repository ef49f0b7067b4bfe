"""Measures that are compared between two folders: accuracy, training speed and fit time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis.groups import SeedGroup, unpaired
from bench.analysis.intervals import SIGNIFICANT, Estimate, corrected
from bench.analysis.ranking import rank
from bench.analysis.speed import ratio_of_pairs, shares_prefix

Measure = Literal["top1", "images_per_s", "fit_s"]


def _top1(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    if unpaired(a, b) is None:
        return rank([a.scores, b.scores]).difference(0, 1)
    shares = [[row.result.test_top1 for row in group.rows] for group in (a, b)]
    if any(share is None for side in shares for share in side):
        return None
    return Estimate(b.scores.mean - a.scores.mean)


def _rate(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    whole = _ratio(a, b, "train_images_per_s")
    return whole or _ratio(a, b, "effective_images_per_s")


def _ratio(a: SeedGroup, b: SeedGroup, field: str) -> Estimate | None:
    """Return the ratio of a figure of which each run has one, the runs paired by seed; None if a
    run lacks it, or was unsteady. Runs that share a measurement count once."""
    sides = [[row[field] for row in group.rows] for group in (a, b)]
    if a.is_unsteady or b.is_unsteady or not all(value for side in sides for value in side):
        return None
    logs = [float(np.log(y / x)) for x, y in zip(*sides, strict=True)]
    is_shared = field != "train_images_per_s" and (shares_prefix(a) or shares_prefix(b))
    return ratio_of_pairs(logs[:1] if is_shared else logs, a.row.spec.device)


MEASURES: dict[Measure, Callable[[SeedGroup, SeedGroup], Estimate | None]] = {
    "top1": _top1,
    "images_per_s": _rate,
    "fit_s": lambda a, b: _ratio(a, b, "fit_s"),
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
        e = self.estimate
        if self.p is None or self.p >= SIGNIFICANT or not e.excludes_neutral:
            return None
        return "more" if e.value > e.neutral else "less"

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
