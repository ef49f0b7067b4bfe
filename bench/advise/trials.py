"""Trials of candidates through the harness, and features of networks, in one pool of workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from bench.advise.budget import Budget, BudgetSpent, ended_by
from bench.advise.candidate import OPTIMIZER, Candidate, Trial, TrialPlan
from bench.advise.cost import Amount, CostModel, parameters_of, trained_parameters_of
from bench.advise.experience import NetworkKind
from bench.advise.images import Development
from bench.advise.wishes import Wishes
from bench.analysis.predictions import answers_of
from bench.catalog.backends import EXPORTER
from bench.data.packing import pack_key
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import check_px
from bench.network.blueprint import Blueprint, Normalisation
from bench.network.export import blueprint_folder
from bench.network.weights import pretrained_weights, random_weights
from bench.runner.planner import PlannedRun, Planner
from bench.runner.runner import Display, Runner
from bench.runner.suite import Grid, Suite
from bench.storage.results import StoredRun
from bench.training.depth_features import DepthFeatures, features_key, load_features
from bench.workers.pool import WorkerKind, WorkerPool
from bench.workers.process import environment_of, fresh_log
from bench.workers.tasks import DepthFeaturesTask

TEMPLATE = "advice-{fold}-{images}"
"""Name under which the data set of a trial is registered with the planner."""


@dataclass
class Laboratory:
    """Everything that measures: images, workers, stored results and the costs of it all. As a
    context manager it ends its workers."""

    data: Development
    planner: Planner
    runner: Runner
    workers: WorkerPool
    exporters: WorkerPool
    """Pool for exports alone: what they leave in a process would count as memory of trials."""
    display: Display
    budget: Budget
    px: int
    batch_size: int
    device: str
    measures_speed: bool = False
    """True to measure the speed of inference now, and not to take it from an earlier call, in which
    other programs may have slowed it."""
    costs: CostModel = field(init=False)
    trials: list[Trial] = field(default_factory=list)

    seed: int = 0
    """Seed of all trials."""

    _timed: set[str] = field(default_factory=set)
    """Networks whose inference was timed in this call."""
    _folders: dict[tuple[str, bool], Path] = field(default_factory=dict)
    _amounts: dict[tuple[int, int | None], Amount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = len(self.data.dataset.classes)
        self.costs = CostModel(
            lambda name: self.blueprint(name, pretrained=True), classes, self.device
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.workers, self.exporters:
            pass

    def blueprint(self, backbone: str, *, pretrained: bool) -> Path:
        """Return the folder of a backbone's Blueprint, with pretrained or random weights; raise
        Unavailable if there are no pretrained ones, and UserError if it cannot take images of this
        size."""
        if (backbone, pretrained) not in self._folders:
            cache, python = self.planner.cache, self.planner.interpreters
            entry = entry_of(backbone, python, cache)
            check_px(backbone, entry, self.px)
            weights = random_weights(entry)
            if pretrained:
                try:
                    with ended_by(self.budget):  # a download has no estimate
                        weights = pretrained_weights(backbone, entry, has_option=False)
                except BudgetSpent:
                    raise Unavailable(f"the weights of {backbone} took the whole budget") from None
            folder = blueprint_folder(
                backbone, self.px, weights, 0, cache, python,
                workers=self.exporters, limit_s=max(self.budget.left_s, 1.0),
            )  # fmt: skip
            self._folders[backbone, pretrained] = folder
        return self._folders[backbone, pretrained]

    def features(self, backbone: str, *, pretrained: bool = True) -> DepthFeatures:
        """Return the features of all images at every depth of a backbone, from the cache or
        computed now; raise UserError, Unavailable or WorkerFailed if that fails."""
        python, cache = self.planner.interpreters, self.planner.cache
        blueprint = self.blueprint(backbone, pretrained=pretrained).name
        packed = pack_key(self.data.dataset, self.px)
        environment = environment_of(EXPORTER, self.device, python)
        key = features_key(blueprint, packed, environment.environment_id)
        is_timed = backbone in self._timed or not (pretrained and self.measures_speed)
        found = load_features(key, cache) if is_timed else None
        if found is None:
            task = DepthFeaturesTask(
                key=key, blueprint=blueprint, packed=packed, device=self.device
            )
            kind = WorkerKind(EXPORTER, self.device)
            what = f"features of {backbone}"
            log = fresh_log(cache, what)
            done = self.workers.do(kind, task, log, timeout_s=max(self.budget.left_s, 1.0))
            done.require(what, log)
            self.costs.note_start(EXPORTER)
            found = load_features(key, cache)
            if found is None:
                raise Unavailable(f"the {what} cannot be read back from {cache}")
        if pretrained:
            self._timed.add(backbone)
            self.costs.note_inference(backbone, len(found.values), found.seconds)
        return found

    def parameters_of(self, backbone: str, head: str) -> int:
        """Return the number of parameters of a network with a head for these classes."""
        folder = self.blueprint(backbone, pretrained=True)
        return parameters_of(folder, head, len(self.data.dataset.classes))

    def trained_parameters_of(self, one: Candidate) -> int:
        """Return the number of parameters that a candidate trains."""
        folder = self.blueprint(one.backbone, pretrained=True)
        classes = len(self.data.dataset.classes)
        return trained_parameters_of(folder, one.policy, one.head, classes, one.epochs)

    def kind_of(self, backbone: str) -> NetworkKind:
        """Return whether a network has layers that normalise ('normalised') or none ('plain')."""
        blueprint = Blueprint.load(self.blueprint(backbone, pretrained=True))
        is_normalised = any(one.kind in get_args(Normalisation) for one in blueprint.operations)
        return "normalised" if is_normalised else "plain"

    def amount(self, plan: TrialPlan) -> Amount:
        """Return the numbers of images of a trial."""
        key = plan.fold, plan.train_images
        if key not in self._amounts:
            dataset = self.data.trial_dataset(*key)
            self._amounts[key] = Amount(
                dataset.train_images, dataset.val_images, dataset.test_images
            )
        return self._amounts[key]

    def estimate_s(self, plan: TrialPlan) -> float:
        """Predict how long a trial takes; 0 if its result is stored."""
        return 0.0 if self.is_stored(plan) else self.costs.seconds(plan, self.amount(plan))

    def is_stored(self, plan: TrialPlan) -> bool:
        """Return True if an earlier trial is stored, so that doing it takes no time."""
        return not self.runner.store.is_missing(*self._planned(plan).key)

    def work_s(self, plan: TrialPlan) -> float:
        """Predict how long a trial takes by itself, also if its result is stored."""
        return self.costs.work_s(plan, self.amount(plan))

    def total_s(self, plans: Sequence[TrialPlan]) -> float:
        """Predict how long trials of one backend take together: its worker starts once."""
        if not plans:
            return 0.0
        start_s = self.costs.start_s(plans[0].backend)
        each = [estimate for plan in plans if (estimate := self.estimate_s(plan))]
        return sum(each) - start_s * max(len(each) - 1, 0)

    def do(self, plan: TrialPlan) -> Trial:
        """Do a trial, unless its result is stored, and keep it; it ends when the budget does."""
        for trial in self.trials:
            if trial.plan == plan:
                return trial
        run, amount = self._planned(plan), self.amount(plan)
        began = time.perf_counter()
        is_new = self.runner.store.is_missing(*run.key)
        if is_new:
            self.runner.timeout_s = max(self.budget.left_s, 1.0)
            self.runner.run_all([run], self.display, self.workers)
        seconds = time.perf_counter() - began if is_new else 0.0
        result = self.stored(run).result
        if is_new and result.status == "ok":
            self.costs.note_trial(plan, amount, seconds - (result.start_s or 0.0))
        trial = Trial(plan, result, seconds, amount.train)
        self.trials.append(trial)
        return trial

    def stored(self, run: PlannedRun) -> StoredRun:
        """Return a run's stored result."""
        return self.runner.store.read(*run.key)

    def right(self, trial: Trial) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which held-out images of a trial's fold are right, (N,)."""
        answers = answers_of(self.stored(self._planned(trial.plan)))
        if answers is None:
            raise Unavailable(f"the answers of {trial.result.run_id} cannot be read")
        return answers.right

    def _planned(self, plan: TrialPlan) -> PlannedRun:
        name = TEMPLATE.format(fold=plan.fold, images=plan.train_images or "all")
        if name not in self.planner.opened:
            dataset = self.data.trial_dataset(plan.fold, plan.train_images)
            self.planner.opened[name] = dataset
        (run,) = self.planner.plan(self._suite(name, plan))
        return run

    def _suite(self, name: str, plan: TrialPlan) -> Suite:
        tried: Candidate = plan.candidate
        recipe: dict[str, Any] = {
            "head": tried.head, "px": self.px, "epochs": plan.epochs,
            "batch_size": self.batch_size, "optimizer": OPTIMIZER,
            "learning_rate": (tried.learning_rate,),
        }  # fmt: skip
        grid = Grid(dataset=name, backbones=(tried.backbone,), policies=(tried.policy,), **recipe)
        return Suite(name="advice", backends=(plan.backend,), seeds=(self.seed,), grid=(grid,))


def admitted(laboratory: Laboratory, wishes: Wishes) -> tuple[str, ...]:
    """Return the networks that have no more parameters than are allowed; raise UserError, which
    names the nearest, if there is none."""
    most = wishes.max_parameters
    if most is None:
        return wishes.backbones
    sizes: dict[str, int] = {}
    for name in wishes.backbones:
        with suppress(Unavailable, UserError):  # its probe says why it is left out
            sizes[name] = laboratory.parameters_of(name, wishes.head)
    admitted = tuple(name for name in wishes.backbones if sizes.get(name, 0) <= most)
    if not admitted:
        nearest = min(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"No network has {most:,} parameters or fewer. Nearest is {nearest} with "
            f"{sizes[nearest]:,}.",
            f"Use --max-parameters {sizes[nearest]}, or name other networks with --backbones.",
        )
    return admitted
