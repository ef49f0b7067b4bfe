"""Read what was measured on a cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.advise.advice import Advice, Strategy
from bench.advise.candidate import OPTIMIZER
from bench.advise.learning_curve import Point
from bench.catalog.policies import default_rate
from tools.advice_record.cells import Cell, cells
from tools.advice_record.oracle import BACKBONES, FILE, FullRun, load_oracle, load_second_seed
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
Answers = npt.NDArray[np.float64]
"""(test images,) 1 where it is right."""


@dataclass(frozen=True)
class Measured:
    """A cell with everything that was measured."""

    cell: Cell
    runs: list[FullRun]
    second_seed: list[FullRun]
    """Some of the runs with another seed."""
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
        """Time of all full runs."""
        return sum(run.fit_s for run in self.runs)

    def run_of(self, strategy: Strategy) -> FullRun | None:
        """Return the full run of a strategy; None if it diverged."""
        factor = strategy.learning_rate / default_rate(strategy.policy, OPTIMIZER)
        return self.run(strategy.backbone, strategy.policy, factor)

    def run(self, backbone: str, policy: str, factor: float) -> FullRun | None:
        """Return the full run of a policy at a learning rate over its default; None if it
        diverged."""
        for run in self.runs:
            same = (run.backbone, run.policy) == (backbone, policy)
            if same and abs(run.factor / factor - 1) < SAME_FACTOR:
                return run
        return None

    def regret(self, answers: Answers) -> float:
        """Return how far answers are below the best full run's. The best is chosen on nine tenths
        of the test images and measured on the tenth, ten times, so that it owes nothing to luck."""
        every = np.stack([run.answers() for run in self.runs]).astype(float)
        tenth = parts(every.shape[1], TENTHS)
        found = np.empty(every.shape[1])
        for number in range(TENTHS):
            best = every[:, tenth != number].mean(axis=1).argmax()
            found[tenth == number] = every[best, tenth == number]
        return float(found.mean() - answers.mean())


def parts(images: int, count: int) -> npt.NDArray[np.int64]:
    """Return the part of each test image (N,), drawn: a data set may have its classes in turns."""
    return np.random.default_rng(0).permutation(images) % count


def load(folder: Path) -> list[Measured]:
    """Read all cells whose full runs and probes are there."""
    found = []
    for cell in cells():
        place = folder / cell.name
        if not (place / FILE).is_file() or not (place / EVIDENCE_FILE).is_file():
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
                cell, load_oracle(place), load_second_seed(place), evidence, advice,
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
