"""Read what was measured on a cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.advise.advice import Advice, Strategy
from bench.advise.candidate import OPTIMIZER
from bench.advise.learning_curve import Point
from bench.catalog.policies import default_rate
from tools.advice_record.cells import PLAIN, Cell, cells
from tools.advice_record.oracle import BACKBONES, FILE, SEEDS, FullRun, load_oracle, tuned
from tools.advice_record.rules import Evidence

SHARES = (0.05, 0.1, 0.2)
"""Budgets of the adviser over the cost of the full runs."""
FOLDS_SHARE = 0.1
"""Budget of the adviser for a folder without a split."""
ADVICE_FILE, FOLDS_FILE = "advice-{share:g}.json", "advice-folds-{share:g}.json"
EVIDENCE_FILE = "evidence.json"
TENTHS = 10
SAME_FACTOR = 1e-3
"""Relative difference below which two learning rates are the same."""


@dataclass(frozen=True)
class Measured:
    """A cell with everything that was measured."""

    cell: Cell
    seeds: tuple[list[FullRun], ...]
    """Full runs with each seed; those that diverged are left out."""
    evidence: Evidence
    advice: dict[float, Advice]
    """Share of the full runs' time → advice within it; empty before the adviser was asked."""
    of_folder: Advice | None
    """Advice about the cell as a folder without a split; None for variants."""
    signs: tuple[str, ...]
    """Kinds of signs that the set cannot support advice."""
    planted: dict[str, tuple[str, ...]]
    """Planted fault → kinds of signs that were found."""
    classes: int
    train_images: int
    """Number of training images, copies left out."""
    curve: tuple[Point, ...]
    """Errors of the best probe over the number of training images."""

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.cell.family.name

    @property
    def is_probed(self) -> bool:
        """True if every network was probed, and no sign was found that refuses the set."""
        return not self.signs and set(BACKBONES) <= set(self.evidence.probe_answers)

    @property
    def images_per_class(self) -> float:
        """Number of training images over that of classes."""
        return self.train_images / self.classes

    @property
    def whole_s(self) -> float:
        """Time of all full runs with one seed."""
        return time_of(self.seeds)

    @property
    def test_images(self) -> int:
        """Number of test images."""
        return self.seeds[0][0].test_images

    def runs_of(self, strategy: Strategy) -> list[FullRun]:
        """Return the full runs of a strategy, with each seed with which it did not diverge."""
        factor = strategy.learning_rate / default_rate(strategy.policy, OPTIMIZER)
        return self.runs(strategy.backbone, strategy.policy, factor)

    def runs(self, backbone: str, policy: str, factor: float) -> list[FullRun]:
        """Return the full runs of a policy at a learning rate over its default, with each seed with
        which it did not diverge."""
        return [
            run for runs in self.seeds for run in runs
            if (run.backbone, run.policy) == (backbone, policy)
            and abs(run.factor / factor - 1) < SAME_FACTOR
        ]  # fmt: skip

    def top1(self, runs: Sequence[FullRun]) -> float:
        """Return the mean test accuracy over seeds; a run that diverged is always wrong."""
        return sum(run.test_top1 for run in runs) / len(self.seeds)

    def regret(self, top1: float) -> float:
        """Return how far an accuracy is below the best strategy's."""
        return float(self.best_top1.mean()) - top1

    @cached_property
    def best_top1(self) -> npt.NDArray[np.float64]:
        """Test accuracy of the best strategy with each seed (S,). It is chosen with the other seeds
        on nine tenths of the test images and measured on the tenth, for all tenths: a strategy that
        happened to be the best owes nothing to its luck."""
        arms = sorted({run.arm for runs in self.seeds for run in runs})
        right = np.zeros((len(self.seeds), len(arms), self.test_images))
        for number, runs in enumerate(self.seeds):
            for run in runs:
                right[number, arms.index(run.arm)] = run.answers()
        tenth = parts(self.test_images, TENTHS)
        found = np.empty((len(self.seeds), self.test_images))
        for seed in range(len(self.seeds)):
            others = np.delete(right, seed, axis=0).mean(axis=0)
            for number in range(TENTHS):
                best = others[:, tenth != number].mean(axis=1).argmax()
                found[seed, tenth == number] = right[seed, best, tenth == number]
        top1: npt.NDArray[np.float64] = found.mean(axis=1)
        return top1


def time_of(seeds: Sequence[Sequence[FullRun]]) -> float:
    """Return the time of all full runs with one seed: the one that took less, as other work on the
    machine only slows."""
    return min(sum(run.fit_s for run in runs) for runs in seeds)


def whole_curve(found: Sequence[Measured], family: str, backbone: str, policy: str) -> list[Point]:
    """Return the errors of a policy over the training images of a family's plain cells, the
    smallest first, at the learning rate that validation chooses."""
    points = []
    for one in found:
        if one.family == family and one.cell.variant is PLAIN:
            chosen = [tuned(runs, backbone, policy) for runs in one.seeds]
            error = 1 - one.top1([run for run in chosen if run is not None])
            spread = float(np.sqrt(max(error * (1 - error), 0.01) / one.test_images))
            points.append(Point(one.train_images, error, spread))
    return sorted(points)


def parts(images: int, count: int) -> npt.NDArray[np.int64]:
    """Return the part of each test image (N,), drawn: a data set may have its classes in turns."""
    return np.random.default_rng(0).permutation(images) % count


def load(folder: Path) -> list[Measured]:
    """Read all cells whose full runs and probes are there."""
    found = []
    for cell in cells():
        place = folder / cell.name
        needed = [EVIDENCE_FILE, *(FILE.format(seed=seed) for seed in SEEDS)]
        if not all((place / name).is_file() for name in needed):
            continue
        told: dict[str, Any] = json.loads((place / EVIDENCE_FILE).read_text())
        answers = {name: np.array(list(map(float, text)))
                   for name, text in told["probe_answers"].items()}  # fmt: skip
        files = {share: place / ADVICE_FILE.format(share=share) for share in SHARES}
        advice = {
            share: Advice.model_validate_json(file.read_bytes())
            for share, file in files.items()
            if file.is_file()
        }
        folds = place / FOLDS_FILE.format(share=FOLDS_SHARE)
        evidence = Evidence(cell, answers, told["best_probe_top1"], told["log_evidence"])
        found.append(
            Measured(
                cell, tuple(load_oracle(place, seed) for seed in SEEDS), evidence, advice,
                Advice.model_validate_json(folds.read_bytes()) if folds.is_file() else None,
                tuple(told["signs"]),
                {name: tuple(signs) for name, signs in told["planted"].items()}, told["classes"],
                told["train_images"],
                tuple(Point(**point) for point in told["curve"]),
            )
        )  # fmt: skip
    return found


def outside(found: Sequence[Measured], family: str) -> list[Measured]:
    """Return the cells of all other families, from which a rule for this one may learn."""
    return [one for one in found if one.family != family]
