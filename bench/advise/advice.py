"""The advice: what is recommended, what it costs and rests on. Its JSON is read by others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.spec.base import Frozen
from bench.spec.run import Similarity, Size

Interval = tuple[float, float]
"""Low and high end, at ``LEVEL``."""
LEVEL = 0.9
"""Level of all intervals."""


UNTRIED = "was not tried here"
"""Words that mark a sentence of ``Advice.would_change`` as untrue after a full run."""


class Strategy(Frozen):
    """A way to train, with what it is expected to cost and give."""

    policy: str
    backbone: str
    backend: str
    head: str
    learning_rate: float = Field(description="Peak rate of the head.")
    epochs: int
    expected_test_top1: float | None = Field(
        default=None, description="Expected accuracy on the test images."
    )
    interval: Interval | None = Field(default=None, description="Its interval, at 90 %.")
    shortfall: float | None = Field(
        default=None,
        description="Accuracy by which it is expected to be behind the best.",
    )
    is_contender: bool = Field(
        default=False, description="True if it cannot be distinguished from the best."
    )
    train_s: float | None = Field(default=None, description="Time of the full run on this device.")
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None
    total_parameters: int | None = None
    trainable_parameters: int | None = None
    infer_images_per_s: float | None = None
    folds: int = Field(default=0, description="Folds in which it was tried whole.")


class ProbeResult(Frozen):
    """Accuracy of a simple classifier on fixed features."""

    backbone: str | None = Field(description="Null for pixels.")
    weights: str | None = Field(description="pretrained or random; null for pixels.")
    stage: str | None
    kind: str = Field(description="linear or neighbours.")
    top1: float


class SimilarityEvidence(Frozen):
    """Similarity to the pretraining data, as measured."""

    pretrained_top1: float
    random_top1: float = Field(description="The same network with random weights.")
    pixels_top1: float
    removed_errors: float = Field(
        description="Share of the errors of the best baseline (random weights or pixels) that "
        "pretraining removes."
    )
    gain: float = Field(description="Accuracy that pretraining adds.")
    interval: Interval = Field(description="90 % interval of ``gain``.")
    errors: int | None = Field(
        None, description="Number of held-out images that the best baseline has wrong."
    )


class CurvePoint(Frozen):
    """Accuracy at a number of training images."""

    policy: str
    images: int
    top1: float
    standard_error: float


class MoreImages(Frozen):
    """The effect of more training images."""

    images: int = Field(description="Number of additional training images.")
    gain: float = Field(description="Expected gain in accuracy.")
    interval: Interval = Field(description="90 % interval of ``gain``.")
    curve: str = Field(description="Learning curve that it rests on, as in CurveForecast.")


class CurveForecast(Frozen):
    """The error by a learning curve, with the present images and with as many again."""

    curve: str = Field(description="Policy, or 'linear probe' for the head alone.")
    error: float = Field(description="Share of wrong answers with the present images.")
    error_interval: Interval
    images: int = Field(description="Number of additional training images.")
    gain: float = Field(description="Expected gain in accuracy.")
    interval: Interval = Field(description="90 % interval of ``gain``.")


class DataWanted(Frozen):
    """The number of training images that a wanted accuracy takes."""

    top1: float = Field(description="Wanted accuracy.")
    images: int | None = Field(
        description="Number of training images in all; null if no number up to 16 times the "
        "largest measured one, or the present one if that is larger, is expected to suffice."
    )


class Alternative(Frozen):
    """A strategy that was not recommended, with what it gains or loses."""

    strategy: Strategy
    gives_up: str = Field(description="Sentence on what it costs or gives up.")


class ArticleRule(Frozen):
    """The article's rule for a data set like this one."""

    case: int | None
    policy: str | None
    words: str = Field(description="Sentence that compares it with the recommendation.")


class Sign(Frozen):
    """A sign that the images cannot support advice."""

    kind: str = Field(
        description="Word for programs: labels, too_few, copies, dominant_class or shortcut."
    )
    message: str
    files: tuple[str, ...] = Field((), description="Files that show it.")


class Trained(Frozen):
    """The full run of the recommendation."""

    test_top1: float
    fit_s: float = Field(description="Time of the training.")
    predicts_alike: bool = Field(
        description="True if the saved model, loaded again by its framework, predicts the same."
    )
    saved: tuple[str, ...] = Field(default=(), description="Files of the trained model.")
    folder: str = Field(description="Folder of the project.")
    is_as_predicted: bool = Field(description="True if the accuracy lies in the interval.")


class Advice(Frozen):
    """Everything that ``advise`` says."""

    dataset: str
    train_images: int
    test_images: int
    classes: int
    case: int | None = Field(description="The article's case, 1 to 4; null if it has none.")
    similarity: Similarity | None
    size: Size | None
    size_by: Literal["trials", "images"] | None = Field(
        default=None,
        description="Whether trials of a head and of the whole network gave the size, or the "
        "number of images alone.",
    )
    recommendation: Strategy | None = Field(description="Null if there is no advice.")
    as_good: tuple[Strategy, ...] = Field(
        default=(),
        description="Strategies that cannot be distinguished from the best, cheapest first.",
    )
    expected_test_top1: float | None = None
    interval: Interval | None = None
    more_images: MoreImages | None = None
    forecasts: tuple[CurveForecast, ...] = Field(
        default=(), description="What each learning curve says, of the head and of the network."
    )
    data_wanted: DataWanted | None = Field(
        default=None,
        description="The images that --target takes; null without it, or without a curve.",
    )
    alternatives: tuple[Alternative, ...] = ()
    article_says: ArticleRule | None = None
    warnings: tuple[str, ...] = ()
    signs: tuple[Sign, ...] = Field(default=(), description="Why there is no advice.")
    spent_s: float = 0.0
    budget_s: float = 0.0
    is_settled: bool = Field(
        default=False, description="True if more time would hardly change the answer."
    )
    is_exhausted: bool = Field(
        default=False, description="True if everything was tried, so that only images would help."
    )
    would_change: tuple[str, ...] = Field(
        default=(), description="Sentences on what would change the answer."
    )
    probes: tuple[ProbeResult, ...] = ()
    similarity_evidence: SimilarityEvidence | None = None
    learning_curve: tuple[CurvePoint, ...] = ()
    trained: Trained | None = Field(
        default=None, description="The full run of --train; null without it."
    )
    tried: tuple[Strategy, ...] = Field(
        default=(), description="Everything that was tried for all epochs."
    )

    def after_training(self, trained: Trained) -> Advice:
        """Return the advice with the outcome of the full run: the recommendation is no longer
        untried, and a warning says if the accuracy is not as predicted. Its predicted time stays,
        as the other strategies are compared with it."""
        would_change = tuple(one for one in self.would_change if UNTRIED not in one)
        warnings = self.warnings
        if not trained.is_as_predicted and self.interval is not None:
            low, high = self.interval
            warnings += (
                f"The full run reached {trained.test_top1:.1%}, which is not within the predicted "
                f"{low:.1%} to {high:.1%}.",
            )
        changes = {"trained": trained, "would_change": would_change, "warnings": warnings}
        return self.model_copy(update=changes)
