"""Experience from other data sets: what each policy and learning rate gained over a trained head.

It is measured by ``tools/advice_record``, in which every policy ran to the end on many small data
sets. Accuracies are compared as log odds, in which gains depend least on how accurate a head is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from bench.advise.candidate import Candidate
from bench.spec.base import Frozen

Floats = npt.NDArray[np.float64]
FILE = "experience.json"


class Arm(Frozen):
    """A policy at a learning rate."""

    policy: str
    rate_factor: float
    """Learning rate over the policy's default."""


class Experience(Frozen):
    """Gains of arms, as a normal distribution over data sets; all values are log odds."""

    arms: tuple[Arm, ...]
    gain: tuple[float, ...]
    """Mean gain of each arm over a head that is trained at its default rate, on data sets with
    ``images_per_class`` training images of each class."""
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of these gains over data sets of one size."""
    images_per_class: float
    slope: tuple[float, ...]
    """Change of each gain where the number of images is e times as large."""
    slope_variance: tuple[float, ...]
    shared: float
    """Correlation of an arm's gain on one data set between two networks."""
    head_gain: float
    """Mean gain of a trained head over the linear probe of the same features."""
    head_variance: float
    """Variance of that gain over networks and data sets."""
    source: str
    """Words for the runs behind it."""

    def index_of(self, candidate: Candidate) -> int:
        """Return the index of a candidate's arm: its policy at the nearest learning rate; raise
        ValueError for a policy without experience."""
        own = [i for i, arm in enumerate(self.arms) if arm.policy == candidate.policy]
        if not own:
            raise ValueError(f"no experience with policy {candidate.policy}")
        factor = math.log(candidate.rate_factor)
        return min(own, key=lambda i: abs(math.log(self.arms[i].rate_factor) - factor))

    def prior(
        self, candidates: Sequence[Candidate], networks: Sequence[str], images_per_class: float
    ) -> tuple[Floats, Floats]:
        """Return what is known of candidates before any trial of them.

        Returns:
            (K,) mean gain of each candidate over the probe of its network's last features, and the
            (K, K) covariance.
        """
        further = math.log(images_per_class / self.images_per_class)
        index = np.array([self.index_of(one) for one in candidates], int)
        network = np.array([networks.index(one.backbone) for one in candidates], int)
        is_same = network[:, None] == network[None]
        covariance = np.asarray(self.covariance)[np.ix_(index, index)]
        covariance = np.where(is_same, covariance + self.head_variance, self.shared * covariance)
        covariance = covariance + np.diag(np.asarray(self.slope_variance)[index] * further**2)
        gain = np.asarray(self.gain)[index] + np.asarray(self.slope)[index] * further
        return self.head_gain + gain, covariance


@cache
def shipped_experience() -> Experience:
    """Return the experience that is part of the package."""
    return Experience.model_validate_json((files("bench.advise") / FILE).read_bytes())
