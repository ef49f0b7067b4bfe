"""Forecast by learning curves what more images would bring."""

from __future__ import annotations

import math

import numpy as np

from bench.advise.advice import CurveForecast, DataWanted, MoreImages, Strategy
from bench.advise.candidate import Trial
from bench.advise.findings import Findings
from bench.advise.learning_curve import LearningCurve, Point, crossing, fit_curve
from bench.catalog.policies import POLICIES
from bench.data.model import Dataset
from bench.spec.run import Size

PROBE = "linear probe"
"""Name of the learning curve of a linear probe of the best stage's features, which stands for
training a head."""


def points_of(found: Findings) -> dict[str, list[Point]]:
    """Return the learning curves: of the probe's features, and of training the whole network."""
    points: dict[str, list[Point]] = {}
    if found.known.evidence.curve:
        points[PROBE] = found.known.evidence.curve
    laboratory = found.known.laboratory
    partial = [t for t in laboratory.trials if t.plan.train_images is not None and t.is_ok]
    if partial:
        one = partial[0].plan.candidate
        same = [t for t in laboratory.trials
                if t.plan.candidate == one and t.plan.fold == 0 and t.plan.epochs == one.epochs
                and t.plan.backend == found.known.backend and t.is_ok]  # fmt: skip
        test = len(laboratory.data.test_images(0))
        points[one.policy] = [
            Point(t.train_images, 1.0 - (t.result.test_top1 or 0.0), _standard_error(t, test))
            for t in sorted(same, key=lambda t: t.train_images)
        ]
    return points


def _standard_error(trial: Trial, images: int) -> float:
    top1 = trial.result.test_top1 or 0.0
    return math.sqrt(max(top1 * (1 - top1), 1 / images) / images)


def curves_of(found: Findings) -> dict[str, LearningCurve]:
    """Return the fitted learning curves by their names, of those with two sizes or more."""
    random, known = np.random.default_rng(0), found.known.experience
    return {
        policy: fit_curve(
            points, random, known.whole_slope if _is_whole(policy) else known.probe_slope
        )
        for policy, points in points_of(found).items()
        if len({point.images for point in points}) > 1
    }


def more_images(
    curves: dict[str, LearningCurve], chosen: Strategy, dataset: Dataset
) -> MoreImages | None:
    """Return what as many images again would bring, by the curve of the recommended policy, or of
    the one most like it."""
    name = _curve_of(curves, chosen)
    if name is None:
        return None
    images = dataset.train_images
    gain = curves[name].gain(images, images)
    return MoreImages(images=images, gain=gain.value, interval=(gain.low, gain.high), curve=name)


def forecasts(curves: dict[str, LearningCurve], images: int) -> tuple[CurveForecast, ...]:
    """Return the error by each curve now, and what as many images again would bring."""
    found = []
    for name, curve in curves.items():
        now, gain = curve.error(images), curve.gain(images, images)
        found.append(
            CurveForecast(
                curve=name, error=now.value, error_interval=(now.low, now.high), images=images,
                gain=gain.value, interval=(gain.low, gain.high),
            )
        )  # fmt: skip
    return tuple(found)


def _curve_of(curves: dict[str, LearningCurve], chosen: Strategy) -> str | None:
    """Return the name of the curve of a strategy's policy, or of the one most like it; None without
    any."""
    is_whole = POLICIES[chosen.policy].boundary == "all"
    names = [name for name in curves if _is_whole(name) == is_whole] or list(curves)
    return names[0] if names else None


def _is_whole(curve: str) -> bool:
    """Return True if a learning curve is that of training the whole network."""
    return curve != PROBE and POLICIES[curve].boundary == "all"


def data_wanted(
    curves: dict[str, LearningCurve], chosen: Strategy, target_top1: float | None, images: int
) -> DataWanted | None:
    """Return the number of images for an accuracy, by the same curve, moved so that it goes through
    the expected accuracy with the ``images`` that were looked at."""
    name = _curve_of(curves, chosen)
    if target_top1 is None or name is None:
        return None
    curve = curves[name]
    expected = 1.0 - (chosen.expected_test_top1 or 0.0)
    wanted = curve.images_for(curve.value(images) + (1.0 - target_top1) - expected, images)
    return DataWanted(top1=target_top1, images=None if wanted is None else math.ceil(wanted))


def crossing_words(
    curves: dict[str, LearningCurve], images: int, size: Size, chosen: Strategy
) -> list[str]:
    """Return a sentence on the size at which training the whole network overtakes a head."""
    whole = [name for name in curves if _is_whole(name)]
    if whole and PROBE in curves:
        at = crossing(curves[PROBE], curves[whole[0]])
        is_whole = POLICIES[chosen.policy].boundary == "all"
        if at is not None and at > images and not is_whole:
            return [f"From some {_rounded(at):,} training images on, {whole[0]} may be ahead."]
        if at is not None and at <= images and is_whole:
            return [
                f"With fewer than some {_rounded(at):,} training images, a head alone is as good."
            ]
    if size == "small" and POLICIES[chosen.policy].boundary != "all":
        return ["With more images, training more of the network may pay."]
    return []


def _rounded(images: float) -> int:
    """Return a number of images to two digits."""
    return int(float(f"{images:.2g}"))
