"""Choosing a learning rate on the validation images: the same budget for every policy.

Each rate of the grid trains from the same start over all epochs; the one with the best validation
accuracy after the last epoch is then trained anew, with all measurements. The test images are not
used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.network.blueprint import Array
from bench.network.phases import Phase
from bench.spec.result import Trial
from bench.spec.run import Recipe
from bench.training.adapter import Restorable, Trainer
from bench.training.batches import TrainingBatches
from bench.training.fit import Fit, Report, infer, logits_failure, train_epoch
from bench.training.metrics import evaluate

MakeBatches = Callable[[], TrainingBatches]
Enter = Callable[[Phase, Mapping[str, Array]], Fit]
"""Builds a phase from tensors, unless it is the one that is built already."""


@dataclass(frozen=True)
class Tuned:
    """The outcome of a search for a learning rate."""

    trials: tuple[Trial, ...]
    """One for each rate, in the order of the grid."""
    chosen: float
    """Learning rate."""
    seconds: float
    """Duration of all trials."""


def tune(
    trainer: Trainer,
    recipe: Recipe,
    make_batches: MakeBatches,
    validation: tuple[Array, Array],
    report: Report,
) -> Tuned:
    """Try every rate of the recipe's grid, and restore the trainer to its start.

    Args:
        make_batches: Returns the training batches from the first epoch on, anew for each trial.
        validation: Images, or values of the frozen prefix in place of them, and labels.
    """
    began = time.perf_counter()
    start = trainer.tensors()
    trials = []
    for number, rate in enumerate(recipe.learning_rate_grid):
        report({"event": "trial", "number": number + 1, "of": len(recipe.learning_rate_grid)})
        at = recipe.model_copy(update={"learning_rate": rate})
        is_finite = _train(trainer, at, make_batches(), range(recipe.epochs))
        trials.append(
            _validate(trainer, at, validation) if is_finite else Trial(learning_rate=rate)
        )
        _restore(trainer, start)
    seconds = time.perf_counter() - began
    return Tuned(tuple(trials), choose_rate(trials), seconds)


def tune_phases(
    phases: Sequence[Phase], enter: Enter, recipe: Recipe, labels: Array, report: Report
) -> Tuned:
    """Try every rate of the grid in a run of several phases, and restore the first phase.

    Each phase is built once, and every rate trains in it from the tensors that it left in the phase
    before: there is one network at a time, and the host holds all tensors once for each rate.

    Args:
        enter: Has built the first phase, which is at its start.
        labels: Of the validation images.
    """
    began = time.perf_counter()
    start = enter(phases[0], {}).trainer.tensors()
    rates = recipe.learning_rate_grid
    left: list[dict[str, Array] | None] = [start] * len(rates)
    trials: list[Trial] = []
    for number, phase in enumerate(phases):
        is_last = number == len(phases) - 1
        for index, rate in enumerate(rates):
            event = {"event": "trial", "number": index + 1, "of": len(rates)}
            report({**event, "phase": number + 1, "phases": len(phases)})
            trial = Trial(learning_rate=rate)
            tensors = left[index]
            if tensors is not None:
                fit = enter(phase, tensors)
                _restore(fit.trainer, tensors)
                at = fit.recipe.model_copy(update={"learning_rate": rate})
                is_finite = _train(fit.trainer, at, fit.make_batches(), phase.numbers)
                if is_last and is_finite:
                    trial = _validate(fit.trainer, at, (fit.val, labels))
                left[index] = fit.trainer.tensors() if is_finite and not is_last else None
                del fit  # the next phase is built when nothing refers to this one
            trials += [trial] if is_last else []
    enter(phases[0], start)
    seconds = time.perf_counter() - began
    return Tuned(tuple(trials), choose_rate(trials), seconds)


def choose_rate(trials: Sequence[Trial]) -> float:
    """Return the rate with the best validation accuracy, the smallest rate if all diverged.

    Ties go to the smaller validation loss, then to the smaller rate.
    """

    def rank(trial: Trial) -> tuple[float, float, float]:
        accuracy = -1.0 if trial.val_top1 is None else trial.val_top1
        loss = math.inf if trial.val_loss is None else trial.val_loss
        return -accuracy, loss, trial.learning_rate

    return min(trials, key=rank).learning_rate


def _restore(trainer: Trainer, tensors: Mapping[str, Array]) -> None:
    assert isinstance(trainer, Restorable), "a search for a learning rate needs matched mode"
    trainer.restore(tensors)


def _train(trainer: Trainer, recipe: Recipe, batches: TrainingBatches, epochs: range) -> bool:
    """Train ``epochs`` of the run; return False as soon as a loss is not finite."""
    return all(
        np.isfinite(train_epoch(trainer, batches, recipe, epoch, epochs.start)).all()
        for epoch in epochs
    )


def _validate(trainer: Trainer, recipe: Recipe, validation: tuple[Array, Array]) -> Trial:
    images, labels = validation
    trial = Trial(learning_rate=recipe.learning_rate)
    logits = infer(trainer, images, recipe.batch_size)
    if logits_failure(logits):
        return trial
    return trial.model_copy(update=evaluate("val", logits, labels))
