"""From evidence to advice: what is recommended, what it costs, what else would do."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.advise.advice import (
    Advice,
    Alternative,
    ArticleRule,
    CurvePoint,
    MoreImages,
    Sign,
    Strategy,
)
from bench.advise.candidate import Candidate, Trial, candidate
from bench.advise.choice import LEVEL, accuracy_interval, choose_best
from bench.advise.evidence import ProbeEvidence
from bench.advise.learning_curve import LearningCurve, Point, fit_curve
from bench.advise.schedule import Schedule
from bench.advise.similarity import similarity_word
from bench.advise.trials import common_answers, compared
from bench.advise.wishes import Wishes, check_any_meets, meets
from bench.catalog.cases import CASES, SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES, PRESCRIBED
from bench.data.model import Dataset
from bench.spec.run import Similarity, Size

SEED_SPREAD = 0.1
"""Standard deviation of the log odds of an accuracy over seeds, as of the runs behind
``bench/analysis/experience.json``."""
PROBE_SPREAD = 0.25
"""The same between a probe and a training of the head alone."""
ALTERNATIVES = 2


@dataclass(frozen=True)
class Findings:
    """Everything that was measured for advice."""

    dataset: Dataset
    evidence: ProbeEvidence
    schedule: Schedule | None
    """None if the budget held probes only."""
    wishes: Wishes
    budget_s: float
    spent_s: float
    warnings: tuple[str, ...] = ()


def conclude(found: Findings) -> Advice:
    """Return the advice that the findings support, whatever was measured so far.

    Raises:
        UserError: No strategy meets the constraints.
    """
    evidence = found.evidence
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
    tried = _strategies(found)
    check_any_meets(tried, found.wishes)
    allowed = [one for one in tried if meets(one, found.wishes)]
    if len(allowed) < len(tried):  # those that may be chosen are compared with each other
        kept = {_key(one) for one in allowed}
        allowed = [one for one in _strategies(found, kept) if _key(one) in kept]
    as_good = sorted((one for one in allowed if one.is_contender), key=_cost)
    good = as_good or allowed
    best = max(one.expected_test_top1 or 0.0 for one in good)
    within = [one for one in good if (one.expected_test_top1 or 0.0) >= best - found.wishes.margin]
    chosen = min(within, key=_cost)
    size = _measured_size(found) or size_of(found.dataset.train_images, SIZE_BOUNDS)
    case = _case_of(size, similarity)
    curves = _curves(found)
    return base.model_copy(
        update={
            "case": case,
            "size": size,
            "recommendation": chosen,
            "as_good": tuple(as_good),
            "expected_test_top1": chosen.expected_test_top1,
            "interval": chosen.interval,
            "more_images": _more_images(curves, chosen, found.dataset),
            "alternatives": _alternatives(chosen, allowed),
            "article_says": _article(case, size, similarity, chosen, allowed),
            "is_settled": found.schedule is not None and found.schedule.is_settled,
            "is_exhausted": found.schedule is not None and not found.schedule.is_cut_short,
            "would_change": _would_change(found, chosen, as_good, size),
            "learning_curve": tuple(
                CurvePoint(policy=policy, images=point.images, top1=1.0 - point.error,
                           standard_error=point.standard_error)
                for policy, points in _points(found).items() for point in points
            ),
            "tried": tuple(sorted(tried, key=lambda one: -(one.expected_test_top1 or 0.0))),
        }
    )  # fmt: skip


def _cost(one: Strategy) -> float:
    return math.inf if one.train_s is None else one.train_s


StrategyKey = tuple[str, str, float]
"""Network, policy and learning rate."""


def _key(one: Strategy | Candidate) -> StrategyKey:
    return one.backbone, one.policy, one.learning_rate


def _strategies(found: Findings, kept: Container[StrategyKey] | None = None) -> list[Strategy]:
    """Return everything that was tried whole; before any trial, the head of each network, with the
    accuracy of its probe. With ``kept``, only these are compared."""
    schedule = found.schedule
    if schedule is None or not schedule.tried:
        return [_from_probe(found, name) for name in found.evidence.best]
    tried = [one for one in schedule.tried if kept is None or _key(one) in kept]
    finalists = [one for one in schedule.finalists if one in tried]
    folds: Sequence[int] = range(schedule.folds)
    if not finalists:
        finalists, folds = tried, (0,)
    laboratory, backend = schedule.laboratory, schedule.backend
    choice, _, _ = compared(laboratory, finalists, backend, folds)
    strategies = []
    for one in tried:
        trials = _trials_of(schedule, one, backend)
        if one in finalists:
            own, index, shared = choice, finalists.index(one), list(folds)
        else:  # it was tried in fewer folds: it is compared with the finalists over those
            own, _, shared = compared(laboratory, [one, *finalists], backend, folds)
            index = 0
        # The best finalist is expected to reach what a choice like this one reaches on other
        # images; the others are as far behind it as on the images that they share with it.
        of_best = 1 + choice.best if one not in finalists else choice.best
        expected = choice.expected_top1 + float(own.top1[index] - own.top1[of_best])
        units = laboratory.data.units_of(shared)
        strategies.append(
            _strategy(found, one, trials, min(max(expected, 0.0), 1.0), units).model_copy(
                update={
                    "shortfall": float(own.shortfall[index]),
                    "is_contender": index in own.as_good,
                }
            )
        )
    for other in found.wishes.backends[1:]:
        strategies += _in_backend(found, tried, strategies, other)
    return strategies


def _trials_of(schedule: Schedule, one: Candidate, backend: str) -> list[Trial]:
    return [
        t
        for t in schedule.laboratory.trials
        if t.plan.candidate == one and t.plan.is_whole and t.plan.backend == backend and t.is_ok
    ]


def _strategy(
    found: Findings, one: Candidate, trials: Sequence[Trial], expected: float, images: int
) -> Strategy:
    """Return a strategy with the figures of its trials, at the size of the full run."""
    first = trials[0]
    result, scale = first.result, found.dataset.train_images / first.train_images
    return Strategy(
        policy=one.policy, backbone=one.backbone, backend=first.plan.backend, head=one.head,
        learning_rate=one.learning_rate, epochs=one.epochs, expected_test_top1=expected,
        interval=_interval(found, expected, images, SEED_SPREAD),
        train_s=None if result.fit_s is None else result.fit_s * scale,
        peak_host_bytes=result.peak_host_bytes, peak_device_bytes=result.peak_device_bytes,
        total_parameters=result.total_parameters,
        trainable_parameters=result.trainable_parameters,
        infer_images_per_s=result.infer_images_per_s
        or found.evidence.images_per_s.get(one.backbone),
        folds=len(trials),
    )  # fmt: skip


def _interval(found: Findings, expected: float, images: int, spread: float) -> tuple[float, float]:
    """Return the interval of the full run's accuracy on the test images: its ends are accuracies
    that so many images can have.

    Args:
        images: Number of images, or of groups of images, on which it was measured.
    """
    variance = max(expected * (1 - expected), 1e-4)
    test = max(found.dataset.test_images, 1)
    low, high = accuracy_interval(expected, images, variance / test + (spread * variance) ** 2)
    return math.floor(low * test) / test, math.ceil(high * test) / test


def _from_probe(found: Findings, backbone: str) -> Strategy:
    """Return the training of a head on a backbone, as its probe lets expect. The best of all
    networks and stages was chosen, which the expected accuracy allows for."""
    evidence, random = found.evidence, np.random.default_rng(0)
    names = list(evidence.best)
    among = choose_best(np.stack([evidence.best[name].right for name in names]), random)
    every = choose_best(np.stack([one.right for one in evidence.linear]), random)
    index = names.index(backbone)
    optimism = float(every.top1[every.best]) - every.expected_top1
    expected = max(float(among.top1[index]) - optimism, 0.0)
    one = candidate(backbone, "freeze_all", found.wishes.head, found.wishes.epochs)
    images = len(evidence.best[backbone].right)
    return Strategy(
        policy=one.policy, backbone=backbone, backend=found.wishes.backends[0], head=one.head,
        learning_rate=one.learning_rate, epochs=one.epochs, expected_test_top1=expected,
        interval=_interval(found, expected, evidence.units or images, PROBE_SPREAD),
        shortfall=float(among.shortfall[index]), is_contender=index in among.as_good,
        infer_images_per_s=evidence.images_per_s.get(backbone),
        total_parameters=evidence.parameters.get(backbone),
    )  # fmt: skip


def _in_backend(
    found: Findings, tried: Sequence[Candidate], strategies: Sequence[Strategy], backend: str
) -> list[Strategy]:
    """Return the strategies that were timed in another backend too, with the accuracy of the first:
    both compute the same."""
    assert found.schedule is not None
    others = []
    for one, base in zip(tried, strategies, strict=False):
        trials = _trials_of(found.schedule, one, backend)
        if trials:
            timed = _strategy(found, one, trials, base.expected_test_top1 or 0.0, 1)
            others.append(
                base.model_copy(
                    update={
                        name: getattr(timed, name)
                        for name in ("backend", "train_s", "peak_host_bytes", "peak_device_bytes",
                                     "infer_images_per_s", "folds")
                    }
                )
            )  # fmt: skip
    return others


def _measured_size(found: Findings) -> Size | None:
    """Return small, medium or large by what thawing brings on these images: nothing, too little to
    tell, or something; None if it was not tried."""
    if found.schedule is None:
        return None
    tried = found.schedule.tried
    heads = [one for one in tried if POLICIES[one.policy].boundary == "head"]
    whole = [one for one in tried if POLICIES[one.policy].boundary == "all"]
    if not heads or not whole:
        return None
    laboratory, backend = found.schedule.laboratory, found.schedule.backend

    def best(group: Sequence[Candidate]) -> Candidate:
        return max(
            group, key=lambda one: float(common_answers(laboratory, [one], backend, (0,))[0].mean())
        )

    right, folds = common_answers(laboratory, [best(heads), best(whole)], backend)
    if not folds:
        return None
    difference = right[1].astype(float) - right[0].astype(float)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * float(difference.std(ddof=1))
    half /= math.sqrt(len(difference))
    gain = float(difference.mean())
    if gain - half > 0:
        return "large"
    return "small" if gain + half < found.wishes.margin or gain <= 0 else "medium"


def _case_of(size: Size, similarity: Similarity | None) -> int | None:
    for number, own in CASES.items():
        if own == (size, similarity):
            return number
    return None


def _points(found: Findings) -> dict[str, list[Point]]:
    """Return the learning curves: of the probe's features, and of training the whole network."""
    points: dict[str, list[Point]] = {}
    if found.evidence.curve:
        points["freeze_all"] = found.evidence.curve
    if found.schedule is None:
        return points
    laboratory = found.schedule.laboratory
    partial = [t for t in laboratory.trials if t.plan.train_images is not None and t.is_ok]
    if partial:
        one = partial[0].plan.candidate
        same = [t for t in laboratory.trials
                if t.plan.candidate == one and t.plan.fold == 0 and t.plan.epochs == one.epochs
                and t.plan.backend == found.schedule.backend and t.is_ok]  # fmt: skip
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
    random = np.random.default_rng(0)
    return {
        policy: fit_curve(points, random)
        for policy, points in _points(found).items()
        if len({point.images for point in points}) > 1
    }


def _more_images(
    curves: dict[str, LearningCurve], chosen: Strategy, dataset: Dataset
) -> MoreImages | None:
    """Return what as many images again would bring, by the curve of the recommended policy, or of
    the one most like it."""
    if not curves:
        return None
    is_whole = POLICIES[chosen.policy].boundary == "all"
    names = [n for n in curves if (POLICIES[n].boundary == "all") == is_whole] or list(curves)
    gain = curves[names[0]].gain(dataset.train_images, dataset.train_images)
    return MoreImages(images=dataset.train_images, gain=gain.value, interval=(gain.low, gain.high))


def _alternatives(chosen: Strategy, allowed: Sequence[Strategy]) -> tuple[Alternative, ...]:
    """Return the next best strategies, with what each costs or gives up."""
    others = [one for one in allowed if one != chosen]
    others.sort(key=lambda one: -(one.expected_test_top1 or 0.0))
    return tuple(
        Alternative(strategy=one, gives_up=_compared(one, chosen)) for one in others[:ALTERNATIVES]
    )


def _compared(one: Strategy, chosen: Strategy) -> str:
    points = 100 * ((one.expected_test_top1 or 0.0) - (chosen.expected_test_top1 or 0.0))
    accuracy = f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} are expected"
    if not one.train_s or not chosen.train_s:
        return f"{accuracy}."
    return f"{accuracy}; training takes {one.train_s / chosen.train_s:.2g} times as long."


def _article(
    case: int | None, size: Size, similarity: Similarity | None, chosen: Strategy,
    allowed: Sequence[Strategy],
) -> ArticleRule:  # fmt: skip
    """Compare the article's rule with the recommendation."""
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
    found: Findings, chosen: Strategy, as_good: Sequence[Strategy], size: Size
) -> tuple[str, ...]:
    """Return sentences on what would change the answer."""
    said = []
    others = [one for one in as_good if one.policy != chosen.policy]
    if others:
        names = ", ".join(dict.fromkeys(one.policy for one in others))
        said.append(
            f"More time or images could put {names} ahead: the images do not tell them apart."
        )
    if size == "small":
        said.append("With more images, training more of the network may pay.")
    if found.evidence.unavailable:
        names = ", ".join(found.evidence.unavailable)
        said.append(f"Weights of {names}, which are not here, could change the network.")
    return tuple(said)
