"""Training speed of seed groups, and which of two backends is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.analysis import intervals
from bench.analysis.groups import SIGNIFICANT, SeedGroup
from bench.analysis.intervals import Estimate, holm
from bench.analysis.rows import UNSTEADY, Row

SpeedBasis = Literal["whole steps", "whole fits", "unsteady"]


@dataclass(frozen=True)
class TrainingSpeed:
    """Training rates of a seed group, in images/s."""

    whole: Estimate | None
    """Rate of whole steps; None if training was too short, in a sweep, or had no whole steps."""
    effective: Estimate | None
    """Images of all epochs over the time of all training; None if no run states it."""


def rate_of(group: SeedGroup) -> TrainingSpeed:
    """Return rates with intervals over the runs, or over the windows of one or two runs."""
    windows = [row.result.train_images_per_s_windows for row in group.rows]
    stated = all(row.result.train_images_per_s for row in group.rows)
    if len(windows) < intervals.LEAST_SEEDS and stated and all(windows):
        return TrainingSpeed(intervals.rate_of_windows(windows), None)
    found = []
    for field in ("train_images_per_s", "effective_images_per_s"):
        values = [row[field] for row in group.rows if row[field]]
        found.append(intervals.mean_rate(values) if values else None)
    whole, effective = found
    if effective is not None and shares_prefix(group):
        effective = without_interval(effective)
    return TrainingSpeed(whole, effective)


def shares_prefix(group: SeedGroup) -> bool:
    """Return True if runs carry the same measured time of a frozen part's values, so that their
    times agree for that reason and give no interval."""
    return any(row.result.prefix_values == "reused" for row in group.rows)


def without_interval(e: Estimate) -> Estimate:
    """Return an estimate without its interval."""
    return replace(e, low=None, high=None, p=None)


def is_unsteady(group: SeedGroup) -> bool:
    """Return True if a run is marked unsteady, or the fit of one, compilation left out, took
    ``UNSTEADY`` times that of another seed."""
    if any(row.unsteady for row in group.rows):
        return True
    results = [row.result for row in group.rows]
    fits = [r.fit_s for r in results if r.fit_s]
    rests = [r.fit_s - (r.compile_s or 0.0) for r in results if r.fit_s]
    if not fits or max(rests) <= UNSTEADY * min(rests):
        return False
    # A small difference beside whole fits that are mostly compilation does not count.
    return max(rests) - min(rests) > min(fits)


@dataclass(frozen=True)
class SpeedComparison:
    """The training speeds of two seed groups."""

    ratio: Estimate | None
    """Rate of the second over that of the first; None if they are not comparable."""
    p: float | None
    """p value, corrected for all such comparisons."""
    of: SpeedBasis | None
    """Basis of the ratio, or that a group is unsteady; None if they have nothing in common."""

    @property
    def is_real(self) -> bool:
        """True if one is significantly faster."""
        e = self.ratio
        if e is None or e.low is None or e.high is None or self.p is None:
            return False
        return self.p < SIGNIFICANT and not e.low <= 1.0 <= e.high

    @property
    def size(self) -> float:
        """Rate of the faster one over that of the slower one."""
        return 1.0 if self.ratio is None else max(self.ratio.value, 1.0 / self.ratio.value)


def compare_speeds(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[SpeedComparison]:
    """Compare each pair by what both have: windows of whole steps, else fit times."""
    found = [_ratio(a, b) for a, b in pairs]
    corrected = iter(holm([e.p for e, _ in found if e is not None and e.p is not None]))
    return [
        SpeedComparison(e, next(corrected) if e is not None and e.p is not None else None, of)
        for e, of in found
    ]


def _ratio(a: SeedGroup, b: SeedGroup) -> tuple[Estimate | None, SpeedBasis | None]:
    if a.machine != b.machine or not set(a.seeds) & set(b.seeds):
        return None, None
    if is_unsteady(a) or is_unsteady(b):
        return None, "unsteady"
    sides = _common_runs(a, b)
    # A rate that a run does not state was measured over too few windows.
    if all(r.result.train_images_per_s is not None for side in sides for r in side):
        windows = [[r.result.train_images_per_s_windows for r in side] for side in sides]
        if all(len(w) for side in windows for w in side):
            return intervals.ratio(*windows), "whole steps"
    fits = fit_ratio(a, b)
    return fits, None if fits is None else "whole fits"


def _common_runs(a: SeedGroup, b: SeedGroup) -> tuple[list[Row], list[Row]]:
    """Return the runs of both with seeds that both have."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    first, second = ([c.rows[c.seeds.index(s)] for s in common] for c in (a, b))
    return first, second


def fit_ratio(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    """Return how many times as fast the fits of ``b`` are; without an interval if runs of either
    share a measurement."""
    fits = [[run.result.fit_s for run in side] for side in _common_runs(a, b)]
    if not fits[0] or any(not fit for side in fits for fit in side):
        return None
    found = intervals.ratio(*([[1.0 / fit] for fit in side if fit] for side in fits))
    return without_interval(found) if shares_prefix(a) or shares_prefix(b) else found
