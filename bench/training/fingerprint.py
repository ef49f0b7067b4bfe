"""Numbers of a run's first two steps, repeated from its start after all else was measured.

Backends that compute the same agree in them to rounding, in each run at its own input size, head,
precision and way of computing. Later steps are chaotic where a network trains whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice

import numpy as np

from bench.network.blueprint import Array
from bench.spec.result import Fingerprint
from bench.training.adapter import MatchedTrainer
from bench.training.fit import FIRST_LOSSES, Fit, take_step

IMAGES = 4
"""Number of validation images whose logits are computed."""
NOT_FINITE = 1e300
"""Difference of cached values that are not finite."""
LOGITS = 64
"""Largest number of logits that are kept."""


def fingerprint(
    fit: Fit, trainer: MatchedTrainer, start: Mapping[str, Array], images: Array
) -> Fingerprint:
    """Go back to the start of a run and repeat its first steps, once as they were and once with
    every number moved by one last bit.

    Args:
        fit: The fit of a run without phases, after its last epoch.
        trainer: Its trainer.
        start: The tensors that the run began with.
        images: Validation images, uint8 (N, px, px, 3).
    """
    trainer.restore(start)
    cached = fit.cached
    difference = None
    if cached is not None:
        whole = trainer.logits([trainer.infer(np.array(images[:IMAGES]))])
        resumed = trainer.logits([trainer.infer(np.array(cached.val[:IMAGES]))])
        found = relative_difference(whole, resumed)
        difference = NOT_FINITE if found is None else found
    losses, logits = _first_steps(fit, trainer)
    trainer.restore({name: np.nextafter(array, np.inf) for name, array in start.items()})
    moved_losses, moved_logits = _first_steps(fit, trainer)
    noise = [
        *map(relative_difference, losses, moved_losses),
        relative_difference(logits, moved_logits),
    ]
    return Fingerprint(
        step_losses=finite(fit.first_losses),
        repeated_losses=finite(losses.tolist()),
        logits_after_step=finite(logits.flatten()[:LOGITS].tolist()),
        noise=tuple(noise) if len(losses) == FIRST_LOSSES else (),
        cached_difference=difference,
    )


def _first_steps(fit: Fit, trainer: MatchedTrainer) -> tuple[Array, Array]:
    """Take the first steps; return their losses, and the logits in inference after the first."""
    inputs = np.array(fit.val[:IMAGES])
    losses: list[float] = []
    logits: Array = np.zeros(0)
    batches = fit.make_batches()
    with closing(batches.epoch(0)) as epoch:
        for index, batch in enumerate(islice(epoch, FIRST_LOSSES)):
            handle = take_step(trainer, batch, fit.recipe, (0, index), batches.steps_per_epoch)
            losses += trainer.losses([handle])
            if index == 0:
                logits = trainer.logits([trainer.infer(inputs)])
    return np.array(losses), logits


def finite(values: Sequence[float]) -> tuple[float | None, ...]:
    """Return numbers with None for those that are not finite."""
    return tuple(float(v) if math.isfinite(v) else None for v in values)


def relative_difference(whole: Array, other: Array) -> float | None:
    """Return the largest difference over the largest value; None if a number is not finite."""
    largest = float(np.abs(whole).max(initial=0.0))
    found = float(np.abs(whole - other).max(initial=0.0)) / max(largest, 1e-30)
    return found if math.isfinite(found) else None
