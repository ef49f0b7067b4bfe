"""Choosing a learning rate on the validation images: the same budget for every policy.

Each rate of the grid trains from the same start over all epochs. If the best one is the highest or
the lowest of them, up to two further rates in that direction are tried, so that no policy is
compared at a rate known to be too low. The rate with the best validation accuracy after the last
epoch is then trained anew, with all measurements. The test images are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.data.model import Labels
from bench.network.blueprint import Array
from bench.network.phases import Phase
from bench.spec.result import Trial
from bench.spec.run import Recipe
from bench.training.adapter import Restorable
from bench.training.fit import Fit, infer, train_epoch
from bench.training.metrics import evaluate
from bench.workers.events import OnEvent, RateTrial

Enter = Callable[[Phase, Mapping[str, Array]], Fit]
"""Builds a phase from tensors, unless it is the one that is built already."""


def tune(
    phases: Sequence[Phase], enter: Enter, recipe: Recipe, labels: Labels, report: OnEvent
) -> list[Trial]:
    """Try every rate of the recipe's grid, in its order, then further ones as long as the best rate
    is the highest or the lowest tried (``next_rate``), and restore the first phase to its start.

    Each phase is built once for the grid, and every rate trains in it from the tensors that it left
    in the phase before: there is one network at a time, and the host holds all tensors once for
    each rate.

    ``enter`` has built the first phase, which is at its start; ``labels`` are those of the
    validation images.
    """
    start = enter(phases[0], {}).trainer.tensors()

    def try_rates(rates: Sequence[float], first: int) -> list[Trial]:
        """Train each rate through all phases; ``first`` is the number of the first one."""
        left: list[dict[str, Array] | None] = [start] * len(rates)
        trials = {rate: Trial(learning_rate=rate) for rate in rates}
        for number, phase in enumerate(phases):
            is_last = number == len(phases) - 1
            for index, rate in enumerate(rates):
                place = {"phase": number + 1, "phases": len(phases)} if len(phases) > 1 else {}
                report(RateTrial(number=first + index, of=first + len(rates) - 1, **place))
                tensors = left[index]
                if tensors is None:
                    continue
                fit = enter(phase, tensors)
                _restore(fit, tensors)
                is_finite = _train(fit, rate)
                if is_last and is_finite:
                    trials[rate] = _validate(fit, rate, labels)
                left[index] = fit.trainer.tensors() if is_finite and not is_last else None
                del fit  # the next phase is built when nothing refers to this one
        return [trials[rate] for rate in rates]

    grid = recipe.learning_rate_grid
    found = try_rates(grid, 1)
    while (further := next_rate(found, grid)) is not None:
        found += try_rates([further], len(found) + 1)
    _restore(enter(phases[0], start), start)
    return found


EDGE_STEP = 3.0
"""Ratio of a further rate to the highest one tried, or of the lowest one to it."""
MOST_STEPS = 2
"""Most further rates above the grid, and most below it."""


def next_rate(trials: Sequence[Trial], grid: Sequence[float]) -> float | None:
    """Return a rate beyond the highest or lowest one tried, if that is the best one so far; None if
    the best rate lies inside, or ``MOST_STEPS`` rates beyond that end of the grid were tried."""
    rates, best = [trial.learning_rate for trial in trials], choose_rate(trials)
    if len(grid) < 2:
        return None
    if best == max(rates):
        is_spent = sum(rate > max(grid) for rate in rates) == MOST_STEPS
        return None if is_spent else best * EDGE_STEP
    if best == min(rates):
        is_spent = sum(rate < min(grid) for rate in rates) == MOST_STEPS
        return None if is_spent else best / EDGE_STEP
    return None


def choose_rate(trials: Sequence[Trial]) -> float:
    """Return the rate with the best validation accuracy, the smallest rate if all diverged.

    Ties go to the smaller validation loss, then to the smaller rate.
    """

    def rank(trial: Trial) -> tuple[float, float, float]:
        accuracy = -1.0 if trial.val_top1 is None else trial.val_top1
        loss = math.inf if trial.val_loss is None else trial.val_loss
        return -accuracy, loss, trial.learning_rate

    return min(trials, key=rank).learning_rate


def _restore(fit: Fit, tensors: Mapping[str, Array]) -> None:
    assert isinstance(fit.trainer, Restorable), "a search for a learning rate needs matched mode"
    fit.trainer.restore(tensors)


def _train(fit: Fit, rate: float) -> bool:
    """Train the epochs of a phase; return False as soon as a loss is not finite."""
    recipe = fit.recipe.model_copy(update={"learning_rate": rate})
    batches, epochs = fit.make_batches(), fit.phase.numbers
    return all(
        np.isfinite(train_epoch(fit.trainer, batches, recipe, epoch, epochs.start)).all()
        for epoch in epochs
    )


def _validate(fit: Fit, rate: float, labels: Labels) -> Trial:
    logits = infer(fit.trainer, fit.val, fit.recipe.batch_size)
    values = evaluate("val", logits, labels) if np.isfinite(logits).all() else {}
    return Trial(learning_rate=rate).model_copy(update=values)
