"""Estimate candidates' accuracies from experience with other data sets, probes and trials.

Accuracies are log odds with a normal prior. A candidate's accuracy is a level and a gain. The level
is a weighted mean of the accuracies of linear probes: of its network's last features, and of all
networks'. Experience gives the weight, and mean and covariance of the gains
(``bench.advise.experience``). Probes and trials measure these on held-out images. They share the
images, so that the errors of two measurements are correlated, and a difference is known better than
an accuracy. The best of several measured accuracies looks better than it is; the prior pulls it
back as far as it was such a chance on other data sets (the posterior of a normal model, Gelman et
al. 2013, "Bayesian Data Analysis", section 3.6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from bench.advise.advice import LEVEL
from bench.advise.candidate import Candidate
from bench.advise.experience import Experience, Floats, NetworkKind

DRAWS = 4000
TIE_LEVEL = 0.02
"""Least probability of being within the margin of the best with which a candidate is called as
good as the best."""
PROBE_DEVIATION = 3.0
"""Standard deviation of a network's accuracy, in log odds, before anything is measured."""
ITERATIONS = 5
LEAST_SPREAD = 1e-3
"""Lower bound of p(1 − p) where log odds are taken as linear around an accuracy p."""
Answers = npt.NDArray[np.float64]
"""(N,) 1 for a held-out image that is right, 0 for one that is wrong, NaN where it is not known."""


@dataclass(frozen=True)
class Belief:
    """Accuracies that candidates may have, as draws."""

    candidates: tuple[Candidate, ...]
    draws: Floats
    """(D, K) accuracies on images like the held-out ones, as means over seeds."""
    seed_deviations: Floats
    """(K,) standard deviation over seeds, in log odds."""

    def among(self, allowed: Sequence[Candidate]) -> Belief:
        """Return the belief about some of the candidates, in this order."""
        columns = [self.candidates.index(one) for one in allowed]
        return Belief(tuple(allowed), self.draws[:, columns], self.seed_deviations[columns])

    def raised(self, log_odds: Floats) -> Belief:
        """Return the belief with each candidate's accuracy raised by so much (K,)."""
        inside = np.clip(self.draws, 1e-9, 1 - 1e-9)
        return replace(self, draws=expit(logit(inside) + log_odds))

    @property
    def expected(self) -> Floats:
        """Expected accuracy of each candidate, (K,)."""
        mean: Floats = self.draws.mean(axis=0)
        return mean

    @property
    def shortfall(self) -> Floats:
        """Expected accuracy by which each candidate is behind the best one, (K,)."""
        behind: Floats = (self.draws.max(axis=1, keepdims=True) - self.draws).mean(axis=0)
        return behind

    @property
    def chance_of_best(self) -> Floats:
        """Probability that each candidate is the best, (K,)."""
        best = self.draws.argmax(axis=1)
        return np.bincount(best, minlength=len(self.candidates)) / len(best)

    def chance_within(self, margin: float) -> Floats:
        """Return the probability that each candidate is behind the best by ``margin`` at most."""
        is_near = self.draws >= self.draws.max(axis=1, keepdims=True) - margin
        chance: Floats = is_near.mean(axis=0)
        return chance

    def interval(self, candidate: Candidate, test_images: int) -> tuple[float, float]:
        """Return the interval, at ``LEVEL``, for the accuracy of a full run on so many test
        images: its ends are accuracies that so many images can have."""
        index = self.candidates.index(candidate)
        column = self.draws[:, index]
        random, images = np.random.default_rng(1), max(test_images, 1)
        seed_effect = self.seed_deviations[index] * random.standard_normal(len(column))
        odds = logit(np.clip(column, 1e-9, 1 - 1e-9))
        right = random.binomial(images, expit(odds + seed_effect))
        low, high = np.quantile(right, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(np.floor(low) / images), float(np.ceil(high) / images)


def believe(
    experience: Experience,
    images_per_class: float,
    candidates: Sequence[Candidate],
    kinds: Mapping[str, NetworkKind],
    probes: Mapping[str, Answers],
    trials: Mapping[Candidate, Answers],
    folds: Mapping[Candidate, int],
    groups: npt.NDArray[np.int64] | None = None,
) -> Belief:
    """Combine experience with what was measured.

    Args:
        experience: Gains over probes on other data sets.
        candidates: The K candidates of the belief.
        images_per_class: Number of training images over that of classes.
        kinds: Network → its kind.
        probes: Network → answers of the linear probe of its last features; one for the network of
            every candidate.
        trials: Candidate → its answers in the folds in which it was tried whole.
        folds: Candidate → number of these folds.
        groups: (N,) number of each image's group; images of a group are right or wrong together.
    """
    networks = list(probes)
    gain, gain_covariance = experience.prior(candidates, kinds, images_per_class)
    of_network = np.array([[c.backbone == name for name in networks] for c in candidates], float)
    of_network = (1 - experience.pooled) * of_network + experience.pooled / len(networks)
    # The state: log odds of each network's probe, then of each candidate.
    spread = PROBE_DEVIATION**2
    base = _typical(probes)
    mean = np.concatenate([np.full(len(networks), base), base + gain])
    covariance = np.block([
        [spread * np.eye(len(networks)), spread * of_network.T],
        [spread * of_network, spread * of_network @ of_network.T + gain_covariance],
    ])  # fmt: skip
    tried = [one for one in candidates if one in trials]
    positions = [*range(len(networks)), *(len(networks) + candidates.index(t) for t in tried)]
    observed = np.stack([*probes.values(), *(trials[one] for one in tried)])
    measured = _Measured.of(observed, groups)
    deviations = experience.seed_deviations(candidates, kinds)
    of_tried = [deviations[candidates.index(one)] ** 2 / folds[one] for one in tried]
    seeds = [0.0] * len(networks) + of_tried
    seen = covariance[:, positions]
    at, prior_mean = logit(measured.smoothed), mean
    for _ in range(ITERATIONS):  # errors are those at the expected accuracies, not the seen ones
        values, noise = measured.at(at)
        weights = np.linalg.solve(seen[positions] + noise + np.diag(seeds), seen.T).T
        mean = prior_mean + weights @ (values - prior_mean[positions])
        at = mean[positions]
    covariance = covariance - weights @ seen.T
    own = slice(len(networks), None)
    draws = expit(_normal(mean[own], covariance[own, own]))
    return Belief(tuple(candidates), draws, deviations)


def _typical(probes: Mapping[str, Answers]) -> float:
    """Return the mean log odds of probes, which is the prior mean of each."""
    return float(np.mean([logit(_smooth(a)) for a in probes.values()]))


def _smooth(answers: Answers) -> float:
    """Return an accuracy that is neither 0 nor 1."""
    known = answers[~np.isnan(answers)]
    return float((known.sum() + 0.5) / (len(known) + 1))


@dataclass(frozen=True)
class _Measured:
    """M accuracies on held-out images that are partly the same."""

    top1: Floats
    """(M,)."""
    smoothed: Floats
    """(M,) accuracies that are neither 0 nor 1."""
    correlation: Floats
    """(M, M) correlation between the sampling errors of the accuracies, from the residuals of the
    images that two share. Diagonal elements exceed 1 where images of a group are right or wrong
    together (a design effect)."""
    counts: Floats
    """(M,) numbers of images."""

    @classmethod
    def of(cls, answers: Floats, groups: npt.NDArray[np.int64] | None) -> _Measured:
        """Take (M, N) answers."""
        is_known = ~np.isnan(answers)
        counts = is_known.sum(axis=1).astype(float)
        top1 = np.nansum(answers, axis=1) / counts
        residuals = np.where(is_known, answers - top1[:, None], 0.0)
        if groups is not None:
            units = np.unique(groups, return_inverse=True)[1]
            summed = np.zeros((len(answers), int(units.max()) + 1))
            np.add.at(summed.T, units, residuals.T)
            residuals = summed
        scale = np.sqrt(np.maximum(counts * top1 * (1 - top1), 1e-9))
        correlation = residuals @ residuals.T / np.outer(scale, scale)
        correlation += np.diag(np.maximum(1.0 - np.diag(correlation), 1e-6))
        smoothed = np.array([_smooth(row) for row in answers])
        return cls(top1, smoothed, correlation, counts)

    def at(self, log_odds: Floats) -> tuple[Floats, Floats]:
        """Return the measurements as (M,) log odds, linear around expected ones, and the (M, M)
        covariance of their errors there."""
        expected = expit(log_odds)
        spread = np.maximum(expected * (1 - expected), LEAST_SPREAD)
        scale = 1.0 / np.sqrt(self.counts * spread)
        return log_odds + (self.top1 - expected) / spread, self.correlation * np.outer(scale, scale)


def _normal(mean: Floats, covariance: Floats) -> Floats:
    """Return draws (D, K) of a normal distribution whose covariance may be singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    scale = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = np.random.default_rng(0).standard_normal((DRAWS, len(mean)))
    draws: Floats = mean + drawn @ scale.T
    return draws
