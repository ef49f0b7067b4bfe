"""Combine the probes and trials of a data set so far with experience into estimated accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.advise.advice import Strategy
from bench.advise.belief import Answers, Belief, believe
from bench.advise.candidate import Candidate, Trial, TrialPlan, candidate
from bench.advise.evidence import ProbeEvidence
from bench.advise.experience import Experience, Floats
from bench.advise.trials import Laboratory
from bench.advise.wishes import Wishes, exceeds_memory, meets, memory_of, unchecked
from bench.catalog.backends import EXPORTER
from bench.catalog.policies import POLICIES
from bench.spec.run import Status

RATE_FACTORS = (1.0, 3.0, 1 / 3)
"""Learning rates of a policy over its default."""
RECOMMENDED_SHARE = 0.5
"""Share of the margin by which the recommended strategy may be expected to be behind the best: one
that is expected to be a whole margin behind is further behind in half of the cases."""
OF_POLICY = ("peak_host_bytes", "peak_device_bytes")
"""Figures of a trial that are the same at another learning rate, and not known without a trial."""


@dataclass(frozen=True)
class Knowledge:
    """Probes and trials so far, with the experience from other data sets."""

    laboratory: Laboratory
    evidence: ProbeEvidence
    wishes: Wishes
    experience: Experience
    all_over_seen: float = 1.0
    """Training images of the whole data set over those of the subset that advice uses."""

    @property
    def backend(self) -> str:
        """The backend whose trials are used for accuracy; others are only timed."""
        return self.wishes.backends[0]

    def candidates(self) -> list[Candidate]:
        """Return every policy at every learning rate of every network that was probed."""
        head, epochs = self.wishes.head, self.wishes.epochs
        return [
            candidate(backbone, policy, head, epochs).at_rate(factor)
            for backbone in self.evidence.last
            for policy in self.wishes.possible_policies
            for factor in RATE_FACTORS
        ]

    def allowed(self) -> list[Candidate]:
        """Return the candidates that break no constraint, and whose training did not fail. A figure
        that is not known breaks none, except memory where the lightest candidate needs too much."""
        failed = self.failures()
        hopeless = {(c.backbone, c.policy) for c, status in failed.items() if status != "diverged"}
        lightest = self.lightest()
        is_full = lightest is not None and exceeds_memory(self.strategy(lightest), self.wishes)
        found = []
        for one in self.candidates():
            strategy = self.strategy(one)
            is_heavy = is_full and memory_of(strategy) is None
            has_failed = one in failed or (one.backbone, one.policy) in hopeless
            if not has_failed and not is_heavy and meets(strategy, self.wishes):
                found.append(one)
        return found

    def lightest(self) -> Candidate | None:
        """Return what needs the least memory for training: the head of the network with the fewest
        parameters; None if a head alone is no candidate, or no network was probed."""
        sizes = self.evidence.parameters
        probed = [name for name in self.evidence.last if name in sizes]
        if not probed or "freeze_all" not in self.wishes.possible_policies:
            return None
        smallest = min(probed, key=lambda name: sizes[name])
        return candidate(smallest, "freeze_all", self.wishes.head, self.wishes.epochs)

    def failures(self) -> dict[Candidate, Status]:
        """Return the candidates of which a trial failed, with the status. A trial that the budget
        has ended is none of them, nor is one with fewer images for the learning curve."""
        return {
            trial.plan.candidate: trial.result.status
            for trial in self._failed_trials()
            if trial.plan.backend == self.backend and trial.plan.train_images is None
        }

    def failed_backends(self) -> dict[str, Status]:
        """Return the backends, besides that of the trials, whose speed could not be measured, with
        the status."""
        return {
            trial.plan.backend: trial.result.status
            for trial in self._failed_trials()
            if trial.plan.backend != self.backend
        }

    def _failed_trials(self) -> list[Trial]:
        """Return the trials that failed, without those that the budget has ended."""
        ended = ("ok", "timeout")
        return [t for t in self.laboratory.trials if not t.is_ok and t.result.status not in ended]

    def whole_trials(self, one: Candidate, backend: str | None = None) -> list[Trial]:
        """Return the whole trials of a candidate that ended well, in the order of their folds."""
        found = [
            t for t in self.laboratory.trials
            if t.plan.candidate == one and t.plan.is_whole and t.is_ok
            and t.plan.backend == (backend or self.backend)
        ]  # fmt: skip
        return sorted(found, key=lambda t: t.plan.fold)

    def belief(self) -> Belief:
        """Return the estimated accuracies of the full runs of all candidates now."""
        laboratory, every = self.laboratory, self.candidates()
        trials = {one: own for one in every if (own := self.whole_trials(one))}
        groups = laboratory.data.pool.groups
        held_out = laboratory.data.held_out
        dataset = laboratory.data.dataset
        found = believe(
            self.experience, dataset.train_images / len(dataset.classes), every,
            self.evidence.kind,
            {name: probe.right.astype(float) for name, probe in self.evidence.last.items()},
            {one: self._answers(own) for one, own in trials.items()},
            {one: len(own) for one, own in trials.items()},
            None if groups is None else groups[held_out],
        )  # fmt: skip
        return found.raised(self._by_more_images(every))

    def _by_more_images(self, candidates: Sequence[Candidate]) -> Floats:
        """Return how much more accurate, in log odds, full runs are than trials and probes, which
        train on the images of a fold (K,): by the slopes of learning curves on other data sets."""
        data, known = self.laboratory.data, self.experience
        times = data.dataset.train_images / max(len(data.fit_images(0)), 1)
        slopes = [
            (known.whole_slope if POLICIES[one.policy].boundary == "all" else known.probe_slope)[0]
            for one in candidates
        ]
        return -np.array(slopes, float) * math.log(times)

    def strategy(self, one: Candidate, backend: str | None = None) -> Strategy:
        """Return a candidate with the figures that its trials in a backend showed, or, without a
        trial, those that it shares with others; and with the time of its full run."""
        backend = backend or self.backend
        trials = self.whole_trials(one, backend)
        figures = self._figures_of_trial(trials[0]) if trials else self._figures_of_others(one)
        return Strategy(
            policy=one.policy, backbone=one.backbone, backend=backend, head=one.head,
            learning_rate=one.learning_rate, epochs=one.epochs, folds=len(trials), **figures,
        )  # fmt: skip

    def _known(self, backbone: str, backend: str) -> dict[str, Any]:
        """Return the figures of a network that its probe showed; its speed is that of the backend
        that computes features."""
        rate = self.evidence.images_per_s.get(backbone) if backend == EXPORTER else None
        return {
            "infer_images_per_s": rate,
            "total_parameters": self.evidence.parameters.get(backbone),
        }

    def _figures_of_trial(self, trial: Trial) -> dict[str, Any]:
        """Return the figures of a trial, its time at the size of the full run."""
        result = trial.result
        figures = self._known(trial.plan.candidate.backbone, trial.plan.backend)
        of_trial = (*OF_POLICY, "total_parameters", "trainable_parameters")
        figures |= {name: getattr(result, name) for name in of_trial}
        if result.fit_s is not None:
            scale = self.laboratory.data.dataset.train_images / trial.train_images
            figures["train_s"] = result.fit_s * scale * self.all_over_seen
        if result.infer_images_per_s:
            figures["infer_images_per_s"] = result.infer_images_per_s
        return figures

    def _figures_of_others(self, one: Candidate) -> dict[str, Any]:
        """Return the figures that an untried candidate shares with trials, those of its network and
        those of its policy at another rate, and the time that its full run would take."""
        figures = self._known(one.backbone, self.backend)
        figures["trainable_parameters"] = self.laboratory.trained_parameters_of(one)
        for trial in self.laboratory.trials:
            tried, result = trial.plan.candidate, trial.result
            is_own = tried.backbone == one.backbone and trial.plan.backend == self.backend
            if not trial.is_ok or not trial.plan.is_whole or not is_own:
                continue
            figures["total_parameters"] = result.total_parameters
            if result.infer_images_per_s:
                figures["infer_images_per_s"] = result.infer_images_per_s
            if tried.policy == one.policy:
                figures |= {name: getattr(result, name) for name in OF_POLICY}
        plan = TrialPlan(one, self.backend, 0, one.epochs)
        fit = len(self.laboratory.data.fit_images(0))
        scale = self.laboratory.data.dataset.train_images / max(fit, 1)
        figures["train_s"] = self.laboratory.work_s(plan) * scale * self.all_over_seen
        return figures

    def recommended(self, strategies: Sequence[Strategy]) -> Strategy:
        """Return the strategy to recommend: of those whose limits could all be checked, if there
        are any (``chosen_of``)."""
        checked = [one for one in strategies if not unchecked(one, self.wishes)]
        return chosen_of(checked or strategies, RECOMMENDED_SHARE * self.wishes.margin)

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


def cost_of(strategy: Strategy) -> float:
    """Return the time of a strategy's full run, in seconds; infinite if it is not known."""
    return math.inf if strategy.train_s is None else strategy.train_s


def chosen_of(strategies: Sequence[Strategy], margin: float) -> Strategy:
    """Return the cheapest strategy whose expected accuracy is at most ``margin`` below the highest.
    One that was not tried is chosen only if none that was tried is so close."""
    best = max(one.expected_test_top1 or 0.0 for one in strategies)
    within = [one for one in strategies if (one.expected_test_top1 or 0.0) >= best - margin]
    return min([one for one in within if one.folds] or within, key=cost_of)
