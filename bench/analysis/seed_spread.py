"""Estimate how far a policy's accuracy spreads over seeds, from earlier experience and the runs
at hand.

Three seeds say little about their own variance. On the scale of log odds the spread over seeds is
nearly one number for each kind of policy, so earlier runs (``experience.json``, made by ``python -m
tools.fit_experience``) count as ``DEGREES`` degrees of freedom, and all questions of a network are
pooled (an empirical Bayes estimate, after Smyth 2004, "Linear Models and Empirical Bayes Methods",
section 5). Where the runs at hand spread significantly more than the experience, it is dropped: it
never outweighs data that contradict it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from scipy import special

from bench.analysis.rows import grouped
from bench.analysis.scores import Kind, Scores, variances_of_differences

DEGREES = 4.0
"""Degrees of freedom that earlier experience is worth."""
GATE = 0.95
"""Quantile of chi-square above which the runs at hand contradict the experience."""
LEAST_FACTOR = 0.25
"""Smallest ratio of a variance to the expected one: seeds may agree by luck."""
RESTLESS = 1.5
"""Ratio to the usual spread above which a report says that seeds spread more than usual."""
COLLAPSE, LEAST_COLLAPSE = 4.0, 0.1
"""A run collapsed if it lies so many usual standard deviations, and this fraction of the images,
below the middle seed."""


@dataclass(frozen=True)
class Experience:
    """Typical figures of earlier runs."""

    spread: Mapping[Kind, float]
    """Standard deviation over seeds of the log odds of a right answer."""
    image_share: float
    """Variance over test images of a difference of two accuracies, relative to independent answers;
    assumed where the answers to single images are not known."""
    source: str
    """Description, for readers, of what was measured."""


@lru_cache
def experience() -> Experience:
    """Return the experience that comes with Thawbench."""
    text = (files("bench.analysis") / "experience.json").read_text(encoding="utf-8")
    return Experience(**json.loads(text))


@dataclass(frozen=True)
class SeedSpread:
    """Spread over seeds of the policies of one network, on the scale of log odds."""

    by_policy: Mapping[str, float]
    factor: float
    """Ratio of the spread of differences between policies to the usual one."""

    def of(self, scores: Scores) -> float:
        """Return the expected variance of one seed's accuracy: that of the recipe, and that of the
        answers to these images."""
        rest = scores.slope * experience().image_share if scores.rest is None else scores.rest
        usual = self.by_policy.get(scores.name, experience().spread[scores.kind])
        # One seed's answers hold this variance in that of the images.
        own = rest / scores.images if len(scores.seeds) > 1 else 0.0
        return (usual * scores.slope) ** 2 + own


USUAL = SeedSpread({}, 1.0)
"""Spread by experience alone."""


def spread_of(questions: Sequence[Sequence[Scores]]) -> SeedSpread:
    """Return the spread of each policy, by name, from all questions of one network.

    A common factor comes from the differences between policies, so that what a seed does to all of
    them does not count; and each policy has a factor beside the others.
    """
    own: dict[str, list[tuple[float, int]]] = {}
    pairs, pair_degrees = 0.0, 0
    for policies in questions:
        several = [scores for scores in policies if len(scores.seeds) > 1]
        for scores in several:
            own.setdefault(scores.name, []).append(
                (scores.seed_variance / USUAL.of(scores), len(scores.seeds) - 1)
            )
        for same in grouped(several, lambda scores: scores.seeds).values():
            if len(same) < 2:
                continue
            usual = np.array([USUAL.of(scores) for scores in same])
            ratios = variances_of_differences(same) / (usual[:, None] + usual[None, :])
            mean = float(ratios[np.triu_indices(len(same), 1)].mean())
            degrees = (len(same) - 1) * (len(same[0].seeds) - 1)
            pairs, pair_degrees = pairs + degrees * mean, pair_degrees + degrees
    sums = {
        name: (sum(x * df for x, df in xs), sum(df for _, df in xs)) for name, xs in own.items()
    }
    single = _moderated(sum(s for s, _ in sums.values()), sum(df for _, df in sums.values()))
    common = _moderated(pairs, pair_degrees) if pair_degrees else single
    kinds = {scores.name: scores.kind for policies in questions for scores in policies}
    spread = {
        name: experience().spread[kind]
        * float(np.sqrt(common * _moderated(*sums.get(name, (0.0, 0)), single) / single))
        for name, kind in kinds.items()
    }
    return SeedSpread(spread, float(np.sqrt(common)))


def collapsed(scores: Scores) -> int:
    """Return the number of seeds that lie far below the middle one; of two, below the better."""
    middle = sorted(scores.by_seed)[len(scores.seeds) // 2]
    gap = max(COLLAPSE * USUAL.of(scores) ** 0.5, LEAST_COLLAPSE)
    return int(np.sum(scores.by_seed < middle - gap))


def _moderated(total: float, degrees: int, expected: float = 1.0) -> float:
    """Return the mean of a sum of squares with so many degrees of freedom and the expected square;
    without the latter if the sum is significantly larger."""
    is_contradicted = degrees and total / expected > 2 * special.gammaincinv(degrees / 2, GATE)
    weight = 0.0 if is_contradicted else DEGREES
    return max((weight * expected + total) / (weight + degrees), LEAST_FACTOR)
