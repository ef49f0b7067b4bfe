"""Everything that is known of a data set so far, and what it lets believe of the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.advise.belief import Answers, Belief, believe
from bench.advise.candidate import Candidate, Trial, candidate
from bench.advise.evidence import ProbeEvidence
from bench.advise.experience import Experience
from bench.advise.trials import Laboratory
from bench.advise.wishes import Wishes

RATE_FACTORS = (1.0, 3.0, 1 / 3)
"""Learning rates of a policy over its default."""


@dataclass(frozen=True)
class Knowledge:
    """Probes and trials so far, with the experience from other data sets."""

    laboratory: Laboratory
    evidence: ProbeEvidence
    wishes: Wishes
    experience: Experience

    @property
    def backend(self) -> str:
        """The backend whose trials have a say; accuracies of others are the same."""
        return self.wishes.backends[0]

    def candidates(self) -> list[Candidate]:
        """Return every policy at every learning rate of every network that was probed."""
        head, epochs = self.wishes.head, self.wishes.epochs
        return [
            candidate(backbone, policy, head, epochs).at_rate(factor)
            for backbone in self.evidence.best
            for policy in self.wishes.possible_policies
            for factor in RATE_FACTORS
        ]

    def whole_trials(self, one: Candidate, backend: str | None = None) -> list[Trial]:
        """Return the whole trials of a candidate that ended well, in the order of their folds."""
        found = [
            t for t in self.laboratory.trials
            if t.plan.candidate == one and t.plan.is_whole and t.is_ok
            and t.plan.backend == (backend or self.backend)
        ]  # fmt: skip
        return sorted(found, key=lambda t: t.plan.fold)

    def belief(self) -> Belief:
        """Return what is believed of all candidates now."""
        laboratory, every = self.laboratory, self.candidates()
        trials = {one: own for one in every if (own := self.whole_trials(one))}
        groups = laboratory.data.pool.groups
        held_out = laboratory.data.held_out
        return believe(
            self.experience, every,
            {name: probe.right.astype(float) for name, probe in self.evidence.best.items()},
            {one: self._answers(own) for one, own in trials.items()},
            {one: len(own) for one, own in trials.items()},
            None if groups is None else groups[held_out],
        )  # fmt: skip

    def leading(self, belief: Belief, most: int) -> list[str]:
        """Return the networks whose candidates are expected to be the most accurate, ``most`` of
        them at most, the best one first."""
        best: dict[str, float] = {}
        for one, value in zip(belief.candidates, belief.expected, strict=True):
            best[one.backbone] = max(best.get(one.backbone, 0.0), float(value))
        return sorted(best, key=lambda name: -best[name])[:most]

    def _answers(self, trials: list[Trial]) -> Answers:
        """Return the answers of whole trials to the held-out images."""
        data = self.laboratory.data
        found = np.full(len(data.pool.labels), np.nan)
        for trial in trials:
            found[data.test_images(trial.plan.fold)] = self.laboratory.right(trial)
        answers: Answers = found[data.held_out]
        return answers
