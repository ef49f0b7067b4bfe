"""From evidence to advice: what is recommended, what it costs, what else would do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from bench.advise.advice import LEVEL, Advice, CurvePoint, Strategy
from bench.advise.belief import TIE_LEVEL, Belief
from bench.advise.candidate import Candidate
from bench.advise.comparison import alternatives, article_rule, would_change
from bench.advise.evidence import best_backbone
from bench.advise.findings import Findings
from bench.advise.knowledge import cost_of
from bench.advise.outlook import curves_of, data_wanted, forecasts, more_images, points_of
from bench.advise.similarity import similarity_word
from bench.advise.wishes import check_any_meets, meets, unchecked
from bench.catalog.cases import CASES, SIZE_BOUNDS, size_of
from bench.catalog.policies import POLICIES
from bench.errors import number_of
from bench.spec.run import Similarity, Size
from bench.system import OTHERS_DISTURB

FAILURES = {"oom": "ran out of memory", "diverged": "diverged", "crashed": "crashed"}
"""Status of a trial that failed → words."""
NO_CURVE = (
    "--target was not answered: no learning curve could be measured, as there was too little time "
    "or there were too few images."
)


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
        signs=tuple(evidence.signs),
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
    curves = curves_of(found)
    return base.model_copy(
        update={
            "case": case,
            "size": size,
            "size_by": "images" if measured is None else "trials",
            "warnings": (
                *found.warnings, *_failures(found), *_disturbances(found),
                *_unchecked(chosen, found),
                *([NO_CURVE] if wishes.target_top1 is not None and not curves else []),
            ),
            "recommendation": chosen,
            "as_good": as_good,
            "expected_test_top1": chosen.expected_test_top1,
            "interval": chosen.interval,
            "more_images": more_images(curves, chosen, found.dataset),
            "forecasts": forecasts(curves, found.dataset.train_images),
            "data_wanted": data_wanted(curves, chosen, wishes.target_top1, found.seen_images),
            "alternatives": alternatives(chosen, considered),
            "article_says": article_rule(case, size, similarity, chosen, considered),
            "is_settled": found.schedule is not None and found.schedule.is_settled,
            "is_exhausted": found.is_exhausted,
            "would_change": would_change(found, chosen, as_good, size, curves),
            "learning_curve": tuple(
                CurvePoint(policy=policy, images=point.images, top1=1.0 - point.error,
                           standard_error=point.standard_error)
                for policy, points in points_of(found).items() for point in points
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
    """Return sentences on candidates and backends that are left out because a training failed."""
    candidates = {
        f"{one.policy} of {one.backbone} at learning rate {one.learning_rate:.3g}": status
        for one, status in found.known.failures().items()
    }
    return [
        f"{name} was left out: its trial {FAILURES.get(status, 'failed')}."
        for name, status in {**candidates, **found.known.failed_backends()}.items()
    ]


def _disturbances(found: Findings) -> list[str]:
    """Return sentences on trials that the budget ended, and on other work on the machine."""
    trials = found.known.laboratory.trials
    said = [
        f"A trial of {trial.plan.candidate} took longer than expected: the budget ended it."
        for trial in trials
        if trial.result.status == "timeout"
    ]
    taken = [t.result.other_work_fraction for t in trials]
    measured = [share for share in taken if share is not None]
    if measured and (share := statistics.median(measured)) > OTHERS_DISTURB:
        said.append(
            f"Other processes used {share:.0%} of the cores during the trials: times are too long, "
            "and fewer trials fitted into the budget."
        )
    return said


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
    """Return 'large' if training the whole network is better than a head with 95 % certainty,
    'small' if no gain is expected of it, or surely less than the margin, else 'medium'. None if
    not both were tried; or if a part of the images says that they are not large, as all of them may
    be."""
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
