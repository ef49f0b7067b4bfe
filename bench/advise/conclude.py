"""From evidence to advice: what is recommended, what it costs, what else would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.advise.advice import (
    LEVEL,
    UNTRIED,
    Advice,
    Alternative,
    ArticleRule,
    CurveForecast,
    CurvePoint,
    DataWanted,
    MoreImages,
    Sign,
    Strategy,
)
from bench.advise.belief import TIE_LEVEL, Belief
from bench.advise.candidate import Candidate, Trial
from bench.advise.evidence import best_backbone
from bench.advise.knowledge import Knowledge, cost_of
from bench.advise.learning_curve import LearningCurve, Point, crossing, fit_curve
from bench.advise.schedule import Schedule
from bench.advise.similarity import similarity_word
from bench.advise.wishes import check_any_meets, meets, unchecked
from bench.catalog.cases import CASES, SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES, PRESCRIBED
from bench.data.model import Dataset
from bench.errors import number_of
from bench.spec.run import Similarity, Size

FAILURES = {"oom": "ran out of memory", "diverged": "diverged", "crashed": "crashed"}
"""Status of a trial that failed → words."""
NO_CURVE = (
    "--target was not answered: no learning curve could be measured, as there was too little time "
    "or there were too few images."
)
PROBE = "linear probe"
"""Name of the learning curve of a linear probe of the best stage's features, which stands for
training a head."""
ALTERNATIVES = 2
SAME_TIME = 0.05
"""Difference of two training times that is not worth a number."""


@dataclass(frozen=True)
class Findings:
    """Everything that was measured for advice."""

    dataset: Dataset
    known: Knowledge
    schedule: Schedule | None
    """None if the budget held probes only."""
    budget_s: float
    spent_s: float
    warnings: tuple[str, ...] = ()

    @property
    def seen_images(self) -> int:
        """Number of training images that advice looked at, of which accuracies are expected."""
        return self.known.laboratory.data.dataset.train_images

    @property
    def is_exhausted(self) -> bool:
        """True if everything was tried, with every network."""
        schedule = self.schedule
        return schedule is not None and schedule.is_exhausted and not self.known.evidence.unprobed


def conclude(found: Findings) -> Advice:
    """Return the advice that the findings support, whatever was measured so far.

    Raises:
        UserError: No strategy meets the constraints.
    """
    evidence, wishes = found.known.evidence, found.known.wishes
    similarity = None if evidence.similarity is None else similarity_word(evidence.similarity)
    base = Advice(
        dataset=found.dataset.label, train_images=found.dataset.train_images,
        test_images=found.dataset.test_images, classes=len(found.dataset.classes),
        case=None, similarity=similarity, size=None, recommendation=None,
        warnings=found.warnings, spent_s=found.spent_s, budget_s=found.budget_s,
        probes=tuple(evidence.results), similarity_evidence=evidence.similarity,
        signs=tuple(
            Sign(kind=one.kind, message=one.message, files=one.files) for one in evidence.signs
        ),
    )  # fmt: skip
    if evidence.signs or not evidence.best:
        return base
    allowed = found.known.allowed()
    if not allowed:
        every = [found.known.strategy(one) for one in found.known.candidates()]
        checked = [one for one in every if not unchecked(one, wishes)]
        check_any_meets(checked or every, wishes, _so_far(found))
        return base.model_copy(update={"warnings": (*found.warnings, *_failures(found))})
    belief = found.known.belief().among(allowed)
    considered = _strategies(found, belief)
    chosen = found.known.recommended(considered)
    as_good = _as_good(considered, chosen)
    tried = [one for one in considered if one.folds]
    measured = _measured_size(found, belief)
    size = measured or size_of(found.dataset.train_images, found.dataset.size_bounds or SIZE_BOUNDS)
    case = _case_of(size, similarity)
    curves = _curves(found)
    return base.model_copy(
        update={
            "case": case,
            "size": size,
            "size_by": "images" if measured is None else "trials",
            "warnings": (
                *found.warnings, *_failures(found), *_unchecked(chosen, found),
                *([NO_CURVE] if wishes.target_top1 is not None and not curves else []),
            ),
            "recommendation": chosen,
            "as_good": as_good,
            "expected_test_top1": chosen.expected_test_top1,
            "interval": chosen.interval,
            "more_images": _more_images(curves, chosen, found.dataset),
            "forecasts": _forecasts(curves, found.dataset.train_images),
            "data_wanted": _data_wanted(curves, chosen, wishes.target_top1, found.seen_images),
            "alternatives": _alternatives(chosen, considered),
            "article_says": _article(case, size, similarity, chosen, considered),
            "is_settled": found.schedule is not None and found.schedule.is_settled,
            "is_exhausted": found.is_exhausted,
            "would_change": _would_change(found, chosen, as_good, size, curves),
            "learning_curve": tuple(
                CurvePoint(policy=policy, images=point.images, top1=1.0 - point.error,
                           standard_error=point.standard_error)
                for policy, points in _points(found).items() for point in points
            ),
            "tried": tuple(sorted(tried, key=lambda one: -(one.expected_test_top1 or 0.0))),
        }
    )  # fmt: skip


def _so_far(found: Findings) -> str:
    """Return in a sentence what was measured: the best probe, and the number of trials."""
    evidence, trials = found.known.evidence, len(found.known.laboratory.trials)
    best = best_backbone(evidence)
    done = f" and {number_of(trials, 'trial')}" if trials else ""
    return (
        f"Found until then, by probes{done}: features of {best} give "
        f"{evidence.best[best].top1:.1%} of the held-out images their class."
    )


def _failures(found: Findings) -> list[str]:
    """Return sentences on candidates that are left out because their training failed."""
    return [
        f"{one.policy} of {one.backbone} at learning rate {one.learning_rate:.3g} was left out: "
        f"its trial {FAILURES.get(status, 'failed')}."
        for one, status in found.known.failures().items()
    ]


def _unchecked(chosen: Strategy, found: Findings) -> list[str]:
    """Return sentences on constraints that could not be checked."""
    return [
        f"{option} was not checked: the figure of {chosen.policy} of {chosen.backbone} is not "
        "known without a trial. A larger --budget would check it."
        for option in unchecked(chosen, found.known.wishes)
    ]


def _as_good(allowed: Sequence[Strategy], chosen: Strategy) -> tuple[Strategy, ...]:
    """Return the tried strategies that may be as good as the best, and the recommended one, the
    cheapest first."""
    found = [one for one in allowed if one == chosen or (one.is_contender and one.folds)]
    return tuple(sorted(found, key=cost_of))


def _strategies(found: Findings, belief: Belief) -> list[Strategy]:
    """Return candidates with what is expected of them, and with the figures of their trials; those
    that were timed in another backend are there once more."""
    known, strategies = found.known, []
    expected, shortfall = belief.expected, belief.shortfall
    tried = [one for one in belief.candidates if known.whole_trials(one)]
    # Ties are among those that were tried: so many others might be better by chance.
    compared = belief.among(tried) if tried else belief
    near = dict(zip(compared.candidates, compared.chance_within(known.wishes.margin), strict=True))
    for index, one in enumerate(belief.candidates):
        believed = {
            "expected_test_top1": float(expected[index]),
            "interval": belief.interval(one, found.dataset.test_images),
            "shortfall": float(shortfall[index]),
            "is_contender": bool(near.get(one, 0.0) >= TIE_LEVEL),
        }  # fmt: skip
        for backend in known.wishes.backends:
            strategy = known.strategy(one, backend)
            is_wanted = strategy.folds > 0 and meets(strategy, known.wishes)
            if is_wanted or backend == known.backend:
                strategies.append(strategy.model_copy(update=believed))
    return strategies


def _measured_size(found: Findings, belief: Belief) -> Size | None:
    """Return 'large' if training the whole network is better than a head with 90 % certainty,
    'small' if its gain is surely below the margin or not positive on average, else 'medium'. None
    if not both were tried; or if a part of the images says that they are not large, as all of them
    may be."""
    schedule, expected = found.schedule, dict(zip(belief.candidates, belief.expected, strict=True))
    tried = [] if schedule is None else [t for t in schedule.tried() if t in belief.candidates]
    best: dict[str, Candidate] = {}
    for one in sorted(tried, key=lambda one: expected[one]):
        best[POLICIES[one.policy].boundary] = one
    if "head" not in best or "all" not in best:
        return None
    whole, head = (belief.draws[:, belief.candidates.index(best[b])] for b in ("all", "head"))
    low, high = np.quantile(whole - head, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low > 0:
        return "large"
    if found.seen_images < found.dataset.train_images:
        return None
    gain = float((whole - head).mean())
    return "small" if high < found.known.wishes.margin or gain <= 0 else "medium"


def _case_of(size: Size, similarity: Similarity | None) -> int | None:
    for number, own in CASES.items():
        if own == (size, similarity):
            return number
    return None


def _points(found: Findings) -> dict[str, list[Point]]:
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


def _curves(found: Findings) -> dict[str, LearningCurve]:
    random, known = np.random.default_rng(0), found.known.experience
    return {
        policy: fit_curve(
            points, random, known.whole_slope if _is_whole(policy) else known.probe_slope
        )
        for policy, points in _points(found).items()
        if len({point.images for point in points}) > 1
    }


def _more_images(
    curves: dict[str, LearningCurve], chosen: Strategy, dataset: Dataset
) -> MoreImages | None:
    """Return what as many images again would bring, by the curve of the recommended policy, or of
    the one most like it."""
    curve = _curve_of(curves, chosen)
    if curve is None:
        return None
    gain = curve.gain(dataset.train_images, dataset.train_images)
    return MoreImages(images=dataset.train_images, gain=gain.value, interval=(gain.low, gain.high))


def _forecasts(curves: dict[str, LearningCurve], images: int) -> tuple[CurveForecast, ...]:
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


def _curve_of(curves: dict[str, LearningCurve], chosen: Strategy) -> LearningCurve | None:
    """Return the curve of a strategy's policy, or of the one most like it; None without any."""
    is_whole = POLICIES[chosen.policy].boundary == "all"
    names = [name for name in curves if _is_whole(name) == is_whole] or list(curves)
    return curves[names[0]] if names else None


def _is_whole(curve: str) -> bool:
    """Return True if a learning curve is that of training the whole network."""
    return curve != PROBE and POLICIES[curve].boundary == "all"


def _data_wanted(
    curves: dict[str, LearningCurve], chosen: Strategy, target_top1: float | None, images: int
) -> DataWanted | None:
    """Return the number of images for an accuracy, by the same curve, moved so that it goes through
    the expected accuracy with the ``images`` that were looked at."""
    curve = _curve_of(curves, chosen)
    if target_top1 is None or curve is None:
        return None
    expected = 1.0 - (chosen.expected_test_top1 or 0.0)
    wanted = curve.images_for(curve.value(images) + (1.0 - target_top1) - expected, images)
    return DataWanted(top1=target_top1, images=None if wanted is None else math.ceil(wanted))


def _alternatives(chosen: Strategy, allowed: Sequence[Strategy]) -> tuple[Alternative, ...]:
    """Return the next best strategies, each of another policy or network, with what it costs or
    gives up."""
    best: dict[tuple[str, str], Strategy] = {}
    for one in sorted(allowed, key=lambda one: (-(one.expected_test_top1 or 0.0), cost_of(one))):
        best.setdefault((one.policy, one.backbone), one)
    best.pop((chosen.policy, chosen.backbone))
    others = list(best.values())[:ALTERNATIVES]
    return tuple(Alternative(strategy=one, gives_up=_compared(one, chosen)) for one in others)


def _compared(one: Strategy, chosen: Strategy) -> str:
    points = 100 * ((one.expected_test_top1 or 0.0) - (chosen.expected_test_top1 or 0.0))
    accuracy = f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} are expected"
    if not one.train_s or not chosen.train_s:
        return f"{accuracy}."
    ratio = one.train_s / chosen.train_s
    if abs(ratio - 1) < SAME_TIME:
        return f"{accuracy}; training takes as long."
    return f"{accuracy}; training takes {ratio:.2g} times as long."


def _crossing_words(
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


def _article(
    case: int | None, size: Size, similarity: Similarity | None, chosen: Strategy,
    allowed: Sequence[Strategy],
) -> ArticleRule:  # fmt: skip
    """Compare the article's rule with the recommendation."""
    if similarity is None:
        words = "The similarity, on which the article's rule depends, was not measured."
        return ArticleRule(case=None, policy=None, words=words)
    what = f"{size} and {'similar' if similarity == 'similar' else 'not similar'}"
    if case is None:
        return ArticleRule(
            case=None, policy=None, words=f"The article has no rule for data that are {what}."
        )
    policy = PRESCRIBED[case]
    if policy == chosen.policy:
        words = f"The article recommends {policy}, too, for data that are {what} (case {case})."
        return ArticleRule(case=case, policy=policy, words=words)
    own = [one for one in allowed if one.policy == policy]
    text = f"The article recommends {policy} for data that are {what} (case {case})."
    if own:
        best = max(own, key=lambda one: one.expected_test_top1 or 0.0)
        text += f" Here {_compared(best, chosen)}"
    return ArticleRule(case=case, policy=policy, words=text)


def _would_change(
    found: Findings, chosen: Strategy, as_good: Sequence[Strategy], size: Size,
    curves: dict[str, LearningCurve],
) -> tuple[str, ...]:  # fmt: skip
    """Return sentences on what would change the answer."""
    said = []
    if not chosen.folds:
        said.append(
            f"{chosen.policy} at learning rate {chosen.learning_rate:.3g} {UNTRIED} for all "
            f"epochs; its accuracy is predicted from {found.known.experience.source}. A larger "
            "--budget would try it."
        )
    others = [one for one in as_good if one.policy != chosen.policy]
    if others:
        names = ", ".join(dict.fromkeys(one.policy for one in others))
        is_settled = found.schedule is not None and found.schedule.is_settled
        what = "More images" if is_settled or found.is_exhausted else "More time or images"
        said.append(f"{what} could put {names} ahead: these images do not distinguish them.")
    said += _crossing_words(curves, found.seen_images, size, chosen)
    for backend in found.known.wishes.backends[1:]:
        if found.schedule is not None and not any(
            trial.plan.backend == backend for trial in found.known.laboratory.trials
        ):
            said.append(
                f"{backend} was not timed; a larger --budget would show whether it is faster."
            )
    unknown = [*found.known.evidence.unavailable, *found.known.evidence.unprobed]
    if unknown:
        said.append(f"Another network could be better: {', '.join(unknown)} could not be probed.")
    return tuple(said)
