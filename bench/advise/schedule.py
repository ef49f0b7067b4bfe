"""Choose trials and their order within the budget.

Trials come in rounds: a short one of every policy where whole ones do not all fit; whole ones, each
time of what is most likely the best of what was not tried yet; fewer images, for the learning
curve; further folds for those that may be the best. Each round does what the budget holds, and the
next one begins with what is known by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.advise.belief import TIE_LEVEL, Belief
from bench.advise.candidate import Candidate, Trial, TrialPlan, candidate
from bench.advise.knowledge import Knowledge
from bench.catalog.policies import POLICIES

KEPT_BACKBONES = 2
"""Networks whose policies have short trials."""
SHORT_SHARE = 0.4
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
CURVE_SHARE = 0.15
"""Most of the budget that trials with fewer images may take."""
FINALISTS = 4
"""Most candidates that are tried in further folds."""
CURVE_SHARES = (1 / 2, 1 / 4)
"""Shares of a fold's images at which the best whole-network policy is tried for its curve."""
SETTLED = 0.3
"""Share of the margin: if the choice is expected to be behind the best by no more, the answer is
settled."""

OnProgress = Callable[[str], None]
"""Takes words for what is done now."""


@dataclass
class Schedule:
    """The rounds of trials of one backend."""

    known: Knowledge
    on_progress: OnProgress
    is_settled: bool = False
    is_cut_short: bool = False
    """True if the budget did not hold a trial that was wanted, or it failed."""

    def run(self) -> None:
        """Do the rounds."""
        allowed = self._after_short_round()
        self._whole_rounds(allowed, FIRST_SHARE)
        if not self.tried():
            return
        self._backend_round()
        self._curve_round()
        self._fold_rounds()
        if not self.is_settled:
            self._whole_rounds(self.known.candidates(), 1.0)
            self._fold_rounds()

    def tried(self) -> list[Candidate]:
        """Return the candidates with a whole trial."""
        return [one for one in self.known.candidates() if self.known.whole_trials(one)]

    def _whole(self, one: Candidate, fold: int = 0) -> TrialPlan:
        return TrialPlan(one, self.known.backend, fold, one.epochs)

    def _after_short_round(self) -> list[Candidate]:
        """Return the candidates that are worth a whole trial: all, or those whose policies did best
        in short trials, where these fit and whole ones do not."""
        laboratory, wishes = self.known.laboratory, self.known.wishes
        every = self.known.candidates()
        leading = self.known.leading(self.known.belief(), KEPT_BACKBONES)
        policies = [
            candidate(backbone, policy, wishes.head, wishes.epochs)
            for number, backbone in enumerate(leading)
            for policy in wishes.possible_policies
            if number == 0 or policy in ("freeze_all", "fine_tune_all")
        ]
        whole_s = sum(laboratory.estimate_s(self._whole(one)) for one in policies)
        plans = [self._short(one) for one in policies]
        short_s = sum(laboratory.estimate_s(plan) for plan in plans)
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
        """Try whole what is most likely the best of what was not tried, again and again, within a
        share of the time that is left."""
        budget, failed = self.known.laboratory.budget, set[Candidate]()
        end_s = budget.spent_s + share * budget.left_s
        while True:
            belief, tried = self.known.belief(), self.tried()
            if tried and (budget.spent_s > end_s or self._settles(belief)):
                return
            chance = dict(zip(belief.candidates, belief.chance_of_best, strict=True))
            waiting = [one for one in allowed if one not in tried and one not in failed]
            waiting.sort(key=lambda one: -chance[one])
            fitting = [w for w in waiting if self._fits(self._whole(w))]
            self.is_cut_short = self.is_cut_short or len(fitting) < len(waiting)
            if not fitting:
                return
            trial = self._do(self._whole(fitting[0]), "a whole trial")
            if trial is None or not trial.is_ok:
                failed.add(fitting[0])

    def _curve_round(self) -> None:
        """Try the best policy that trains the whole network with fewer images."""
        belief = self.known.belief()
        expected = dict(zip(belief.candidates, belief.expected, strict=True))
        whole_network = [one for one in self.tried() if POLICIES[one.policy].boundary == "all"]
        if not whole_network:
            return
        best = max(whole_network, key=lambda one: expected[one])
        laboratory, was_cut_short = self.known.laboratory, self.is_cut_short
        fit = len(laboratory.data.fit_images(0))
        least = 2 * len(laboratory.data.dataset.classes)
        plans = [
            TrialPlan(best, self.known.backend, 0, best.epochs, train_images=images)
            for share in CURVE_SHARES
            if (images := round(share * fit)) >= least
        ]
        cost_s = sum(laboratory.estimate_s(plan) for plan in plans)
        if cost_s > CURVE_SHARE * laboratory.budget.seconds:
            return
        for plan in plans:
            self._do(plan, f"a trial with {plan.train_images} images")
        self.is_cut_short = was_cut_short  # the choice lacks nothing

    def _fold_rounds(self) -> None:
        """Try those that may be the best in further folds, until the answer is settled."""
        folds = self.known.laboratory.data.folds
        while True:
            belief = self.known.belief()
            self.is_settled = self._settles(belief)
            if self.is_settled:
                return
            done = {one: len(self.known.whole_trials(one)) for one in self.finalists(belief)}
            further = [one for one in done if done[one] < folds]
            if not further:
                return
            one = min(further, key=lambda c: done[c])
            trial = self._do(self._whole(one, done[one]), f"fold {done[one] + 1}")
            if trial is None or not trial.is_ok:
                return

    def finalists(self, belief: Belief) -> list[Candidate]:
        """Return those tried that may be within the margin of the best, the likeliest first."""
        near = belief.chance_within(self.known.wishes.margin)
        chance = dict(zip(belief.candidates, near, strict=True))
        left = [one for one in self.tried() if chance[one] >= TIE_LEVEL]
        return sorted(left, key=lambda one: -chance[one])[:FINALISTS]

    def _settles(self, belief: Belief) -> bool:
        """Return True if the choice is hardly behind the best."""
        return float(np.min(belief.shortfall)) <= SETTLED * self.known.wishes.margin

    def _backend_round(self) -> None:
        """Time the cheapest candidate within the margin of the best in the other backends."""
        belief, tried = self.known.belief(), self.tried()
        expected = dict(zip(belief.candidates, belief.expected, strict=True))
        least = max(expected[one] for one in tried) - self.known.wishes.margin
        within = [one for one in tried if expected[one] >= least]
        fit_s = {one: self.known.whole_trials(one)[0].result.fit_s or 0.0 for one in within}
        best = min(within, key=lambda one: fit_s[one])
        was_cut_short = self.is_cut_short
        for backend in self.known.wishes.backends[1:]:
            self._do(TrialPlan(best, backend, 0, best.epochs), f"speed of {backend}")
        self.is_cut_short = was_cut_short  # no accuracy is missing

    def _fits(self, plan: TrialPlan) -> bool:
        laboratory = self.known.laboratory
        return laboratory.budget.holds(laboratory.estimate_s(plan))

    def _do(self, plan: TrialPlan, words: str) -> Trial | None:
        """Do a trial if the budget holds it."""
        if not self._fits(plan):
            self.is_cut_short = True
            return None
        self.on_progress(f"{plan.candidate}, {words}")
        trial = self.known.laboratory.do(plan)
        self.is_cut_short = self.is_cut_short or trial.result.status == "timeout"
        return trial
