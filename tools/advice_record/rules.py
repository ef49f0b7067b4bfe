"""Rules that choose a strategy without the adviser, each with what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.advise.wishes import POLICIES
from bench.catalog.cases import CASES
from bench.catalog.policies import PRESCRIBED
from bench.spec.run import Size
from tools.advice_record.cells import SIZES, Cell
from tools.advice_record.oracle import BACKBONES, FullRun, tuned, untuned

LARGEST = BACKBONES[-1]
SIZE_WORDS: Mapping[int, Size] = {SIZES[0]: "small", SIZES[1]: "medium", SIZES[2]: "large"}
"""Training images → the article's word, scaled down as for the other embedded sets."""
HALVING = ((2, 0.5), (5, 0.5))
"""(epochs, share kept) of successive halving, on the validation curves of whole runs."""


@dataclass(frozen=True)
class Evidence:
    """The cell, probes and LogME scores that a rule may look at besides full runs."""

    cell: Cell
    probe_answers: Mapping[str, npt.NDArray[np.float64]]
    """Network → (N,) 1 for each held-out image that the linear probe of its last features finds;
    empty if the cell was refused before any probe."""
    probe_top1: Mapping[str, float]
    """Network → accuracy of its best linear probe of all stages."""
    log_evidence: Mapping[str, float]
    """Network → LogME of its last features."""


@dataclass(frozen=True)
class Pick:
    """The run that a rule chooses."""

    run: FullRun
    cost_s: float
    """Time of all trainings that it needs, the chosen one included."""


Rule = Callable[[Sequence[FullRun], Evidence], Pick | None]


def _always(policy: str, backbone: str = LARGEST) -> Rule:
    """Return the rule that takes a policy at its default rate."""

    def pick(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
        run = untuned(runs, backbone, policy)
        return None if run is None else Pick(run, run.fit_s)

    return pick


def _article(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
    """Take the policy that the article prescribes for the family's similarity and the size; where
    it has no rule, the one for large and dissimilar data."""
    size = SIZE_WORDS[evidence.cell.train_images]
    similarity = "similar" if evidence.cell.family.name == "photographs" else "not_similar"
    case = next((n for n, own in CASES.items() if own == (size, similarity)), 4)
    return _always(PRESCRIBED[case])(runs, evidence)


def _by_score(scores: Callable[[Evidence], Mapping[str, float]]) -> Rule:
    """Return the rule that fine-tunes all of the network with the highest score."""

    def pick(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
        own = scores(evidence)
        if not own:  # the cell was refused before any probe
            return None
        return _always("fine_tune_all", max(own, key=lambda name: own[name]))(runs, evidence)

    return pick


def _two_picks(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
    """Fine-tune the network with the best probe and the largest one, and keep the better by
    validation (Renggli et al. 2022, "Which Model to Transfer? Finding the Needle in the Growing
    Haystack")."""
    if not evidence.probe_top1:
        return None
    best = max(evidence.probe_top1, key=lambda name: evidence.probe_top1[name])
    found = [untuned(runs, name, "fine_tune_all") for name in dict.fromkeys((best, LARGEST))]
    whole = [run for run in found if run is not None]
    if not whole:
        return None
    return Pick(max(whole, key=lambda run: run.val_top1), sum(run.fit_s for run in whole))


def _halving(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
    """Halve all policies and networks at their default rates by validation after some epochs; who
    falls out costs the share of its epochs."""
    left = [
        run
        for name in BACKBONES
        for policy in POLICIES
        if (run := untuned(runs, name, policy)) is not None
    ]
    cost_s, before = 0.0, 0
    for epochs, share in HALVING:
        cost_s += sum(r.fit_s * (epochs - before) / len(r.val_top1_by_epoch) for r in left)
        left.sort(key=lambda r: -r.val_top1_by_epoch[min(epochs, len(r.val_top1_by_epoch)) - 1])
        left, before = left[: max(1, round(share * len(left)))], epochs
    cost_s += sum(r.fit_s * (1 - before / len(r.val_top1_by_epoch)) for r in left)
    return Pick(max(left, key=lambda r: r.val_top1), cost_s) if left else None


def _tune_everything(runs: Sequence[FullRun], evidence: Evidence) -> Pick | None:
    """Run everything at every rate and take the best by validation: the oracle without its look at
    the test."""
    whole = [tuned(runs, name, policy) for name in BACKBONES for policy in POLICIES]
    found = [run for run in whole if run is not None]
    if not found:
        return None
    return Pick(max(found, key=lambda run: run.val_top1), sum(run.fit_s for run in runs))


RULES: dict[str, Rule] = {
    "always freeze_all": _always("freeze_all"),
    "always fine_tune_all": _always("fine_tune_all"),
    "always linear_probe_then_fine_tune": _always("linear_probe_then_fine_tune"),
    "always retrain_all": _always("retrain_all"),
    "always from_scratch": _always("from_scratch"),
    "always the smallest network, fine_tune_all": _always("fine_tune_all", BACKBONES[0]),
    "the article's rules": _article,
    "LogME, then fine_tune_all": _by_score(lambda evidence: evidence.log_evidence),
    "best probe, then fine_tune_all": _by_score(lambda evidence: evidence.probe_top1),
    "two picks (Renggli)": _two_picks,
    "successive halving": _halving,
    "everything, by validation": _tune_everything,
}
"""Name → rule. Rules that name no network use the largest."""


def chance(runs: Sequence[FullRun]) -> tuple[float, float]:
    """Return the mean test accuracy of all policies and networks at their default rates, and the
    mean cost."""
    found = [untuned(runs, name, policy) for name in BACKBONES for policy in POLICIES]
    whole = [run for run in found if run is not None]
    return float(np.mean([r.test_top1 for r in whole])), float(np.mean([r.fit_s for r in whole]))


def log_evidence(features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Return LogME: the log evidence of linear models of features (N, C) for each class, a mean
    over classes and images (You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for
    Transfer Learning", algorithm 1)."""
    count = len(features)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    sigma = np.square(s)
    total = 0.0
    classes = np.unique(labels)
    for label in classes:
        y = (labels == label).astype(float)
        projected = u.T @ y
        outside = float(y @ y - projected @ projected)
        alpha = beta = 1.0
        for _ in range(20):
            share = sigma / (sigma + alpha / beta)
            gamma = float(share.sum())
            residual = outside + float(np.square((1 - share) * projected).sum())
            norm = float((sigma * np.square(projected) / np.square(sigma + alpha / beta)).sum())
            alpha, beta = gamma / max(norm, 1e-12), (count - gamma) / max(residual, 1e-12)
        share = sigma / (sigma + alpha / beta)
        residual = outside + float(np.square((1 - share) * projected).sum())
        norm = float((sigma * np.square(projected) / np.square(sigma + alpha / beta)).sum())
        dimension = features.shape[1]
        total += 0.5 * (
            dimension * np.log(alpha) + count * np.log(beta) - beta * residual - alpha * norm
            - float(np.log(alpha + beta * sigma).sum())
            - (dimension - len(sigma)) * np.log(alpha) - count * np.log(2 * np.pi)
        ) / count  # fmt: skip
    return total / len(classes)
