"""Choosing a learning rate on the validation images: the same budget for every policy.

Each rate of the grid trains from the same start over all epochs; the one with the best validation
accuracy after the last epoch is then trained anew, measured. The test images are not looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.backend import Trainer
from bench.blueprint import Array
from bench.data.batches import TrainingBatches
from bench.schedule import learning_rate
from bench.scores import score
from bench.spec import Recipe, Trial

Report = Callable[[dict[str, Any]], None]
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
    steps = batches.steps_per_epoch
    total = recipe.epochs * steps
    for epoch in range(recipe.epochs):
        handles = []
        for index, batch in enumerate(batches.epoch(epoch)):
            rate = learning_rate(recipe, epoch * steps + index, total)
            handles.append(trainer.train_step(trainer.to_device(batch), rate))
        if not np.isfinite(trainer.losses(handles)).all():
            return Trial(learning_rate=recipe.learning_rate)
    images, labels = validation
    size = recipe.batch_size
    logits = trainer.logits(
        [trainer.infer(np.array(images[i : i + size])) for i in range(0, len(images), size)]
    )
    if not np.isfinite(logits).all():
        return Trial(learning_rate=recipe.learning_rate)
    top1, loss = score(logits, labels)
    return Trial(learning_rate=recipe.learning_rate, val_top1=top1, val_loss=loss)
