"""Speeds of cells, and of one beside another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.analysis import intervals as statistics
from bench.analysis.groups import SIGNIFICANT, SeedGroup
from bench.analysis.intervals import Estimate, holm
from bench.analysis.rows import UNSTEADY, Row


@dataclass(frozen=True)
class TrainingSpeed:
    """Images/s of a cell's training."""

    whole: Estimate | None
    """None: over too soon, trained at once with others, or no whole steps."""
    effective: Estimate | None
    """None likewise."""


def rate_of(cell: SeedGroup) -> TrainingSpeed:
    """With an interval over the runs, or over the windows of one or two."""
    windows = [row.result.train_images_per_s_windows for row in cell.rows]
    stated = all(row.result.train_images_per_s for row in cell.rows)
    if len(windows) < statistics.LEAST_SEEDS and stated and all(windows):
        return TrainingSpeed(statistics.rate_of_windows(windows), None)
    found = []
    for field in ("train_images_per_s", "effective_images_per_s"):
        values = [row[field] for row in cell.rows if row[field]]
        found.append(statistics.mean_rate(values) if values else None)
    whole, effective = found
    if effective is not None and shares_prefix(cell):
        effective = without_interval(effective)
    return TrainingSpeed(whole, effective)


def shares_prefix(cell: SeedGroup) -> bool:
    """Whether runs of a cell carry one and the same measurement, of a frozen part's values: their
    times are alike because of that, and no interval can be had from them."""
    return any(row.result.prefix_values == "reused" for row in cell.rows)


def without_interval(e: Estimate) -> Estimate:
    """A figure whose uncertainty is not known."""
    return replace(e, low=None, high=None, p=None)


def is_unsteady(cell: SeedGroup) -> bool:
    """Whether the machine was busy with other work in some of its runs (``mark_unsteady``), or the
    fit of one took many times that of another, which differs in the seed alone."""
    if any(row.unsteady for row in cell.rows):
        return True
    results = [row.result for row in cell.rows]
    fits = [r.fit_s for r in results if r.fit_s]
    rests = [r.fit_s - (r.compile_s or 0.0) for r in results if r.fit_s]
    if not fits or max(rests) <= UNSTEADY * min(rests):
        return False
    return max(rests) - min(rests) > min(fits)  # else the rest is next to nothing of the fit


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


def compare_speeds(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[SpeedComparison]:
    """Of each pair, by what both have: windows of whole steps, else fit times."""
    found = [_ratio(a, b) for a, b in pairs]
    known = [e.p for e, _ in found if e is not None and e.p is not None]
    corrected = iter(holm(known))
    return [
        SpeedComparison(e, next(corrected) if e is not None and e.p is not None else None, of)
        for e, of in found
    ]


def _ratio(a: SeedGroup, b: SeedGroup) -> tuple[Estimate | None, str | None]:
    if a.machine != b.machine or not set(a.seeds) & set(b.seeds):
        return None, None
    if is_unsteady(a) or is_unsteady(b):
        return None, "unsteady"
    sides = common_runs(a, b)
    # A rate that a run does not state was measured over too few windows.
    if all(r.result.train_images_per_s is not None for side in sides for r in side):
        windows = [[r.result.train_images_per_s_windows for r in side] for side in sides]
        if all(len(w) for side in windows for w in side):
            return statistics.ratio(*windows), "whole steps"
    fits = fit_ratio(a, b)
    return fits, None if fits is None else "whole fits"


def common_runs(a: SeedGroup, b: SeedGroup) -> tuple[list[Row], list[Row]]:
    """Runs of both with the seeds that they have in common."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    first, second = ([c.rows[c.seeds.index(s)] for s in common] for c in (a, b))
    return first, second


def fit_ratio(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    """How many times as fast the fits of ``b`` are; without an interval where runs of either share
    a measurement."""
    fits = [[run.result.fit_s for run in side] for side in common_runs(a, b)]
    if not fits[0] or any(not fit for side in fits for fit in side):
        return None
    found = statistics.ratio(*([[1.0 / fit] for fit in side if fit] for side in fits))
    return without_interval(found) if shares_prefix(a) or shares_prefix(b) else found
