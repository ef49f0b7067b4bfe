"""The oracle of a cell: every policy of every network, run to the end at several learning rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.advise.candidate import OPTIMIZER
from bench.advise.experience import NetworkKind
from bench.analysis.predictions import answers_of
from bench.catalog.policies import POLICIES, default_rate
from bench.data import Dataset
from bench.runner.planner import PlannedRun, Planner
from bench.runner.runner import Display, Runner
from bench.runner.suite import Grid, Suite
from bench.storage.results import Store
from bench.storage.text_files import replace_text
from bench.workers.pool import WorkerPool

BACKEND = "torch"
BACKBONES = ("squeezenet1_1", "efficientnet_lite0")
"""Networks of the record, the smaller one first."""
KINDS: dict[str, NetworkKind] = {"squeezenet1_1": "plain", "efficientnet_lite0": "normalised"}
EPOCHS, BATCH = 8, 16
FACTORS = (1 / 3, 1.0, 3.0)
"""Learning rates over the policy's default."""
SEEDS = (0, 1)
"""Everything runs with each seed: what is chosen with one is measured with the other."""
FILE = "oracle-{seed}.json"


@dataclass(frozen=True)
class FullRun:
    """A run to the end."""

    backbone: str
    policy: str
    factor: float
    """Learning rate over the policy's default."""
    val_top1_by_epoch: tuple[float, ...]
    test_top1: float
    fit_s: float
    right: tuple[int, ...]
    """Numbers of the test images that are right."""
    test_images: int

    @property
    def arm(self) -> tuple[str, str, float]:
        """Network, policy and learning rate over the policy's default: equal for all seeds."""
        return self.backbone, self.policy, round(self.factor, 3)

    @property
    def val_top1(self) -> float:
        """Validation accuracy after the last epoch."""
        return self.val_top1_by_epoch[-1]

    def answers(self) -> npt.NDArray[np.bool_]:
        """Return (test images,) True where it is right."""
        found = np.zeros(self.test_images, bool)
        found[list(self.right)] = True
        return found


def run_oracle(
    folder: Path, dataset: Dataset, px: int, seed: int, planner: Planner,
    workers: WorkerPool, display: Display,
) -> None:  # fmt: skip
    """Do the full runs of a cell with a seed; those that are stored are not repeated."""
    file = folder / FILE.format(seed=seed)
    if file.is_file():
        return
    planner.opened = {"cell": dataset}
    store = Store(folder / "runs")
    store.prepare()
    runner = Runner(store, planner.cache, planner.interpreters)
    runs = [run for suite in _suites(px, seed) for run in planner.plan(suite)]
    missing = [run for run in runs if store.is_missing(*run.key)]
    runner.run_all(missing, display, workers)
    found = [one for run in runs if (one := _full_run(store, run)) is not None]
    replace_text(file, json.dumps([asdict(one) for one in found]))


def load_oracle(folder: Path, seed: int) -> list[FullRun]:
    """Read the full runs of a cell with a seed."""
    found = []
    for one in json.loads((folder / FILE.format(seed=seed)).read_text()):
        lists = {name: tuple(one[name]) for name in ("val_top1_by_epoch", "right")}
        found.append(FullRun(**{**one, **lists}))
    return found


def _suites(px: int, seed: int) -> Iterator[Suite]:
    """Yield a suite for each policy and multiple of its default rate: several rates in one would be
    trained at once, and none would have a time of its own."""
    for policy, factor in product(POLICIES, FACTORS):
        recipe: dict[str, Any] = {
            "px": px, "epochs": EPOCHS, "batch_size": BATCH, "optimizer": OPTIMIZER,
            "learning_rate": (default_rate(policy, OPTIMIZER) * factor,),
        }  # fmt: skip
        grid = Grid(dataset="cell", backbones=BACKBONES, policies=(policy,), **recipe)
        yield Suite(name="oracle", backends=(BACKEND,), seeds=(seed,), grid=(grid,))


def _full_run(store: Store, run: PlannedRun) -> FullRun | None:
    """Return a run's outcome; None if it diverged."""
    stored = store.read(*run.key)
    result, answers = stored.result, answers_of(stored)
    curve = [value for value in result.val_top1_by_epoch if value is not None]
    if result.status != "ok" or answers is None or not curve or result.test_top1 is None:
        return None
    policy = run.spec.policy.name
    return FullRun(
        run.backbone, policy, run.spec.recipe.learning_rate / default_rate(policy, OPTIMIZER),
        tuple(curve), result.test_top1, result.fit_s or 0.0,
        tuple(np.flatnonzero(answers.right).tolist()), len(answers.right),
    )  # fmt: skip


def tuned(runs: Sequence[FullRun], backbone: str, policy: str) -> FullRun | None:
    """Return the run of a policy at the learning rate that validation chooses; None if all rates
    diverged."""
    own = [one for one in runs if (one.backbone, one.policy) == (backbone, policy)]
    return max(own, key=lambda one: (one.val_top1, -abs(np.log(one.factor))), default=None)


def untuned(runs: Sequence[FullRun], backbone: str, policy: str) -> FullRun | None:
    """Return the run of a policy at its default rate; None if it diverged."""
    for one in runs:
        if (one.backbone, one.policy) == (backbone, policy) and abs(one.factor - 1) < 1e-6:
            return one
    return None
