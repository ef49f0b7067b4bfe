"""Training speed of seed groups, and which of two backends is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.analysis import intervals
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate, corrected
from bench.analysis.rows import UNSTEADY, Row
from bench.analysis.same_experiment import CHOSEN_RATE

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

    def mean(field: str) -> Estimate | None:
        values = [row[field] for row in group.rows if row[field]]
        return intervals.mean_rate(values) if values else None

    whole, effective = mean("train_images_per_s"), mean("effective_images_per_s")
    return TrainingSpeed(whole, unless_shared(effective, group))


def shares_prefix(group: SeedGroup) -> bool:
    """Return True if runs carry the same measured time of a frozen part's values, so that their
    times agree for that reason and give no interval."""
    return any(row.result.prefix_values == "reused" for row in group.rows)


def without_interval(e: Estimate) -> Estimate:
    """Return an estimate without its interval."""
    return replace(e, low=None, high=None, p=None)


def unless_shared(e: Estimate | None, *groups: SeedGroup) -> Estimate | None:
    """Return an estimate, without its interval if runs of a group share a measurement."""
    return without_interval(e) if e is not None and any(map(shares_prefix, groups)) else e


def is_unsteady(group: SeedGroup) -> bool:
    """Return True if a run is marked unsteady, or the fit of one, compilation left out, took
    ``UNSTEADY`` times that of another seed."""
    if any(row.unsteady for row in group.rows):
        return True
    results = [row.result for row in group.rows]
    fits = [r.fit_s for r in results if r.fit_s]
    rests = [r.fit_s - (r.compile_s or 0.0) for r in results if r.fit_s]
    # A small difference beside whole fits that are mostly compilation does not count.
    return bool(fits) and max(rests) > UNSTEADY * min(rests) and max(rests) - min(rests) > min(fits)


@dataclass(frozen=True)
class SpeedComparison:
    """The training speeds of two seed groups."""

    ratio: Estimate | None
    """Rate of the second over that of the first; None if they are not comparable."""
    p: float | None
    """p value, corrected for all such comparisons."""
    of: SpeedBasis | None
    """Basis of the ratio; 'unsteady' if the machine was busy, None if there is no common basis."""

    @property
    def is_real(self) -> bool:
        """True if one is significantly faster."""
        return self.ratio is not None and self.ratio.is_real(self.p)

    @property
    def size(self) -> float:
        """Rate of the faster one over that of the slower one."""
        return 1.0 if self.ratio is None else max(self.ratio.value, 1.0 / self.ratio.value)


def compare_speeds(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[SpeedComparison]:
    """Compare each pair by what both have: windows of whole steps, else fit times."""
    found = [_ratio(a, b) for a, b in pairs]
    ps = corrected([e for e, _ in found])
    return [SpeedComparison(e, p, of) for (e, of), p in zip(found, ps, strict=True)]


def _ratio(a: SeedGroup, b: SeedGroup) -> tuple[Estimate | None, SpeedBasis | None]:
    if a.machine != b.machine or not set(a.seeds) & set(b.seeds):
        return None, None
    if any(set(row.differs) - {CHOSEN_RATE} for group in (a, b) for row in group.rows):
        return None, None
    if is_unsteady(a) or is_unsteady(b):
        return None, "unsteady"
    sides = _common_runs(a, b)
    # A rate that a run does not state was measured over too few windows.
    is_stated = all(r.result.train_images_per_s is not None for side in sides for r in side)
    if is_stated and (found := window_ratio(*sides)) is not None:
        return found, "whole steps"
    fits = fit_ratio(a, b)
    return fits, None if fits is None else "whole fits"


def window_ratio(a: Sequence[Row], b: Sequence[Row]) -> Estimate | None:
    """Return the ratio of the rates of whole steps, by their windows; None if a run has none."""
    sides = [[row.result.train_images_per_s_windows for row in side] for side in (a, b)]
    return intervals.ratio(*sides) if all(run for side in sides for run in side) else None


def _common_runs(a: SeedGroup, b: SeedGroup) -> tuple[list[Row], list[Row]]:
    """Return the runs of both with seeds that both have."""
    common = set(a.seeds) & set(b.seeds)
    first, second = ([row for row in c.rows if row.spec.seed in common] for c in (a, b))
    return first, second


def fit_ratio(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    """Return how many times as fast the fits of ``b`` are; without an interval if runs of either
    share a measurement."""
    fits = [[run.result.fit_s for run in side] for side in _common_runs(a, b)]
    if not fits[0] or any(not fit for side in fits for fit in side):
        return None
    found = intervals.ratio(*([[1.0 / fit] for fit in side if fit] for side in fits))
    return unless_shared(found, a, b)
