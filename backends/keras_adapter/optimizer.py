"""PyTorch's SGD and AdamW on Keras variables.

Keras's own optimizers differ: SGD includes the learning rate in the velocity, AdamW adds epsilon to
the uncorrected root (docs/design.md, Twins and Blueprints). Formulas: docs.pytorch.org,
torch.optim.SGD and AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from backends.keras_adapter.engines import (
    BETA_1,
    BETA_2,
    EPSILON,
    Engine,
    FusedUpdate,
    UpdateScalars,
)
from backends.keras_adapter.twin.twin import Slot
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe


class TrainedVariable(NamedTuple):
    """A trained variable with its share of the learning rate and its weight decay."""

    variable: Any
    """The ``keras.Variable``."""
    rate_scale: Any
    """Factor on the step's learning rate: a number, or a tensor that broadcasts with the variable's
    shape."""
    decay: Any
    """Weight decay: a number or such a tensor; None for no decay."""


def trained_variables(
    slots: list[Slot], plan: TrainingPlan, recipe: Recipe
) -> list[TrainedVariable]:
    """Return the variables that a plan trains."""
    found = []
    for slot in slots:
        if slot.tensor in plan.trained:
            planned = plan.trained[slot.tensor]
            decay = recipe.weight_decay if planned.decays and recipe.weight_decay else None
            found.append(TrainedVariable(slot.variable, planned.learning_rate_scale, decay))
    return found


class TwinOptimizer:
    """SGD or AdamW over the trained variables."""

    def __init__(self, trained: Sequence[TrainedVariable], recipe: Recipe, engine: Engine) -> None:
        self._fused = engine.fused_update(recipe)
        self.variables = [t.variable for t in trained]
        self._trained = trained
        self._recipe = recipe
        self._guarded = recipe.precision == "fp16"
        moments = 1 if recipe.optimizer == "sgd" else 2
        self.moments = [
            [keras.Variable(ops.zeros(v.shape, v.dtype), trainable=False) for v in self.variables]
            for _ in range(moments)
        ]
        self.steps = 0

    def reset(self) -> None:
        """Set the moments and the step count to zero."""
        for moment in (m for moments in self.moments for m in moments):
            moment.assign(ops.zeros(moment.shape, moment.dtype))
        self.steps = 0

    def scalars(self, learning_rate: float) -> tuple[float, float, float]:
        """Compute the next step's learning rate and AdamW corrections, in float64 on the host."""
        step = self.steps + 1
        return learning_rate, 1.0 - BETA_1**step, (1.0 - BETA_2**step) ** 0.5

    def apply(self, gradients: list[Any], scalars: tuple[Any, ...]) -> Any:
        """Update the variables; with fp16, only if every gradient is finite.

        Args:
            gradients: Gradients of the scaled loss, in the order of ``variables``.
            scalars: Learning rate, the two corrections, and the loss scale.

        Returns:
            Boolean tensor: True if all gradients were finite (always True without fp16).
        """
        rate, correction_1, correction_2, scale = scalars
        finite: Any = ops.convert_to_tensor(True)
        if self._guarded:
            gradients = [g / scale for g in gradients]
            finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in gradients]))
        for index, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            trained = self._trained[index]
            moments = [m[index] for m in self.moments]
            step = rate * trained.rate_scale
            if kernel := self._kernel(trained):
                found = UpdateScalars(step, self._recipe.momentum, correction_1, correction_2)
                kernel(variable, moments, gradient, trained.decay, found)
                continue
            # As tensors: under torch, arithmetic on a Keras variable copies numbers to the device.
            w, *values = (ops.convert_to_tensor(v) for v in (variable, *moments))
            rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
            new = rule(w, gradient, values, step, trained.decay, correction_1, correction_2)
            for target, value in zip((variable, *moments), new, strict=True):
                target.assign(ops.where(finite, value, target) if self._guarded else value)
        return finite

    def _kernel(self, trained: TrainedVariable) -> FusedUpdate | None:
        """Return the engine's own kernel where it applies: it takes one learning rate per variable
        and cannot skip a step."""
        one_rate = isinstance(trained.rate_scale, float)
        return self._fused if one_rate and not self._guarded else None

    def _sgd(
        self, w: Any, g: Any, moments: list[Any], rate: Any, decay: Any, *_: Any
    ) -> tuple[Any, ...]:
        if decay is not None:
            g = g + decay * w
        velocity = self._recipe.momentum * moments[0] + g
        return w - rate * velocity, velocity

    def _adamw(
        self,
        w: Any,
        g: Any,
        moments: list[Any],
        rate: Any,
        decay: Any,
        correction_1: Any,
        correction_2: Any,
    ) -> tuple[Any, ...]:
        first = moments[0] + (1.0 - BETA_1) * (g - moments[0])
        second = BETA_2 * moments[1] + (1.0 - BETA_2) * (g * g)
        if decay is not None:
            w = w * (1.0 - rate * decay)
        root = ops.sqrt(second) / correction_2 + EPSILON
        return w - (rate / correction_1) * (first / root), first, second
