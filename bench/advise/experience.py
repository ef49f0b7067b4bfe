"""Experience from other data sets: what each policy and learning rate gained over a trained head.

It is measured by ``tools/advice_record``, in which every policy ran to the end on many small data
sets. Accuracies are compared as log odds, in which gains depend least on how accurate a head is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.advise.candidate import Candidate
from bench.advise.learning_curve import Slope
from bench.spec.base import Frozen

Floats = npt.NDArray[np.float64]
NetworkKind = Literal["normalised", "plain"]
"""With or without layers that normalise, such as BatchNorm. It decides which learning rates a whole
network bears: with them, high ones do best on small data sets; without them, they destroy it."""
FILE = "experience.json"
CARRIED = 4.0
"""Gains are extrapolated, linearly in the logarithm of the images per class, up to this factor
beyond the sizes of the record; further on the mean stays constant, while the variance grows."""


class Arm(Frozen):
    """A policy at a learning rate."""

    policy: str
    rate_factor: float
    """Learning rate over the policy's default."""


class KindExperience(Frozen):
    """Gains of arms with networks of a kind, as a normal distribution over data sets."""

    gain: tuple[float, ...]
    """Mean gain of each arm over a head that is trained at its default rate, on data sets with
    ``Experience.images_per_class`` training images of each class."""
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of these gains over data sets of one size."""
    slope: tuple[float, ...]
    """Change of each gain where the number of images is e times as large."""
    slope_variance: tuple[float, ...]
    head_gain: float
    """Mean gain of a trained head over the level that the probes give (``Experience.pooled``)."""
    head_variance: float
    """Variance of that gain over networks and data sets."""
    seed_deviation: tuple[float, ...]
    """Standard deviation of each arm's accuracy over seeds, in log odds."""


class Experience(Frozen):
    """Gains of all policies and learning rates, learned from other data sets, in log odds."""

    arms: tuple[Arm, ...]
    kinds: dict[NetworkKind, KindExperience]
    images_per_class: float
    """Geometric mean, over the data sets, of the training images per class."""
    least_images_per_class: float
    most_images_per_class: float
    """Smallest and largest number of training images per class among them."""
    pooled: float
    """Weight of the mean of all networks' probes in the level to which gains are added; the rest is
    the own network's probe. A probe shows how hard the images are, which all networks share, and
    how well the features of one network separate the classes before any training on them."""
    shared: float
    """Correlation of an arm's gain on one data set between two networks."""
    probe_slope: Slope
    whole_slope: Slope
    """Median and spread of the slopes of the learning curves of probes, and of whole networks."""
    source: str
    """Description of the runs behind it."""

    def seed_deviations(
        self, candidates: Sequence[Candidate], kinds: Mapping[str, NetworkKind]
    ) -> Floats:
        """Return the standard deviation over seeds of each candidate's accuracy (K,)."""
        return np.array([
            self.kinds[kinds[one.backbone]].seed_deviation[self.index_of(one)]
            for one in candidates
        ])  # fmt: skip

    def index_of(self, candidate: Candidate) -> int:
        """Return the index of a candidate's arm: its policy at the nearest learning rate; raise
        ValueError for a policy without experience."""
        own = [i for i, arm in enumerate(self.arms) if arm.policy == candidate.policy]
        if not own:
            raise ValueError(f"no experience with policy {candidate.policy}")
        factor = math.log(candidate.rate_factor)
        return min(own, key=lambda i: abs(math.log(self.arms[i].rate_factor) - factor))

    def prior(
        self,
        candidates: Sequence[Candidate],
        kinds: Mapping[str, NetworkKind],
        images_per_class: float,
    ) -> tuple[Floats, Floats]:
        """Return what is known of candidates before any trial of them; raise ValueError for a
        policy without experience.

        Args:
            images_per_class: Training images of the data set over its classes.
            kinds: Network → its kind.

        Returns:
            (K,) mean gain of each candidate over the level that the probes give, and the (K, K)
            covariance.
        """
        ends = self.least_images_per_class / CARRIED, self.most_images_per_class * CARRIED
        inside = min(max(images_per_class, ends[0]), ends[1])
        further = math.log(inside / self.images_per_class)
        unsure_over = math.log(images_per_class / self.images_per_class)
        index = np.array([self.index_of(one) for one in candidates], int)
        gain, covariance = np.empty(len(index)), np.empty((len(index), len(index)))
        networks = list(dict.fromkeys(one.backbone for one in candidates))
        places = [np.flatnonzero([c.backbone == name for c in candidates]) for name in networks]
        for name, place in zip(networks, places, strict=True):
            own, arm = self.kinds[kinds[name]], index[place]
            gain[place] = own.head_gain + np.asarray(own.gain)[arm]
            gain[place] += np.asarray(own.slope)[arm] * further
            unsure = np.diag(np.asarray(own.slope_variance)[arm] * unsure_over**2)
            of_arms = np.asarray(own.covariance)[np.ix_(arm, arm)]
            covariance[np.ix_(place, place)] = of_arms + own.head_variance + unsure
            for other, there in zip(networks, places, strict=True):
                if other != name:
                    both = (own, self.kinds[kinds[other]])
                    mean = np.mean([one.covariance for one in both], axis=0)
                    covariance[np.ix_(place, there)] = self.shared * mean[np.ix_(arm, index[there])]
        return gain, covariance


@cache
def shipped_experience() -> Experience:
    """Return the experience that is part of the package."""
    return Experience.model_validate_json((files("bench.advise") / FILE).read_bytes())
