"""Compare a recommendation with other strategies and with the article's rule."""

from __future__ import annotations

from collections.abc import Sequence

from bench.advise.advice import UNTRIED, Alternative, ArticleRule, Strategy
from bench.advise.findings import Findings
from bench.advise.knowledge import cost_of
from bench.advise.learning_curve import LearningCurve
from bench.advise.outlook import crossing_words
from bench.catalog.policies import PRESCRIBED
from bench.spec.run import Similarity, Size

ALTERNATIVES = 2
SAME_TIME = 0.05
"""Difference of two training times that is not worth a number."""


def alternatives(chosen: Strategy, allowed: Sequence[Strategy]) -> tuple[Alternative, ...]:
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


def article_rule(
    case: int | None, size: Size, similarity: Similarity | None, chosen: Strategy,
    allowed: Sequence[Strategy],
) -> ArticleRule:  # fmt: skip
    """Compare the article's rule with the recommendation."""
    if similarity is None:
        words = "The similarity, on which the article's rule depends, is not known."
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


def would_change(
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
    said += crossing_words(curves, found.seen_images, size, chosen)
    for backend in found.known.wishes.backends[1:]:
        status = {
            t.result.status for t in found.known.laboratory.trials if t.plan.backend == backend
        }
        if found.schedule is not None and status <= {"timeout"}:
            said.append(
                f"{backend} was not timed; a larger --budget would show whether it is faster."
            )
    unknown = [*found.known.evidence.unavailable, *found.known.evidence.unprobed]
    if unknown:
        said.append(f"Another network could be better: {', '.join(unknown)} could not be probed.")
    return tuple(said)
