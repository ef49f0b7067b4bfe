"""A laboratory whose trials have known accuracies, and advice from them, for tests."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.advise.advice import Advice
from bench.advise.budget import Budget
from bench.advise.candidate import Candidate, Trial, TrialPlan
from bench.advise.conclude import conclude
from bench.advise.evidence import ProbeEvidence
from bench.advise.experience import Arm, Experience, KindExperience
from bench.advise.findings import Findings
from bench.advise.images import Development
from bench.advise.knowledge import RATE_FACTORS, Knowledge
from bench.advise.learning_curve import SLOPE_PRIOR, Point
from bench.advise.probes import Probe
from bench.advise.schedule import Schedule
from bench.advise.similarity import similarity_of
from bench.advise.trials import Laboratory
from bench.advise.wishes import POLICIES as POLICY_NAMES
from bench.advise.wishes import Wishes
from bench.catalog.policies import POLICIES
from bench.data.model import Dataset
from bench.data.resplit import ImagePool, PoolSource
from bench.spec.result import RunResult
from bench.spec.run import Status
from bench.training.depth_features import DepthFeatures
from bench.training.predictions import image_answers

RANDOM = np.random.default_rng(0)
IMAGES, CLASSES = 800, 4
EPOCH_S = 2.0
"""Time of an epoch that trains everything; one of the head takes a tenth."""


def _pool() -> ImagePool:
    labels = np.arange(IMAGES) % CLASSES
    return ImagePool(np.zeros((IMAGES, 2, 2, 3), np.uint8), labels, None, ("",) * IMAGES)


def _dataset(pool: ImagePool, test_images: int = 300) -> Dataset:
    return Dataset("folder:made", "0" * 64, tuple("abcd"), IMAGES, 0, test_images,
                   PoolSource(pool, {}))  # fmt: skip


@dataclass
class _Laboratory:
    """Trials whose accuracies are known: those of policies, at one learning rate."""

    truth: Mapping[str, float]
    budget: Budget
    data: Development
    seconds: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    stored: tuple[TrialPlan, ...] = ()
    """Trials of an earlier call."""
    world: int = 0
    """Number of the draw of images."""
    best_factor: float = 1.0
    """Learning rate over the policy's default at which it is best."""
    memory_bytes: int | None = 10**9
    fails: Mapping[str, Status] = field(default_factory=dict)
    """Policy → status of its trials."""
    bad_backends: tuple[str, ...] = ()
    """Backends in which every training crashes."""
    refusals: Mapping[str, Exception] = field(default_factory=dict)
    """Network → error in place of its features."""
    rate_cost: float = 0.05
    """Accuracy that a learning rate three times as high, or a third of it, costs."""

    def features(self, backbone: str) -> DepthFeatures:
        raise self.refusals[backbone]

    def top1(self, plan: TrialPlan) -> float:
        """Return the true accuracy of a trial."""
        one = plan.candidate
        steps = abs(np.log(one.rate_factor / self.best_factor) / np.log(3))
        early = 0.1 * (1 - plan.epochs / one.epochs)
        few = 0.0 if plan.train_images is None else 0.05
        return float(self.truth[one.policy] - self.rate_cost * steps - early - few)

    def estimate_s(self, plan: TrialPlan) -> float:
        share = 0.1 if POLICIES[plan.candidate.policy].boundary == "head" else 1.0
        return EPOCH_S * plan.epochs * share

    def trained_parameters_of(self, one: Candidate) -> int:
        return 100

    def is_stored(self, plan: TrialPlan) -> bool:
        return plan in self.stored

    def work_s(self, plan: TrialPlan) -> float:
        return self.estimate_s(plan)

    def total_s(self, plans: Sequence[TrialPlan]) -> float:
        return sum(map(self.estimate_s, plans))

    def do(self, plan: TrialPlan) -> Trial:
        for trial in self.trials:
            if trial.plan == plan:
                return trial
        if plan not in self.stored:
            self.seconds += self.estimate_s(plan)
        status = self.fails.get(plan.candidate.policy)
        if status is not None or plan.backend in self.bad_backends:
            status = status or "crashed"
            failed = RunResult(run_id="r", environment_id="e", status=status)
            self.trials.append(Trial(plan, failed, 1.0, len(self.data.fit_images(plan.fold))))
            return self.trials[-1]
        right = self._right(plan)
        labels = np.zeros(len(right), np.int64)
        logits = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
        result = RunResult(
            run_id="r", environment_id="e", status="ok", test_top1=float(right.mean()),
            test_answers=image_answers(logits, labels), fit_s=self.estimate_s(plan),
            total_parameters=1000, trainable_parameters=100, peak_host_bytes=self._memory(plan),
            infer_images_per_s=500.0,
        )  # fmt: skip
        trial = Trial(plan, result, self.estimate_s(plan), len(self.data.fit_images(plan.fold)))
        self.trials.append(trial)
        return trial

    def _memory(self, plan: TrialPlan) -> int | None:
        """Return the memory of a trial: three times as much in another backend."""
        times = 1 if plan.backend == "torch" else 3
        return None if self.memory_bytes is None else times * self.memory_bytes

    def right(self, trial: Trial) -> npt.NDArray[np.bool_]:
        return self._right(trial.plan)

    def _right(self, plan: TrialPlan) -> npt.NDArray[np.bool_]:
        images = len(self.data.test_images(plan.fold))
        hard = np.random.default_rng([self.world, plan.fold]).normal(size=images)
        own = np.random.default_rng([self.world, zlib.crc32(repr(plan).encode())])
        own_ease = own.normal(size=images)
        return 0.8 * hard + 0.6 * own_ease < stats.norm.ppf(self.top1(plan))


TRUTH = {
    "freeze_all": 0.65, "fine_tune_all": 0.85, "retrain_all": 0.75, "fine_tune_last": 0.70,
    "linear_probe_then_fine_tune": 0.74, "discriminative_lr": 0.72, "gradual_unfreeze": 0.73,
}  # fmt: skip


def _evidence() -> ProbeEvidence:
    random = np.random.default_rng(0)

    def made(accuracy: float) -> Probe:
        right = random.uniform(size=IMAGES) < accuracy
        return Probe("made", "linear", right, np.zeros(IMAGES, np.int64), 1.0, 1 - accuracy)

    evidence = ProbeEvidence()
    evidence.best = evidence.last = {"squeezenet1_1": made(0.7)}
    evidence.parameters = {"squeezenet1_1": 1000}
    evidence.kind = {"squeezenet1_1": "plain"}
    evidence.similarity = similarity_of(made(0.7), made(0.4), made(0.3))
    evidence.curve = [Point(n, 0.3 + 20 / n, 0.02) for n in (100, 200, 400)]
    return evidence


def _knowledge(
    laboratory: _Laboratory, wishes: Wishes, evidence: ProbeEvidence | None = None,
    deviation: float = 0.5,
) -> Knowledge:  # fmt: skip
    """Return what is known before any trial, with experience that says little; ``deviation`` is
    that of each candidate's own gain in log odds."""
    arms = tuple(Arm(policy=p, rate_factor=f) for p in POLICY_NAMES for f in RATE_FACTORS)
    count = len(arms)
    spread = deviation**2 * np.eye(count) + 0.25 * np.ones((count, count))
    own = KindExperience(
        gain=tuple(-0.3 * (arm.rate_factor != 1.0) for arm in arms),
        covariance=tuple(map(tuple, spread.tolist())),
        slope=(0.0,) * count, slope_variance=(0.0,) * count, head_gain=0.0, head_variance=0.05,
        seed_deviation=tuple(
            0.057 if POLICIES[arm.policy].boundary == "head" else 0.15 for arm in arms
        ),
    )  # fmt: skip
    experience = Experience(
        arms=arms,
        kinds={"plain": own},
        images_per_class=20.0,
        least_images_per_class=5.0,
        most_images_per_class=500.0,
        pooled=0.0,
        shared=0.5,
        # Here no accuracy depends on the number of images.
        probe_slope=(0.0, SLOPE_PRIOR[1]),
        whole_slope=(0.0, SLOPE_PRIOR[1]),
        source="made data sets",
    )
    return Knowledge(cast(Laboratory, laboratory), evidence or _evidence(), wishes, experience)


def _fresh(backend: str = "torch") -> tuple[_Laboratory, Wishes]:
    """Return a laboratory before any trial, and wishes for one backend."""
    pool = _pool()
    data = Development(_dataset(pool), cast(Any, None), pool, np.arange(IMAGES) // CLASSES % 4)
    return _Laboratory(TRUTH, Budget(600.0), data), Wishes(("squeezenet1_1",), (backend,))


def _untried(evidence: ProbeEvidence) -> Advice:
    """Return the advice that probes alone give."""
    laboratory, wishes = _fresh()
    known = _knowledge(laboratory, wishes, evidence)
    return conclude(Findings(laboratory.data.dataset, known, None, 600, 20))


def _advise(
    truth: Mapping[str, float] = TRUTH, budget_s: float = 1e4, deviation: float = 0.5, **more: Any
) -> tuple[Advice, _Laboratory]:
    wishes = Wishes(("squeezenet1_1",), more.pop("backends", ("torch",)), **more.pop("wishes", {}))
    pool = _pool()
    fold_of = np.arange(IMAGES) // CLASSES % 4
    data = Development(_dataset(pool), cast(Any, None), pool, fold_of)
    laboratory = _Laboratory(truth, cast(Any, None), data, **more)
    laboratory.budget = Budget(budget_s, now=lambda: laboratory.seconds)
    known = _knowledge(laboratory, wishes, deviation=deviation)
    schedule = Schedule(known, lambda words: None)
    schedule.run()
    findings = Findings(data.dataset, known, schedule, budget_s, laboratory.budget.spent_s)
    return conclude(findings), laboratory
