"""The time of trials, predicted from the work in them and the speed measured so far."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench.advise.advice import Strategy
from bench.advise.candidate import TrialPlan
from bench.catalog.policies import POLICIES
from bench.network.blueprint import STATE_ROLES, Blueprint, Network
from bench.network.cost import multiply_adds, work_of
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.system import cores

START_S = {"torch": 4.0, "keras-torch": 7.0, "keras-tensorflow": 9.0, "keras-jax": 9.0}
"""Time until a backend's first trial begins, on 2 cores; measured where it has begun."""
SET_UP_S = 0.5
"""Time of a trial besides its passes over images."""
FIRST_GUESS = 1.3
"""Time of a backend's training over that of as many multiply-adds in inference, before any trial:
batches, BatchNorm and the optimizer take time, too. Replaced by what trials take."""
ASSUMED_PACE_S = {"cpu": 5e-11, "cuda": 1e-12}
"""Assumed seconds for each multiply-add of inference before anything was measured: of one core of a
CPU, of a GPU."""
FULL_RUN_S = {"torch": 25.0, "keras-tensorflow": 35.0}
"""Time of the full run by an ejected script, beside its training: writing the project, imports,
images, testing, saving the model and loading it again. The PyTorch script took 18 s
for EfficientNet-Lite1 with 216 training images of 96 px on 2 cores; the value for Keras is
assumed."""
COMPILING_S = {"keras-tensorflow": 6.0, "keras-jax": 12.0}
"""Time in which a backend compiles the steps of a trial."""


def full_run_s(strategy: Strategy) -> float:
    """Predict how long the full run of a strategy takes by its ejected script, with its start and
    the saving of the model."""
    return FULL_RUN_S.get(strategy.backend, 0.0) + (strategy.train_s or 0.0)


@dataclass(frozen=True)
class Amount:
    """Numbers of images in a trial."""

    train: int
    watched: int
    """Images validated after each epoch."""
    test: int


@cache
def work_per_image(folder: Path, policy: str, head: str, classes: int, epochs: int) -> float:
    """Return the multiply-adds of a training for each training image, over all epochs, with the
    frozen part computed once."""
    blueprint = attach_head(Network.empty(Blueprint.load(folder)), head, classes, seed=0).blueprint
    total = 0.0
    for phase in phases_of(blueprint, POLICIES[policy], epochs):
        plan = plan_training(blueprint, phase.policy)
        boundary = boundary_of(blueprint, plan)
        whole = work_of(blueprint, plan).step_multiply_adds
        before = 0
        if boundary is not None and phase.epochs > 1:
            before = sum(
                multiply_adds(o, blueprint) for o in blueprint.operations[: boundary.index]
            )
        total += before + phase.epochs * (whole - before)
    return total


@cache
def parameters_of(folder: Path, head: str, classes: int) -> int:
    """Return the number of parameters of a network with its head, without statistics."""
    blueprint = attach_head(Network.empty(Blueprint.load(folder)), head, classes, seed=0).blueprint
    names = {tensor for _, role, tensor in blueprint.named_tensors() if role not in STATE_ROLES}
    return sum(math.prod(blueprint.shapes[name]) for name in names)


@cache
def trained_parameters_of(folder: Path, policy: str, head: str, classes: int, epochs: int) -> int:
    """Return the number of parameters that a policy trains in its last phase."""
    blueprint = attach_head(Network.empty(Blueprint.load(folder)), head, classes, seed=0).blueprint
    last = phases_of(blueprint, POLICIES[policy], epochs)[-1]
    trained = plan_training(blueprint, last.policy).trained
    return sum(math.prod(blueprint.shapes[name]) for name in trained)


@cache
def inference_work(folder: Path) -> float:
    """Return the multiply-adds of an image's pass through the trunk."""
    blueprint = Blueprint.load(folder)
    return float(sum(multiply_adds(o, blueprint) for o in blueprint.trunk()))


def _keys(plan: TrialPlan) -> tuple[tuple[str, ...], ...]:
    """Return the groups of trials whose time may be like that of a plan, the most alike first. The
    pace of a network may be measured wrongly, so that its own trials come before its policy's; but
    what a head takes, of which most is set-up, says nothing about training more."""
    one = plan.candidate
    part = "head" if POLICIES[one.policy].boundary == "head" else "network"
    return (
        (plan.backend, "both", one.backbone, one.policy), (plan.backend, part, one.backbone),
        (plan.backend, "policy", one.policy), (plan.backend, part),
    )  # fmt: skip


@dataclass
class CostModel:
    """Predicts how long trials take on this machine."""

    folder_of: Callable[[str], Path]
    """Returns the folder of a backbone's Blueprint."""
    classes: int
    device: str = "cpu"
    _pace: dict[str, float] = field(default_factory=dict)
    """Backbone → seconds for each multiply-add in inference, as measured."""
    _ratios: dict[tuple[str, ...], list[float]] = field(
        default_factory=lambda: defaultdict(list[float])
    )
    """Key of ``_keys`` → measured over predicted time of its trials."""
    _started: set[str] = field(default_factory=set)

    def note_start(self, backend: str) -> None:
        """Record that a backend's worker has started."""
        self._started.add(backend)

    def note_inference(self, backbone: str, images: int, seconds: float) -> None:
        """Record how long a pass over images took, now or when its features were stored."""
        self._pace[backbone] = seconds / max(images * inference_work(self.folder_of(backbone)), 1.0)

    def note_trial(self, plan: TrialPlan, amount: Amount, seconds: float) -> None:
        """Record how long a trial took."""
        ratio = seconds / max(self._plain_s(plan, amount), 1e-3)
        for key in _keys(plan):
            self._ratios[key].append(ratio)
        self.note_start(plan.backend)

    def inference_s(self, backbone: str, images: int) -> float:
        """Predict how long a pass over images takes."""
        work = images * inference_work(self.folder_of(backbone))
        return SET_UP_S + self._pace_of(backbone) * work

    def start_s(self, backend: str) -> float:
        """Predict how long a backend's worker takes to start; 0 if one has."""
        return 0.0 if backend in self._started else START_S[backend]

    def seconds(self, plan: TrialPlan, amount: Amount) -> float:
        """Predict how long a trial takes; a backend's first one starts its worker."""
        return self.start_s(plan.backend) + self.work_s(plan, amount)

    def work_s(self, plan: TrialPlan, amount: Amount) -> float:
        """Predict how long a trial takes in a worker that has started."""
        ratio = FIRST_GUESS
        for key in _keys(plan):
            if self._ratios.get(key):
                ratio = statistics.median(self._ratios[key][-5:])
                break
        return ratio * self._plain_s(plan, amount)

    def _plain_s(self, plan: TrialPlan, amount: Amount) -> float:
        """Predict the time of a trial's work at the pace of inference."""
        tried = plan.candidate
        folder = self.folder_of(tried.backbone)
        pace = self._pace_of(tried.backbone)
        per_image = work_per_image(folder, tried.policy, tried.head, self.classes, plan.epochs)
        validated = plan.epochs * amount.watched + amount.test
        work = amount.train * per_image + validated * inference_work(folder)
        return SET_UP_S + COMPILING_S.get(plan.backend, 0.0) + pace * work

    def _pace_of(self, backbone: str) -> float:
        """Return the seconds for each multiply-add of a backbone: as measured, or of the others, or
        as assumed before anything was measured."""
        if backbone in self._pace:
            return self._pace[backbone]
        if self._pace:
            return statistics.median(self._pace.values())
        return ASSUMED_PACE_S["cuda"] if self.device != "cpu" else ASSUMED_PACE_S["cpu"] / cores()
