"""A candidate: what could be recommended, and what a trial of it showed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.catalog.policies import default_rate
from bench.spec.result import RunResult
from bench.spec.run import OptimizerName

OPTIMIZER: OptimizerName = "adamw"


@dataclass(frozen=True)
class Candidate:
    """A strategy with everything that a training needs."""

    backbone: str
    policy: str
    head: str
    learning_rate: float
    """Peak rate of the head."""
    epochs: int

    def __str__(self) -> str:
        return f"{self.policy} of {self.backbone} at {self.learning_rate:g}"

    @property
    def rate_factor(self) -> float:
        """Learning rate over the policy's default."""
        return self.learning_rate / default_rate(self.policy, OPTIMIZER)

    def at_rate(self, factor: float) -> Candidate:
        """Return the candidate at a multiple of its policy's default rate."""
        rate = default_rate(self.policy, OPTIMIZER) * factor
        return replace(self, learning_rate=float(f"{rate:.6g}"))


def candidate(backbone: str, policy: str, head: str, epochs: int) -> Candidate:
    """Return a candidate at its policy's default learning rate."""
    return Candidate(backbone, policy, head, default_rate(policy, OPTIMIZER), epochs)


@dataclass(frozen=True)
class TrialPlan:
    """A training that tries a candidate on a part of the images."""

    candidate: Candidate
    backend: str
    fold: int
    epochs: int
    train_images: int | None = None
    """Number of training images; None: all of the fold."""

    @property
    def is_whole(self) -> bool:
        """True if it trains on all images of the fold, for all epochs."""
        return self.train_images is None and self.epochs == self.candidate.epochs


@dataclass(frozen=True)
class Trial:
    """A trial that ended, well or not."""

    plan: TrialPlan
    result: RunResult
    seconds: float
    """Time that it took in this call; 0 if an earlier call did it."""
    train_images: int
    """Number of images that it trained on."""

    @property
    def is_ok(self) -> bool:
        """True if it has an accuracy."""
        return self.result.status == "ok" and self.result.test_answers is not None
