"""Choosing a learning rate on the validation images: the same budget for every policy.

Each rate of the grid trains from the same start over all epochs; the one with the best validation
accuracy after the last epoch is then trained anew, measured. The test images are not looked at.
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
from bench.training.adapter import Trainer
from bench.training.batches import TrainingBatches
from bench.training.fit import Fit, Report, take_step
from bench.training.metrics import score

MakeBatches = Callable[[], TrainingBatches]


@dataclass(frozen=True)
class Tuned:
    """What was tried, and what it cost."""

    trials: tuple[Trial, ...]
    """In the order of the grid."""
    chosen: float
    """Learning rate."""
    seconds: float
    """For all trials."""


def tune(
    trainer: Trainer,
    recipe: Recipe,
    make_batches: MakeBatches,
    validation: tuple[Array, Array],
    report: Report,
) -> Tuned:
    """Try every rate of the recipe's grid; the trainer is at its start again afterwards.

    Args:
        trainer: At its start.
        recipe: With a grid.
        make_batches: The training batches from the first epoch on, anew for each trial.
        validation: Images, or what stands for them, and labels.
        report: Takes progress events.
    """
    began = time.perf_counter()
    start = trainer.tensors()
    trials = []
    for number, rate in enumerate(recipe.learning_rate_grid):
        report({"event": "trial", "number": number + 1, "of": len(recipe.learning_rate_grid)})
        at = recipe.model_copy(update={"learning_rate": rate})
        trials.append(_try(trainer, at, make_batches(), validation))
        trainer.restore(start)
    seconds = time.perf_counter() - began
    return Tuned(tuple(trials), choose_rate(trials), seconds)


Enter = Callable[[Phase, Mapping[str, Array]], Fit]
"""Builds a phase from tensors, unless it is there already."""


def tune_phases(
    phases: Sequence[Phase], enter: Enter, recipe: Recipe, labels: Array, report: Report
) -> Tuned:
    """The same for a run of several phases; the first one is at its start again afterwards.

    Each phase is built once, and every rate trains in it from the tensors that it left in the one
    before: there is one network at a time, and the host holds all tensors once for each rate.

    Args:
        phases: Of the run.
        enter: The first phase is there, at its start.
        recipe: With a grid.
        labels: Of the validation images.
        report: Takes progress events.
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
                fit.trainer.restore(tensors)
                at = fit.recipe.model_copy(update={"learning_rate": rate})
                is_finite = _train(fit.trainer, at, fit.make_batches(), phase.numbers)
                if is_last and is_finite:
                    trial = _judge(fit.trainer, at, (fit.val, labels))
                left[index] = fit.trainer.tensors() if is_finite and not is_last else None
                del fit  # the next phase is built when nobody holds this one
            trials += [trial] if is_last else []
    enter(phases[0], start)
    seconds = time.perf_counter() - began
    return Tuned(tuple(trials), choose_rate(trials), seconds)


def choose_rate(trials: Sequence[Trial]) -> float:
    """The rate with the best validation accuracy; of several, the least validation loss, then the
    smaller rate. Where all diverged, the smallest."""

    def rank(trial: Trial) -> tuple[float, float, float]:
        accuracy = -1.0 if trial.val_top1 is None else trial.val_top1
        loss = math.inf if trial.val_loss is None else trial.val_loss
        return -accuracy, loss, trial.learning_rate

    return min(trials, key=rank).learning_rate


def _try(
    trainer: Trainer, recipe: Recipe, batches: TrainingBatches, validation: tuple[Array, Array]
) -> Trial:
    if not _train(trainer, recipe, batches, range(recipe.epochs)):
        return Trial(learning_rate=recipe.learning_rate)
    return _judge(trainer, recipe, validation)


def _train(trainer: Trainer, recipe: Recipe, batches: TrainingBatches, epochs: range) -> bool:
    """Train; whether the losses stayed finite.

    Args:
        recipe: Over these epochs.
        epochs: Their numbers in the run.
    """
    steps = batches.steps_per_epoch
    for own, epoch in enumerate(epochs):
        handles = [
            take_step(trainer, batch, recipe, (own, index), steps)
            for index, batch in enumerate(batches.epoch(epoch))
        ]
        if not np.isfinite(trainer.losses(handles)).all():
            return False
    return True


def _judge(trainer: Trainer, recipe: Recipe, validation: tuple[Array, Array]) -> Trial:
    images, labels = validation
    size = recipe.batch_size
    logits = trainer.logits(
        [trainer.infer(np.array(images[i : i + size])) for i in range(0, len(images), size)]
    )
    if not np.isfinite(logits).all():
        return Trial(learning_rate=recipe.learning_rate)
    top1, loss = score(logits, labels)
    return Trial(learning_rate=recipe.learning_rate, val_top1=top1, val_loss=loss)
