"""Learn the adviser's experience from full runs: what each policy and rate gains over a head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from bench.advise.experience import Arm, Experience, KindExperience, NetworkKind
from bench.advise.knowledge import RATE_FACTORS
from bench.advise.learning_curve import SLOPE_PRIOR, Point, Slope, slope_between
from bench.advise.wishes import POLICIES
from bench.catalog.policies import POLICIES as CATALOGUE
from bench.errors import UserError
from tools.advice_record.measured import Measured, whole_curve
from tools.advice_record.oracle import BACKBONES, KINDS, FullRun

SHRUNK = 0.1
"""Weight of the diagonal in the covariance, as so few data sets show it only roughly."""
LEAST_HEAD_VARIANCE = 0.02
LEAST_SEED_DEVIATION = 0.05
"""Least standard deviation over seeds, in log odds."""
LEAST_SLOPE_DEVIATION = 0.2
LEAST_GAIN = -1.0
"""Worse gains count as this one: how far a failed training falls does not predict how well others
do."""
Floats = npt.NDArray[np.float64]


def learn(found: Sequence[Measured]) -> Experience:
    """Return the experience of all cells that are not refused by signs. Gains over a probe leave
    out cells with wrong labels, whose probes are measured on other labels than their full runs."""
    arms = [Arm(policy=p, rate_factor=f) for p in POLICIES for f in RATE_FACTORS]
    used = [one for one in found if one.is_probed]
    if not used:
        raise UserError(
            "No data set of another family was measured, from which to learn.",
            "CONTRIBUTING.md names the packages of the record's data.",
        )
    clean = [one for one in used if not one.cell.variant.noise]
    gains = np.array([
        [[_gains(runs, name, arms) for name in BACKBONES] for runs in one.seeds] for one in used
    ])  # fmt: skip
    heads = np.array([_heads(one) for one in clean])
    pooled = _pooled(heads)
    probes = heads[..., 1]
    level = (1 - pooled) * probes + pooled * probes.mean(axis=1, keepdims=True)
    over = np.stack([heads[..., 0] - level, heads[..., 2]], axis=-1)
    sizes = np.log([one.images_per_class for one in used])
    further = (sizes - sizes.mean())[:, None, None, None]
    kinds: dict[NetworkKind, KindExperience] = {}
    centred = np.empty_like(gains)
    for kind in sorted(set(KINDS.values())):
        own = [number for number, name in enumerate(BACKBONES) if KINDS[name] == kind]
        seeds = [_seed_deviation(used, [BACKBONES[number] for number in own], arm) for arm in arms]
        kinds[kind], centred[:, :, own] = _of_kind(
            gains[:, :, own], further, over[:, own], tuple(seeds)
        )
    runs = sum(len(runs) for one in used for runs in one.seeds)
    return Experience(
        arms=tuple(arms), kinds=kinds, images_per_class=float(np.exp(sizes.mean())),
        least_images_per_class=float(np.exp(sizes.min())),
        most_images_per_class=float(np.exp(sizes.max())),
        pooled=pooled,
        shared=_shared(centred),
        probe_slope=_slope([sorted(one.curve) for one in used]),
        whole_slope=_slope(_whole_curves(used)),
        source=f"{runs:,} full runs of {' and '.join(BACKBONES)} on "
        f"{len(used)} small data sets of {len({one.family for one in used})} kinds",
    )  # fmt: skip


def _of_kind(
    gains: Floats, further: Floats, heads: Floats, seeds: tuple[float, ...]
) -> tuple[KindExperience, Floats]:
    """Return the experience with networks of a kind, and the gains without what it explains.

    Args:
        gains: (cells, seeds, networks, arms).
        further: (cells, 1, 1, 1) logarithm of the images per class, over their mean.
        heads: (cells, networks, 2) gain of a head over the level of the probes, and its variance.
        seeds: Standard deviation over seeds of each arm.
    """
    mean = gains.mean(axis=(0, 1, 2))
    # With one size alone the slope is not known, and not taken for steep.
    spread = max(float(np.square(further).sum()) * gains.shape[2], 1.0)
    slope = (gains.mean(axis=1) * further[:, 0]).sum(axis=(0, 1)) / spread
    centred: Floats = gains - mean - slope * further
    covariance = _covariance(centred)
    covariance = (1 - SHRUNK) * covariance + SHRUNK * np.diag(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance)
    covariance = (vectors * np.maximum(values, 0.0)) @ vectors.T
    head_gain, sampling = heads[..., 0], heads[..., 1]
    variance = float(np.nanvar(head_gain) - np.nanmean(sampling))
    return KindExperience(
        gain=tuple(map(float, mean)),
        covariance=tuple(map(tuple, covariance.tolist())),
        slope=tuple(map(float, slope)),
        slope_variance=tuple(map(float, centred.mean(axis=1).var(axis=(0, 1)) / spread)),
        head_gain=float(np.nanmean(head_gain)),
        head_variance=max(variance, LEAST_HEAD_VARIANCE),
        seed_deviation=seeds,
    ), centred


def _covariance(centred: Floats) -> Floats:
    """Return the covariance of gains (arms, arms) over cells and networks, each time between one
    seed and another: seeds add to the variance of a single run, not to this.

    Args:
        centred: (cells, seeds, networks, arms).
    """
    cells, seeds, networks, arms = centred.shape
    sums = centred.sum(axis=1).reshape(-1, arms)
    single = centred.reshape(-1, arms)
    pairs = cells * networks * seeds * (seeds - 1)
    covariance: Floats = (sums.T @ sums - single.T @ single) / pairs
    return covariance


def _shared(centred: Floats) -> float:
    """Return the correlation of an arm's gain between two networks, from the gains (cells, seeds,
    networks, arms) that experience does not explain."""
    networks = range(centred.shape[2])
    variances = [float(np.trace(_covariance(centred[:, :, [one]]))) for one in networks]
    means = centred.mean(axis=1)
    found = [
        float((means[:, a] * means[:, b]).sum() / len(means))
        / np.sqrt(max(variances[a] * variances[b], 1e-12))
        for a, b in combinations(networks, 2)
    ]
    return float(np.clip(np.mean(found), 0.0, 0.99))


def _whole_curves(found: Sequence[Measured]) -> list[list[Point]]:
    """Return the learning curves of policies that train the whole network."""
    return [
        whole_curve(found, family, backbone, policy)
        for family in sorted({one.family for one in found})
        for backbone in BACKBONES for policy in POLICIES
        if CATALOGUE[policy].boundary == "all"
    ]  # fmt: skip


def _slope(curves: Sequence[Sequence[Point]]) -> Slope:
    """Return median and spread of the slopes of learning curves between two sizes."""
    slopes = [
        slope_between(before, after)
        for curve in curves for before, after in pairwise(curve) if before.images < after.images
    ]  # fmt: skip
    if not slopes:
        return SLOPE_PRIOR
    low, middle, high = np.quantile(slopes, [0.16, 0.5, 0.84])
    return float(middle), max(float(high - low) / 2, LEAST_SLOPE_DEVIATION)


def _seed_deviation(found: Sequence[Measured], backbones: Sequence[str], arm: Arm) -> float:
    """Return the standard deviation over seeds of an arm's accuracy, in log odds: of the
    differences between two seeds on the same test images, without what so few images add."""
    squares = [
        _seed_square(first, second)
        for one in found for name in backbones
        for first, second in combinations(one.runs(name, arm.policy, arm.rate_factor), 2)
    ]  # fmt: skip
    variance = float(np.mean(squares)) / 2 if squares else 0.0
    return float(np.sqrt(max(variance, LEAST_SEED_DEVIATION**2)))


def _seed_square(first: FullRun, second: FullRun) -> float:
    """Return the squared difference of two runs in log odds, minus its expectation if each image
    that one of them alone has right were a coin toss."""
    one, other = first.answers(), second.answers()
    top1 = (one.mean() + other.mean()) / 2
    slope = 1 / max(top1 * (1 - top1), 1 / len(one))  # of log odds over accuracy
    by_chance = float((one != other).mean()) / len(one) * slope**2
    return float((_log_odds(second) - _log_odds(first)) ** 2 - by_chance)


def _gains(runs: Sequence[FullRun], backbone: str, arms: Sequence[Arm]) -> Floats:
    """Return the gain of each arm over the head with the same seed, in log odds; a run that
    diverged counts as the worst of the others."""
    known = {run.arm: _log_odds(run) for run in runs if run.backbone == backbone}
    worst = min(known.values())
    keys = [(backbone, arm.policy, round(arm.rate_factor, 3)) for arm in arms]
    head = known.get((backbone, "freeze_all", 1.0), worst)
    return np.maximum([known.get(key, worst) - head for key in keys], LEAST_GAIN)


def _heads(one: Measured) -> Floats:
    """Return for each network (N, 3): mean log odds of the trained head over seeds, log odds of the
    linear probe, and the variance of their difference from the numbers of images; NaN where the
    head diverged."""
    found = []
    for backbone in BACKBONES:
        runs = one.runs(backbone, "freeze_all", 1.0)
        probe = one.evidence.probe_answers[backbone]
        top1 = (probe.sum() + 0.5) / (len(probe) + 1)
        spread = top1 * (1 - top1)
        head = float(np.mean([_log_odds(run) for run in runs])) if runs else float("nan")
        variance = 1 / (len(probe) * spread) + 1 / (one.test_images * spread)
        found.append((head, float(logit(top1)), float(variance)))
    return np.array(found)


def _pooled(heads: Floats) -> float:
    """Return the weight of the mean of all networks' probes that predicts heads best, by least
    squares within each network.

    Args:
        heads: (cells, networks, 3), from ``_heads``.
    """
    gains = heads[..., 0] - heads[..., 1]
    further = heads[..., 1].mean(axis=1, keepdims=True) - heads[..., 1]
    is_known = ~np.isnan(gains)
    gains = np.where(is_known, gains - np.nanmean(gains, axis=0), 0.0)
    further = np.where(is_known, further - further.mean(axis=0), 0.0)
    spread = float(np.square(further).sum())
    return float(np.clip((gains * further).sum() / spread, 0.0, 1.0)) if spread > 0 else 0.0


def _log_odds(run: FullRun) -> float:
    return float(logit((len(run.right) + 0.5) / (run.test_images + 1)))
