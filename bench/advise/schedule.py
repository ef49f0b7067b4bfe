"""Choose trials and their order within the budget.

Trials come in rounds: a short one of every candidate where whole ones do not all fit, a whole one
of the better half, further learning rates and folds for those that cannot be told apart. Each round
does what the budget holds, and the next one begins with what is known by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.advise.candidate import Candidate, Trial, TrialPlan, candidate
from bench.advise.choice import Choice
from bench.advise.trials import Laboratory, compared
from bench.advise.wishes import Wishes
from bench.catalog.policies import POLICIES

WHOLE_SHARE = 0.5
"""Share of the time that is left within which whole trials of all candidates must fit; else each
has a short one first."""
SHORT_EPOCHS = 1 / 3
"""Epochs of a short trial over those of a whole one."""
LEAST_EPOCHS = 3
KEPT_SHARE = 0.5
"""Share of the candidates that go on after short trials (successive halving, Jamieson and Talwalkar
2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization")."""
RATE_FACTORS = (3.0, 1 / 3)
"""Further learning rates of the best candidate, over its policy's default."""
FINALISTS = 4
"""Most candidates that are tried in further folds."""
CURVE_SHARES = (1 / 2, 1 / 4)
"""Shares of a fold's images at which the best whole-network policy is tried for its curve."""
SETTLED = 0.3
"""Share of the margin: if nothing that may be the best is expected to be ahead by more, the answer
is settled."""

OnProgress = Callable[[str], None]
"""Takes words for what is done now."""


@dataclass
class Schedule:
    """The rounds of trials of one backend."""

    laboratory: Laboratory
    wishes: Wishes
    on_progress: OnProgress
    tried: list[Candidate] = field(default_factory=list)
    """Candidates with a whole trial in the first fold."""
    is_settled: bool = False
    is_cut_short: bool = False
    """True if the budget did not hold a trial that was wanted, or it failed."""
    finalists: list[Candidate] = field(default_factory=list)
    """Candidates that were all tried in the first ``folds`` folds, and are compared over them."""
    folds: int = 1

    @property
    def backend(self) -> str:
        """The backend of all trials but the last."""
        return self.wishes.backends[0]

    def run(self, backbones: Sequence[str]) -> None:
        """Do the rounds; ``backbones`` are those that the probes left over, the best one first."""
        candidates = self._candidates(backbones)
        self._whole_round(self._after_short_round(candidates))
        if not self.tried:
            return
        self._rate_round()
        self._fold_rounds()
        self._backend_round()
        self._curve_round()
        if not self.is_settled:
            self._whole_round([one for one in candidates if one not in self.tried])
            self._rate_round()
            self._fold_rounds()

    def choice(self) -> tuple[Choice, list[Candidate], list[int]]:
        """Return the choice among the finalists over the folds that they share; the finalists; and
        these folds."""
        return compared(self.laboratory, self.finalists, self.backend, range(self.folds))

    def _candidates(self, backbones: Sequence[str]) -> list[Candidate]:
        """Return every policy of the best backbone, and the cheap and the usual ones of others."""
        head, epochs = self.wishes.head, self.wishes.epochs
        return [
            candidate(backbone, policy, head, epochs)
            for number, backbone in enumerate(backbones)
            for policy in self.wishes.possible_policies
            if (number == 0 or policy in ("freeze_all", "fine_tune_all"))
        ]

    def _whole(self, one: Candidate, fold: int = 0) -> TrialPlan:
        return TrialPlan(one, self.backend, fold, one.epochs)

    def _after_short_round(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates in the order in which whole trials are worth while; after a short
        trial of each, where whole ones of all would take too long."""
        laboratory = self.laboratory
        whole_s = sum(laboratory.estimate_s(self._whole(one)) for one in candidates)
        if whole_s <= WHOLE_SHARE * laboratory.budget.left_s:
            return list(candidates)
        accuracies: dict[Candidate, float] = {}
        for one in candidates:
            epochs = max(LEAST_EPOCHS, round(one.epochs * SHORT_EPOCHS))
            plan = TrialPlan(one, self.backend, 0, min(epochs, one.epochs))
            # A whole trial of what is found must still fit.
            if laboratory.estimate_s(plan) > (1 - WHOLE_SHARE) * laboratory.budget.left_s:
                self.is_cut_short = True
                continue
            trial = self._do(plan, "a short trial")
            if trial is not None and trial.is_ok:
                accuracies[one] = trial.result.test_top1 or 0.0
        if not accuracies:
            return list(candidates)
        ranked = sorted(accuracies, key=lambda one: -accuracies[one])
        kept = ranked[: max(1, round(KEPT_SHARE * len(ranked)))]
        cheap = [one for one in ranked if one.policy == "freeze_all" and one not in kept]
        return [*kept, *cheap[:1]]

    def _whole_round(self, candidates: Sequence[Candidate]) -> None:
        for one in candidates:
            self._try_whole(one, "a whole trial")

    def _try_whole(self, one: Candidate, words: str) -> None:
        """Try a candidate whole in the first fold, if that was not done; it is a finalist as long
        as no others have come further."""
        if one in self.tried:
            return
        trial = self._do(self._whole(one), words)
        if trial is not None and trial.is_ok:
            self.tried.append(one)
            if self.folds == 1:
                self.finalists.append(one)

    def _rate_round(self) -> None:
        """Try further learning rates of the best candidate."""
        choice, finalists, _ = self.choice()
        best = finalists[choice.best]
        for factor in RATE_FACTORS:
            self._try_whole(best.at_rate(factor), "another rate")

    def _curve_round(self) -> None:
        """Try the best policy that trains the whole network with fewer images."""
        whole_network = [one for one in self.tried if POLICIES[one.policy].boundary == "all"]
        if not whole_network:
            return
        top1 = {t.plan.candidate: t.result.test_top1 or 0.0 for t in self.laboratory.trials
                if t.plan.is_whole and t.plan.fold == 0}  # fmt: skip
        best = max(whole_network, key=lambda one: top1.get(one, 0.0))
        fit = len(self.laboratory.data.fit_images(0))
        classes = len(self.laboratory.data.dataset.classes)
        for share in CURVE_SHARES:
            images = round(share * fit)
            if images >= 2 * classes:
                plan = TrialPlan(best, self.backend, 0, best.epochs, train_images=images)
                self._do(plan, f"a trial with {images} images")

    def _fold_rounds(self) -> None:
        """Try those that may be the best in further folds, until the answer is settled."""
        for fold in range(self.folds, self.laboratory.data.folds):
            choice, finalists, _ = self.choice()
            if self._settles(choice):
                break
            order = sorted(choice.as_good, key=lambda index: choice.shortfall[index])
            further = [finalists[index] for index in order[:FINALISTS]]
            trials = [self._do(self._whole(one, fold), f"fold {fold + 1}") for one in further]
            if not all(trial is not None and trial.is_ok for trial in trials):
                break  # those that did it are compared with the others over the folds before
            self.finalists, self.folds = further, fold + 1
        self.is_settled = self._settles(self.choice()[0])

    def _settles(self, choice: Choice) -> bool:
        """Return True if nothing that was wanted is missing, and one candidate is left, or none of
        those left is expected to be behind by what matters."""
        left = [float(choice.shortfall[index]) for index in choice.as_good]
        is_clear = len(left) == 1 or max(left) <= SETTLED * self.wishes.margin
        return is_clear and not self.is_cut_short and len(self.tried) > 1

    def _backend_round(self) -> None:
        """Time the cheapest candidate within the margin of the best in the other backends."""
        choice, finalists, _ = self.choice()
        least = float(choice.top1[choice.best]) - self.wishes.margin
        within = [finalists[i] for i in choice.as_good if float(choice.top1[i]) >= least]
        fit_s = {t.plan.candidate: t.result.fit_s or 0.0 for t in self.laboratory.trials
                 if t.plan.is_whole and t.plan.fold == 0}  # fmt: skip
        best = min(within, key=lambda one: fit_s.get(one, 0.0))
        was_cut_short = self.is_cut_short
        for backend in self.wishes.backends[1:]:
            self._do(TrialPlan(best, backend, 0, best.epochs), f"speed of {backend}")
        self.is_cut_short = was_cut_short  # no accuracy is missing

    def _do(self, plan: TrialPlan, words: str) -> Trial | None:
        """Do a trial if the budget holds it."""
        laboratory = self.laboratory
        if not laboratory.budget.holds(laboratory.estimate_s(plan)):
            self.is_cut_short = True
            return None
        self.on_progress(f"{plan.candidate}, {words}")
        trial = laboratory.do(plan)
        self.is_cut_short = self.is_cut_short or trial.result.status == "timeout"
        return trial
