"""Learn the adviser's experience from full runs: what each policy and rate gains over a head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from bench.advise.experience import Arm, Experience, KindExperience, NetworkKind, TrainedPart
from bench.advise.knowledge import RATE_FACTORS
from bench.advise.wishes import POLICIES
from bench.errors import UserError
from tools.advice_record.measured import Measured
from tools.advice_record.oracle import BACKBONES, KINDS, SEED_POLICIES, FullRun

SHRUNK = 0.1
"""Weight of the diagonal in the covariance, as so few data sets show it only roughly."""
LEAST_HEAD_VARIANCE = 0.02
LEAST_SEED_DEVIATION = 0.05
"""Least standard deviation over seeds, in log odds."""
LEAST_GAIN = -1.0
"""Worse gains count as this one: how bad a failure is says nothing about success."""
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
    gains = np.array([[_gains(one, name, arms) for name in BACKBONES] for one in used])
    heads = np.array([_heads(one) for one in clean])
    pooled = _pooled(heads)
    probes = heads[..., 1]
    level = (1 - pooled) * probes + pooled * probes.mean(axis=1, keepdims=True)
    over = np.stack([heads[..., 0] - level, heads[..., 2]], axis=-1)
    sizes = np.log([one.images_per_class for one in used])
    further = (sizes - sizes.mean())[:, None, None]
    kinds: dict[NetworkKind, KindExperience] = {}
    centred = np.empty_like(gains)
    for kind in sorted(set(KINDS.values())):
        own = [number for number, name in enumerate(BACKBONES) if KINDS[name] == kind]
        kinds[kind], centred[:, own] = _of_kind(
            gains[:, own], further, over[:, own], _seed_deviations(used, kind)
        )
    shared = [
        float((a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum()))
        for a, b in combinations(centred.transpose(1, 0, 2), 2)
    ]
    return Experience(
        arms=tuple(arms), kinds=kinds, images_per_class=float(np.exp(sizes.mean())),
        least_images_per_class=float(np.exp(sizes.min())),
        most_images_per_class=float(np.exp(sizes.max())),
        pooled=pooled,
        shared=min(max(float(np.mean(shared)), 0.0), 0.99),
        source=f"{sum(len(one.runs) for one in used):,} full runs of {' and '.join(BACKBONES)} on "
        f"{len(used)} small data sets of {len({one.family for one in used})} kinds",
    )  # fmt: skip


def _of_kind(
    gains: Floats, further: Floats, heads: Floats, seeds: dict[TrainedPart, float]
) -> tuple[KindExperience, Floats]:
    """Return the experience with networks of a kind, and the gains without what it explains.

    Args:
        gains: (cells, networks, arms).
        further: (cells, 1, 1) logarithm of the images per class, over their mean.
        heads: (cells, networks, 2) gain of a head over the level of the probes, and its variance.
    """
    mean = gains.mean(axis=(0, 1))
    # With one size alone the slope is not known, and not taken for steep.
    spread = max(float(np.square(further).sum()) * gains.shape[1], 1.0)
    slope = (gains * further).sum(axis=(0, 1)) / spread
    centred: Floats = gains - mean - slope * further
    flat = centred.reshape(-1, gains.shape[2])
    covariance = flat.T @ flat / len(flat)
    covariance = (1 - SHRUNK) * covariance + SHRUNK * np.diag(np.diag(covariance))
    head_gain, sampling = heads[..., 0], heads[..., 1]
    variance = float(np.nanvar(head_gain) - np.nanmean(sampling))
    return KindExperience(
        gain=tuple(map(float, mean)),
        covariance=tuple(map(tuple, covariance.tolist())),
        slope=tuple(map(float, slope)),
        slope_variance=tuple(map(float, flat.var(axis=0) / spread)),
        head_gain=float(np.nanmean(head_gain)),
        head_variance=max(variance, LEAST_HEAD_VARIANCE),
        seed_deviation=seeds,
    ), centred


def _seed_deviations(found: Sequence[Measured], kind: NetworkKind) -> dict[TrainedPart, float]:
    """Return the standard deviation over seeds by what is trained, in log odds: of the differences
    between two seeds on the same test images, without what so few images add to them."""
    deviations: dict[TrainedPart, float] = {}
    for part, policy in SEED_POLICIES.items():
        squares = [
            _seed_square(first, second)
            for one in found
            for second in one.second_seed
            if KINDS[second.backbone] == kind and second.policy == policy
            and (first := one.run(second.backbone, policy, 1.0)) is not None
        ]  # fmt: skip
        variance = float(np.mean(squares)) / 2 if squares else 0.0
        deviations[part] = float(np.sqrt(max(variance, LEAST_SEED_DEVIATION**2)))
    return deviations


def _seed_square(first: FullRun, second: FullRun) -> float:
    """Return the squared difference of two runs in log odds, minus its expectation if each image
    that one of them alone has right were a coin toss."""
    one, other = first.answers(), second.answers()
    top1 = (one.mean() + other.mean()) / 2
    slope = 1 / max(top1 * (1 - top1), 1 / len(one))  # of log odds over accuracy
    by_chance = float((one != other).mean()) / len(one) * slope**2
    return float((_log_odds(second) - _log_odds(first)) ** 2 - by_chance)


def _gains(one: Measured, backbone: str, arms: Sequence[Arm]) -> Floats:
    """Return the gain of each arm over the head, in log odds; a run that diverged counts as the
    worst of the others."""
    runs = {arm: one.run(backbone, arm.policy, arm.rate_factor) for arm in arms}
    known = {arm: _log_odds(run) for arm, run in runs.items() if run is not None}
    worst = min(known.values())
    head = known.get(Arm(policy="freeze_all", rate_factor=1.0), worst)
    return np.maximum([known.get(arm, worst) - head for arm in arms], LEAST_GAIN)


def _heads(one: Measured) -> Floats:
    """Return for each network (N, 3): log odds of the trained head and of the linear probe, and the
    variance of their difference from the numbers of images; NaN where the head diverged."""
    found = []
    for backbone in BACKBONES:
        run = one.run(backbone, "freeze_all", 1.0)
        probe = one.evidence.probe_answers[backbone]
        top1 = (probe.sum() + 0.5) / (len(probe) + 1)
        spread = top1 * (1 - top1)
        head = float("nan") if run is None else _log_odds(run)
        images = len(probe) if run is None else run.test_images
        variance = 1 / (len(probe) * spread) + 1 / (images * spread)
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
