"""Choose trials and their order within the budget.

What an earlier call stored is taken in first; where memory is limited, the lightest candidate is
tried. Then trials run in rounds, each as far as the budget goes:

1. A short trial of each policy, where these take at most ``SHORT_SHARE`` of the time that is left,
   and whole trials of all policies more than ``WHOLE_SHARE``.
2. Whole trials: a head, if it takes next to no time; then each time the untried candidate that is
   most likely the best for its cost.
3. Timing in other backends.
4. Trials with fewer images, for the learning curve.
5. Further folds for the candidates that may be the best.
6. Rounds 2 and 5 again.

A whole trial trains on all images of a fold for all epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.advise.advice import Strategy
from bench.advise.belief import TIE_LEVEL, Belief
from bench.advise.candidate import Candidate, Trial, TrialPlan, candidate
from bench.advise.cost import full_run_s
from bench.advise.knowledge import Knowledge
from bench.catalog.policies import POLICIES

KEPT_BACKBONES = 2
"""Number of networks with short trials: all policies of the first, ``freeze_all`` and
``fine_tune_all`` of the others."""
SHORT_SHARE = 0.2
"""Share of the time that is left within which short trials of all policies must fit; else
experience alone says which are worth a whole one."""
WHOLE_SHARE = 0.5
"""Share of the time that is left within which whole trials of all policies must fit, so that short
ones are needless."""
SHORT_EPOCHS = 1 / 3
"""Epochs of a short trial over those of a whole one."""
LEAST_EPOCHS = 3
KEPT_SHARE = 0.5
"""Share of the policies that go on after short trials (successive halving, Jamieson and Talwalkar
2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization")."""
FIRST_SHARE = 0.6
"""Share of the time that is left for whole trials, before other backends, the learning curve and
further folds have their turn."""
COST_POWER = 0.5
"""Power of a trial's cost by which its chance to be the best is divided: of two that are as likely,
the cheaper is tried first, and a cheap one that is unlikely waits."""
HEAD_SHARE = 0.02
"""Share of the time that is left within which a trial of a head alone must fit to be made first."""
CURVE_SHARE = 0.15
"""Most of the budget that trials with fewer images may take."""
FINALISTS = 4
"""Most candidates that are tried in further folds."""
CURVE_SHARES = (1 / 2, 1 / 4)
"""Shares of a fold's images at which the best whole-network policy is tried for its curve."""
SETTLED = 0.3
"""The answer is settled when the expected shortfall of the best candidate, against whichever one is
truly the best, is at most this share of the margin."""

FULL_RUN_SHARE = 0.5
"""Most of the budget that is kept for a full run; a longer one follows after the budget."""

OnProgress = Callable[[str], None]
"""Takes words for what is done now."""


@dataclass
class Schedule:
    """The rounds of trials."""

    known: Knowledge
    on_progress: OnProgress
    is_settled: bool = False
    is_exhausted: bool = False
    """True if every candidate was tried in every fold in which it could still win."""
    belief: Belief = field(init=False)
    """Accuracies that the candidates within the constraints may have, after the trials so far."""

    def __post_init__(self) -> None:
        self._update()

    def run(self) -> None:
        """Do the rounds."""
        if not self.belief.candidates:
            return  # the advice says what comes nearest to the constraints
        self._recall()
        self._memory_round()
        self._whole_rounds(self._after_short_round(), FIRST_SHARE)
        if not self.tried() or not self.belief.candidates:
            return
        self._backend_round()
        self._curve_round()
        self._fold_rounds()
        if not self.is_settled:
            self._whole_rounds(self.belief.candidates, 1.0)
            self._fold_rounds()
            self.is_exhausted = set(self.belief.candidates) <= set(self.tried()) and all(
                len(self.known.whole_trials(one)) == self.known.laboratory.data.folds
                for one in self.finalists()
            )

    def _recall(self) -> None:
        """Take in the whole trials that an earlier call stored: they cost nothing."""
        laboratory = self.known.laboratory
        for one in self.belief.candidates:
            for fold in range(laboratory.data.folds):
                plan = self._whole(one, fold)
                if laboratory.is_stored(plan):
                    laboratory.do(plan)
        self._update()

    def _memory_round(self) -> None:
        """Try what needs the least memory, if memory is limited: if that is too much, so is all
        else, and no time is lost on it."""
        lightest = self.known.lightest()
        if self.known.wishes.max_memory_bytes is not None and lightest is not None:
            self._do(self._whole(lightest), "the least memory")

    def _update(self) -> None:
        """Learn from the trials so far."""
        self.belief = self.known.belief().among(self.known.allowed())
        if self.known.wishes.wants_full_run and self.belief.candidates:
            self._keep_full_run()

    def _keep_full_run(self) -> None:
        """Keep the time for the full run of what would be recommended now, if it takes at most
        ``FULL_RUN_SHARE`` of the budget."""
        budget, chosen = self.known.laboratory.budget, self._recommended()
        seconds = full_run_s(chosen) + 0.3 * (chosen.train_s or 0.0)
        budget.full_run_s = seconds if seconds <= FULL_RUN_SHARE * budget.seconds else 0.0

    def _recommended(self) -> Strategy:
        """Return what would be recommended now."""
        expected = self._expected()
        return self.known.recommended(
            [
                self.known.strategy(one).model_copy(update={"expected_test_top1": expected[one]})
                for one in self.belief.candidates
            ]
        )

    def _expected(self) -> dict[Candidate, float]:
        return dict(zip(self.belief.candidates, map(float, self.belief.expected), strict=True))

    def tried(self) -> list[Candidate]:
        """Return the candidates with a whole trial."""
        return [one for one in self.belief.candidates if self.known.whole_trials(one)]

    def _whole(self, one: Candidate, fold: int = 0) -> TrialPlan:
        return TrialPlan(one, self.known.backend, fold, one.epochs)

    def _after_short_round(self) -> Sequence[Candidate]:
        """Return the candidates that are worth a whole trial: all, or those whose policies did best
        in short trials, where these fit and whole ones do not."""
        laboratory, wishes = self.known.laboratory, self.known.wishes
        every = self.belief.candidates
        leading = self.known.leading(self.belief, KEPT_BACKBONES)
        candidates = [
            one
            for number, backbone in enumerate(leading)
            for policy in wishes.possible_policies
            if (one := candidate(backbone, policy, wishes.head, wishes.epochs)) in every
            and (number == 0 or policy in ("freeze_all", "fine_tune_all"))
        ]
        plans = [self._short(one) for one in candidates]
        whole_s = laboratory.total_s([self._whole(one) for one in candidates])
        short_s = laboratory.total_s(plans)
        left_s = laboratory.budget.left_s
        if whole_s <= WHOLE_SHARE * left_s or short_s > SHORT_SHARE * left_s:
            return every
        top1: dict[Candidate, float] = {}
        for plan in plans:
            trial = self._do(plan, "a short trial")
            if trial is not None and trial.is_ok:
                top1[plan.candidate] = trial.result.test_top1 or 0.0
        ranked = sorted(top1, key=lambda one: -top1[one])
        kept = ranked[: max(1, round(KEPT_SHARE * len(ranked)))]
        kept += [one for one in ranked if one.policy == "freeze_all" and one not in kept][:1]
        names = {(one.backbone, one.policy) for one in kept}
        return [one for one in every if (one.backbone, one.policy) in names] or every

    def _short(self, one: Candidate) -> TrialPlan:
        epochs = max(LEAST_EPOCHS, round(one.epochs * SHORT_EPOCHS))
        return TrialPlan(one, self.known.backend, 0, min(epochs, one.epochs))

    def _whole_rounds(self, allowed: Sequence[Candidate], share: float) -> None:
        """Try whole what is most likely the best of what was not tried, for its cost, again and
        again, within a share of the time that is left."""
        self._head_round(allowed)
        budget, failed = self.known.laboratory.budget, set[Candidate]()
        end_s = budget.spent_s + share * budget.left_s
        while self.belief.candidates:
            tried = self.tried()
            if tried and (budget.spent_s > end_s or self._settles()):
                return
            belief = self.belief
            chance = dict(zip(belief.candidates, belief.chance_of_best, strict=True))
            waiting = [c for c in allowed if c in chance and c not in tried and c not in failed]
            fitting = [one for one in waiting if self._fits(self._whole(one))]
            fitting.sort(key=lambda one: -chance[one] / self._cost(one) ** COST_POWER)
            if not fitting:
                return
            trial = self._do(self._whole(fitting[0]), "a whole trial")
            if trial is None or not trial.is_ok:
                failed.add(fitting[0])

    def _head_round(self, allowed: Sequence[Candidate]) -> None:
        """Try the head alone that is expected to be the best, if that takes next to no time: what
        costs more has to be better, and size is judged by the difference."""
        expected = self._expected()
        heads = [one for one in allowed if one.policy == "freeze_all" and one in expected]
        if heads and not any(one.policy == "freeze_all" for one in self.tried()):
            best = max(heads, key=lambda one: expected[one])
            laboratory = self.known.laboratory
            if laboratory.estimate_s(self._whole(best)) <= HEAD_SHARE * laboratory.budget.left_s:
                self._do(self._whole(best), "a head alone")

    def _cost(self, one: Candidate) -> float:
        """Return the time of a whole trial, a thousandth of the budget at least."""
        laboratory = self.known.laboratory
        return max(laboratory.estimate_s(self._whole(one)), 1e-3 * laboratory.budget.seconds)

    def _curve_round(self) -> None:
        """Try the best policy that trains the whole network with fewer images."""
        expected = self._expected()
        whole_network = [one for one in self.tried() if POLICIES[one.policy].boundary == "all"]
        if not whole_network:
            return
        best = max(whole_network, key=lambda one: expected[one])
        laboratory = self.known.laboratory
        fit = len(laboratory.data.fit_images(0))
        least = 2 * len(laboratory.data.dataset.classes)
        plans = [
            TrialPlan(best, self.known.backend, 0, best.epochs, train_images=images)
            for share in CURVE_SHARES
            if (images := round(share * fit)) >= least
        ]
        if laboratory.total_s(plans) > CURVE_SHARE * laboratory.budget.seconds:
            return
        for plan in plans:
            self._do(plan, f"a trial with {plan.train_images} images")

    def _fold_rounds(self) -> None:
        """Try those that may be the best in further folds, until the answer is settled."""
        folds = self.known.laboratory.data.folds
        while self.belief.candidates:
            self.is_settled = self._settles()
            if self.is_settled:
                return
            left = {
                one: sorted(set(range(folds)) - {t.plan.fold for t in self.known.whole_trials(one)})
                for one in self.finalists()
            }
            further = [one for one in left if left[one]]
            if not further:
                return
            one = max(further, key=lambda c: len(left[c]))
            fold = left[one][0]
            trial = self._do(self._whole(one, fold), f"fold {fold + 1}")
            if trial is None or not trial.is_ok:
                return

    def finalists(self) -> list[Candidate]:
        """Return those tried that may be within the margin of the best, the likeliest first,
        ``FINALISTS`` of them at most."""
        near = self.belief.chance_within(self.known.wishes.margin)
        chance = dict(zip(self.belief.candidates, near, strict=True))
        left = [one for one in self.tried() if chance[one] >= TIE_LEVEL]
        return sorted(left, key=lambda one: -chance[one])[:FINALISTS]

    def _settles(self) -> bool:
        """Return True if the best is hardly behind whatever else might be the best, and what would
        be recommended is behind by no more than the margin beside that."""
        margin, chosen = self.known.wishes.margin, self._recommended()
        shortfall = dict(zip(self.belief.candidates, self.belief.shortfall, strict=True))
        of_chosen = next(
            shortfall[one]
            for one in self.belief.candidates
            if (one.backbone, one.policy, one.learning_rate)
            == (chosen.backbone, chosen.policy, chosen.learning_rate)
        )
        is_best_clear = min(shortfall.values()) <= SETTLED * margin
        return bool(is_best_clear and of_chosen <= (1 + SETTLED) * margin)

    def _backend_round(self) -> None:
        """Time the cheapest candidate within the margin of the best in the other backends."""
        expected, tried = self._expected(), self.tried()
        least = max(expected[one] for one in tried) - self.known.wishes.margin
        within = [one for one in tried if expected[one] >= least]
        fit_s = {one: self.known.whole_trials(one)[0].result.fit_s or 0.0 for one in within}
        cheapest = min(within, key=lambda one: fit_s[one])
        for backend in self.known.wishes.backends[1:]:
            self._do(TrialPlan(cheapest, backend, 0, cheapest.epochs), f"speed of {backend}")

    def _fits(self, plan: TrialPlan) -> bool:
        laboratory = self.known.laboratory
        return laboratory.budget.holds(laboratory.estimate_s(plan))

    def _do(self, plan: TrialPlan, words: str) -> Trial | None:
        """Do a trial if the budget holds it."""
        if not self._fits(plan):
            return None
        self.on_progress(f"{plan.candidate}, {words}")
        trial = self.known.laboratory.do(plan)
        self._update()
        return trial
