"""The learning rate of each step."""

from __future__ import annotations

import math

from bench.spec.run import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the head's learning rate at ``step`` (from 0) of ``steps``.

    Linear warm-up over the first ``warmup_fraction``, reaching the peak at its end; then constant,
    or half a cosine (Loshchilov & Hutter 2017, without restarts) that would reach zero one step
    after the last.
    """
    warmup = round(recipe.warmup_fraction * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    progress = (step - warmup) / (steps - warmup)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
