"""Speeds of seed groups, and which of two backends is faster.

The unit is the run: windows inside one run agree to a percent where runs differ by five. So
verdicts come from pairs of runs, never from windows, and pairs whose steps do the same are pooled,
whatever policy, seed or data they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import (
    Estimate,
    exponential,
    geometric_mean,
    median_of_pairs,
    t_interval,
)
from bench.analysis.rows import Row, grouped
from bench.analysis.same_experiment import CHOSEN_RATE

SpeedBasis = Literal["whole steps", "whole fits"]
PRIOR_SD = {"cpu": 0.12, "gpu": 0.02}
"""Usual standard deviation of a run's rate, as a fraction. On a CPU, 4 % of 254 pairs of runs of
the same step are called different with it; that of a GPU is an assumption until one was
measured."""
PRIOR_DEGREES = 4.0
"""Degrees of freedom that the usual spread is worth."""
LEAST_PAIRS = 6
"""Pairs from which on their own spread is enough: Wilcoxon's interval is defined."""
EQUAL = 0.05
"""Equivalence margin of speeds, as a fraction."""
STEP_FIELDS = (
    "mode", "backbone", "code_sha256", "network_digest", "boundary", "head", "px", "batch_size",
    "precision", "compile", "optimizer", "augmentation", "views", "prefix_cache", "device",
    "device_model",
)  # fmt: skip
"""Fields of runs whose training steps do the same work."""


def step_signature(row: Row) -> tuple[Hashable, ...]:
    """Return what decides the work of a training step, whatever policy, seed or data it is for."""
    return tuple(row[field] for field in STEP_FIELDS)


def mean_of(group: SeedGroup, field: str) -> float | None:
    """Return the geometric mean of a rate or time over the runs that have it; None if none has."""
    values = [row[field] for row in group.rows if row[field]]
    return geometric_mean(values) if values else None


def shares_prefix(group: SeedGroup) -> bool:
    """Return True if runs carry the same measured time of a frozen part's values, so that their
    times agree for that reason."""
    return any(row.result.prefix_values == "reused" for row in group.rows)


@dataclass(frozen=True)
class SpeedComparison:
    """The speeds of two backends for one kind of step, or one experiment."""

    ratio: Estimate
    """Rate of the second backend over that of the first."""
    of: SpeedBasis
    pairs: int
    """Pairs of runs."""

    @property
    def verdict(self) -> Literal["faster", "slower", "equal", "open"]:
        """Verdict on the second backend: equal if shown to be within ``EQUAL``, else faster or
        slower if the interval excludes 1, else open."""
        if self.ratio.is_within(float(np.log1p(EQUAL))):
            return "equal"
        if not self.ratio.excludes_neutral:
            return "open"
        return "faster" if self.ratio.value > 1.0 else "slower"


def ratio_of_pairs(logs: Sequence[float], device: str) -> Estimate:
    """Return the ratio of two speeds from the logarithms of the ratios of pairs of runs.

    From ``LEAST_PAIRS`` pairs on, the Hodges–Lehmann estimate with Wilcoxon's interval, which a few
    disturbed runs hardly move; with fewer, a t interval whose variance is moderated by the usual
    spread of runs on such a device.
    """
    x = np.asarray(logs, dtype=np.float64)
    if len(x) >= LEAST_PAIRS:
        return exponential(median_of_pairs(logs))
    usual = 2.0 * PRIOR_SD["cpu" if device == "cpu" else "gpu"] ** 2
    own = float(x.var(ddof=1)) if len(x) > 1 else 0.0
    degrees = PRIOR_DEGREES + len(x) - 1
    variance = (PRIOR_DEGREES * usual + (len(x) - 1) * own) / degrees
    return exponential(t_interval(float(x.mean()), variance / len(x), degrees))


Pairs = Sequence[tuple[SeedGroup, SeedGroup]]


def compare_speeds(pairs: Pairs) -> list[SpeedComparison | None]:
    """Return the comparison that speaks for each pair of seed groups: of whole steps, pooled over
    all pairs with the same steps in the same two environments; else of the pair's own whole fits.
    None if neither is known, a machine was busy, or the runs did not do the same."""
    logs = [_step_logs(a, b) for a, b in pairs]
    kinds = [
        (step_signature(a.row), a.row.result.environment_id, b.row.result.environment_id)
        for a, b in pairs
    ]
    pooled = {
        kind: _comparison([logs[n] for n in places if logs[n]], pairs[places[0]][0], "whole steps")
        for kind, places in grouped(range(len(pairs)), kinds.__getitem__).items()
    }
    return [
        pooled[kind] if own else _comparison([_fit_logs(a, b)], a, "whole fits")
        for (a, b), own, kind in zip(pairs, logs, kinds, strict=True)
    ]


def _comparison(
    logs: Sequence[Sequence[float]], group: SeedGroup, of: SpeedBasis
) -> SpeedComparison | None:
    """Return the comparison by the logarithms of the ratios of pairs of runs, listed by experiment;
    None without any. A machine drifts from one experiment to the next, so where there are several
    experiments, the mean of each is one draw."""
    count = sum(map(len, logs))
    if not count:
        return None
    units = logs[0] if len(logs) == 1 else [sum(each) / len(each) for each in logs]
    return SpeedComparison(ratio_of_pairs(units, group.row.spec.device), of, count)


def _common_runs(a: SeedGroup, b: SeedGroup) -> list[tuple[Row, Row]]:
    """Return the pairs of steady runs of one seed and fold that did the same experiment."""
    if a.machine != b.machine or a.is_unsteady or b.is_unsteady:
        return []
    if any(set(row.differs) - {CHOSEN_RATE} for group in (a, b) for row in group.rows):
        return []
    others = {(row.spec.seed, row.fold): row for row in b.rows}
    places = [(row.spec.seed, row.fold) for row in a.rows]
    return [
        (row, others[place]) for row, place in zip(a.rows, places, strict=True) if place in others
    ]


def _step_logs(a: SeedGroup, b: SeedGroup) -> list[float]:
    rates = [
        (x.result.train_images_per_s, y.result.train_images_per_s) for x, y in _common_runs(a, b)
    ]
    return [math.log(y / x) for x, y in rates if x and y]


def _fit_logs(a: SeedGroup, b: SeedGroup) -> list[float]:
    """Return the logarithms of the ratios of speed of whole fits, compilation left out; runs that
    share the values of a frozen part count once."""
    fits = [(x.steady_fit_s, y.steady_fit_s) for x, y in _common_runs(a, b)]
    logs = [math.log(x / y) for x, y in fits if x and y]
    return logs[:1] if shares_prefix(a) or shares_prefix(b) else logs


def fit_ratio(a: SeedGroup, b: SeedGroup) -> float | None:
    """Return the time of the fit of ``b`` over that of ``a``, without compilation; None if a run
    lacks it, or a machine was busy."""
    if a.is_unsteady or b.is_unsteady:
        return None
    sides = [[row.steady_fit_s for row in group.rows] for group in (a, b)]
    if any(value is None for side in sides for value in side):
        return None
    first, second = (geometric_mean([v for v in side if v]) for side in sides)
    return second / first
