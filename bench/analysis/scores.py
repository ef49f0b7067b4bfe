"""Test accuracies of one policy's runs, by seed and by image, as the statistics take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]
Kind = Literal["head", "part", "all", "scratch"]
"""How much of a network a policy trains; scratch: all of it, from random weights."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Test accuracies of one policy on one set of test images, as fractions of 1."""

    name: str
    kind: Kind
    seeds: tuple[int, ...]
    by_seed: Floats
    """(S,) float64 accuracy of each seed."""
    images: int
    """Number of test images, I."""
    by_image: Floats | None = None
    """(I,) float64 mean over the seeds of each image's answer, 1 or 0; None: not known."""
    rest: float | None = None
    """Mean over the images of the variance over seeds of an image's answer; None: not known."""
    groups: npt.NDArray[np.int64] | None = None
    """(I,) number of the group of each image, from 0, where images belong together."""

    @classmethod
    def of_answers(
        cls, name: str, kind: Kind, right: Floats, seeds: Sequence[int] | None = None,
        groups: npt.NDArray[np.int64] | None = None,
    ) -> Scores:  # fmt: skip
        """Return the scores of answers (S, I): 1 for a right one and 0 for a wrong one, or a mean
        of several. Raise ValueError if there are none."""
        if right.size == 0:
            raise ValueError("no answers")
        x = right.astype(np.float64)
        by_image = x.mean(axis=0)
        squares = float(np.square(x - by_image).sum())
        rest = squares / (len(x) - 1) / x.shape[1] if len(x) > 1 else 0.0
        numbers = tuple(range(len(x))) if seeds is None else tuple(seeds)
        return cls(name, kind, numbers, x.mean(axis=1), x.shape[1], by_image, rest, groups)

    @cached_property
    def mean(self) -> float:
        """Accuracy, averaged over the seeds."""
        return float(self.by_seed.mean())

    @cached_property
    def slope(self) -> float:
        """Change of the accuracy p with its log odds, p (1 − p); never 0, as half an image is added
        to both sides."""
        p = (self.mean * self.images + 0.5) / (self.images + 1.0)
        return p * (1.0 - p)

    @cached_property
    def seed_variance(self) -> float:
        """Variance over the seeds of their accuracies; 0 for one seed."""
        return float(self.by_seed.var(ddof=1)) if len(self.seeds) > 1 else 0.0


def variances_of_differences(policies: Sequence[Scores]) -> Floats:
    """Return the (K, K) variance over the seeds of the difference of each two policies, which have
    the same seeds; 0 for one seed."""
    x = np.stack([scores.by_seed for scores in policies])
    x = x - x.mean(axis=1, keepdims=True)
    covariance = x @ x.T / max(x.shape[1] - 1, 1)
    own = np.diag(covariance)
    return np.asarray(np.maximum(own[:, None] + own[None, :] - 2.0 * covariance, 0.0))
