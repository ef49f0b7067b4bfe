"""Similarity to the pretraining data, measured: what pretrained features add on these images."""

from __future__ import annotations

import numpy as np
from scipy import stats

from bench.advise.advice import LEVEL, SimilarityEvidence
from bench.advise.probes import Probe
from bench.spec.run import Similarity

LEAST_REMOVED = 0.3
"""Share of errors that pretraining must remove for the images to count as similar. Among the
embedded sets it removes 60 % on photographs and none on digits."""


LEAST_ERRORS = 5
"""Fewest errors of which pretraining could remove some."""


def similarity_of(pretrained: Probe, untrained: Probe, pixels: Probe) -> SimilarityEvidence:
    """Compare the best probe of a pretrained network with those of the same network with random
    weights and of pixels, on the same held-out images."""
    other = max(untrained, pixels, key=lambda probe: probe.top1)
    difference = pretrained.right.astype(float) - other.right.astype(float)
    gain = float(difference.mean())
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    half = z * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    return SimilarityEvidence(
        pretrained_top1=pretrained.top1,
        random_top1=untrained.top1,
        pixels_top1=pixels.top1,
        removed_errors=gain / max(1.0 - other.top1, 1.0 / len(difference)),
        gain=gain,
        interval=(gain - half, gain + half),
        errors=int((~other.right).sum()),
    )


def similarity_word(evidence: SimilarityEvidence) -> Similarity | None:
    """Return 'similar' or 'not_similar', the words of the article's cases; None if the baselines
    have so few errors that pretraining can hardly remove any."""
    if evidence.errors is not None and evidence.errors < LEAST_ERRORS:
        return None
    is_similar = evidence.removed_errors >= LEAST_REMOVED and evidence.interval[0] > 0
    return "similar" if is_similar else "not_similar"
