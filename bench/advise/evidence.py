"""Evidence from probes: which networks' features separate the classes, and at which depth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from bench.advise.advice import ProbeResult, Sign, SimilarityEvidence
from bench.advise.experience import NetworkKind
from bench.advise.images import stratified_order
from bench.advise.learning_curve import Point
from bench.advise.probes import Kind, Probe, best_probe, pixel_features, probe
from bench.advise.signs import check
from bench.advise.similarity import similarity_of
from bench.advise.trials import Laboratory
from bench.errors import Unavailable, UserError
from bench.training.depth_features import DepthFeatures

CURVE_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the training images at which a probe is fitted for the learning curve."""
CURVE_REPEATS = 3
EARLY_SHARE = 0.25
"""Learning curve and similarity are measured before the trials if both take at most this share of
the time that is left."""
LEAST_A_CLASS = 2
"""Fewest training images of a class, on average, for a point of the learning curve."""


@dataclass
class ProbeEvidence:
    """Everything that probes have shown so far."""

    results: list[ProbeResult] = field(default_factory=list)
    best: dict[str, Probe] = field(default_factory=dict)
    """Backbone → best linear probe on its pretrained features."""
    last: dict[str, Probe] = field(default_factory=dict)
    """Backbone → linear probe on its last pretrained features, those that a head would see."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Backbone → time that its features and probes took."""
    images_per_s: dict[str, float] = field(default_factory=dict)
    """Backbone → rate of inference in batches, as the pass for its features took."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Backbone → parameters with its head."""
    kind: dict[str, NetworkKind] = field(default_factory=dict)
    """Backbone → 'normalised' or 'plain'."""
    stage: dict[str, str] = field(default_factory=dict)
    """Backbone → stage of its best probe."""
    similarity: SimilarityEvidence | None = None
    signs: list[Sign] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    """Errors of the best probe over the number of training images."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Backbone → reason why it was left out."""
    unprobed: tuple[str, ...] = ()
    """Backbones for whose probes the budget had no time."""
    trouble: list[str] = field(default_factory=list)
    """Errors that ended the trials early."""
    is_checked: bool = False
    """True if signs that need a probe were looked for."""


def gather(
    laboratory: Laboratory, backbones: tuple[str, ...], head: str, evidence: ProbeEvidence,
    on_progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Look for signs that advice would mislead, then probe each backbone while the budget lasts. By
    the best probe look for further signs; measure learning curve and similarity now if that takes
    at most ``EARLY_SHARE`` of the time that is left. A network that is not available, or cannot
    take images of this size, is left out. Raise WorkerFailed if features cannot be computed.

    Args:
        head: Head of the strategies, whose parameters count.
    """
    data = laboratory.data
    evidence.signs += check.before_probes(data)
    if evidence.signs:
        return
    for number, backbone in enumerate(backbones):
        longest_s = max(evidence.seconds.values(), default=0.0)
        budget = laboratory.budget
        if number and (budget.left_s == 0 or not budget.holds(longest_s)):
            evidence.unprobed = tuple(backbones[number:])
            break
        on_progress(f"features of {backbone}")
        try:
            _probe_backbone(laboratory, backbone, head, evidence)
        except (Unavailable, UserError) as error:
            evidence.unavailable[backbone] = " ".join(str(error).splitlines())
    if not evidence.best:
        return
    check_signs(laboratory, evidence)
    if evidence.signs:
        return
    if 2 * max(evidence.seconds.values()) <= EARLY_SHARE * laboratory.budget.left_s:
        describe(laboratory, evidence, on_progress)


def check_signs(laboratory: Laboratory, evidence: ProbeEvidence) -> None:
    """Look for signs that no advice is possible by the best probe, unless that was done."""
    if not evidence.is_checked:
        best = evidence.best[best_backbone(evidence)]
        evidence.signs += check.after_probes(laboratory.data, best)
        evidence.is_checked = True


def describe(
    laboratory: Laboratory, evidence: ProbeEvidence, on_progress: Callable[[str], None]
) -> None:
    """Measure what the choice does not need, unless it was measured: the learning curve of the best
    network's features, and the similarity to its pretraining data, as far as the budget goes."""
    best, cost_s = best_backbone(evidence), max(evidence.seconds.values())
    if not evidence.curve and laboratory.budget.holds(cost_s):
        on_progress("learning curve of the features")
        _probe_sizes(laboratory, best, evidence)
    if evidence.similarity is None and laboratory.budget.holds(cost_s):
        on_progress(f"features of {best} with random weights")
        with suppress(Unavailable):  # then the similarity is not known
            _measure_similarity(laboratory, best, evidence)


def best_backbone(evidence: ProbeEvidence) -> str:
    """Return the backbone with the most accurate probe."""
    return max(evidence.best, key=lambda name: evidence.best[name].top1)


def _probe_backbone(
    laboratory: Laboratory, backbone: str, head: str, evidence: ProbeEvidence
) -> None:
    """Compute the features of a backbone, fit its probes, and add what they show."""
    began_s = laboratory.budget.spent_s
    found = laboratory.features(backbone)
    probes = _probes_at_depths(laboratory, backbone, "pretrained", found, evidence)
    stage, best = min(
        ((stage, best_probe(own)) for stage, own in probes.items()),
        key=lambda item: item[1].log_loss or 0.0,
    )
    evidence.images_per_s[backbone] = len(found.values) / max(found.seconds, 1e-3)
    evidence.parameters[backbone] = laboratory.parameters_of(backbone, head)
    evidence.kind[backbone] = laboratory.kind_of(backbone)
    evidence.seconds[backbone] = laboratory.budget.spent_s - began_s
    # Set last: a network counts as probed only if it is in both.
    last = best_probe(probes[found.depths[-1].stage])
    evidence.stage[backbone], evidence.last[backbone], evidence.best[backbone] = stage, last, best


def _probes_at_depths(
    laboratory: Laboratory, backbone: str, weights: str, features: DepthFeatures,
    evidence: ProbeEvidence,
) -> dict[str, list[Probe]]:  # fmt: skip
    """Return the probes of each stage, as many stages as there is time for, the last one at least;
    add their accuracies to the evidence."""
    data, found, longest_s = laboratory.data, dict[str, list[Probe]](), 0.0
    for depth in reversed(features.depths):  # the last stages are the best ones most often
        if found and not laboratory.budget.holds(longest_s):
            break
        began_s = laboratory.budget.spent_s
        name = f"{backbone}, {weights}, {depth.stage}"
        own = features.values[:, depth.first : depth.last]
        kinds: list[Kind] = ["linear"]
        if depth is features.depths[-1]:
            kinds.append("neighbours")
        left_s = laboratory.budget.left_s / 2
        found[depth.stage] = probe(name, own, data.pool.labels, data.fold_of, kinds, left_s)
        longest_s = max(longest_s, laboratory.budget.spent_s - began_s)
    found = dict(reversed(found.items()))
    evidence.results += [
        ProbeResult(backbone=backbone, weights=weights, stage=stage, kind=one.kind, top1=one.top1)
        for stage, own_probes in found.items() for one in own_probes
    ]  # fmt: skip
    return found


def _measure_similarity(laboratory: Laboratory, backbone: str, evidence: ProbeEvidence) -> None:
    """Measure how far pretrained features are ahead of random ones and of pixels."""
    data = laboratory.data
    untrained = laboratory.features(backbone, pretrained=False)
    probes = _probes_at_depths(laboratory, backbone, "random", untrained, evidence)
    without = best_probe([one for own in probes.values() for one in own])
    (pixels,) = probe(
        "pixels", pixel_features(data.pool.images), data.pool.labels, data.fold_of, ("linear",),
        laboratory.budget.left_s / 2,
    )  # fmt: skip
    evidence.results.append(
        ProbeResult(backbone=None, weights=None, stage=None, kind="linear", top1=pixels.top1)
    )
    evidence.similarity = similarity_of(evidence.best[backbone], without, pixels)


def _probe_sizes(laboratory: Laboratory, backbone: str, evidence: ProbeEvidence) -> None:
    """Measure the error of the best probe at several numbers of training images."""
    data = laboratory.data
    features = laboratory.features(backbone)
    depth = next(d for d in features.depths if d.stage == evidence.stage[backbone])
    values, labels = features.values[:, depth.first : depth.last], data.pool.labels
    classes = len(np.unique(labels))
    test = data.test_images(0)
    fit = data.fit_images(0)
    longest_s = 0.0
    for share in CURVE_SHARES:
        if not laboratory.budget.holds(2 * longest_s):
            break
        began_s = laboratory.budget.spent_s
        count = round(share * len(fit))
        if count < LEAST_A_CLASS * classes:
            continue
        errors = []
        for repeat in range(1 if share == 1.0 else CURVE_REPEATS):
            chosen = fit[stratified_order(labels[fit], repeat)[:count]]
            both = np.concatenate([chosen, test])
            fold_of = np.concatenate([np.full(len(chosen), -1), np.zeros(len(test), np.int64)])
            left_s = laboratory.budget.left_s / 2
            (own,) = probe("curve", values[both], labels[both], fold_of, ("linear",), left_s)
            errors.append(1.0 - own.top1)
        error = float(np.mean(errors))
        spread = np.sqrt(max(error * (1 - error), 1 / len(test)) / len(test))
        evidence.curve.append(Point(count, error, float(spread)))
        longest_s = laboratory.budget.spent_s - began_s
