"""PyTorch's SGD and AdamW on Keras variables.

Keras's own differ: SGD folds the learning rate into the velocity, AdamW adds epsilon to the
uncorrected root (docs/design.md, Twins and Blueprints). Formulas: docs.pytorch.org,
torch.optim.SGD and AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from backends.keras_adapter.engines import BETA_1, BETA_2, EPSILON, Engine, Scalars, Update
from backends.keras_adapter.twin.twin import Slot
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe


class Treatment(NamedTuple):
    """A trained variable, and how."""

    variable: Any
    """``keras.Variable``."""
    scale: Any
    """Its learning rate over the step's: a number, or a tensor that goes along with its shape."""
    decay: Any
    """Its weight decay: a number or such a tensor; None: none."""


def treatments_of(slots: list[Slot], plan: TrainingPlan, recipe: Recipe) -> list[Treatment]:
    """Of the variables that a plan trains."""
    found = []
    for slot in slots:
        if slot.tensor in plan.trained:
            planned = plan.trained[slot.tensor]
            decay = recipe.weight_decay if planned.decays and recipe.weight_decay else None
            found.append(Treatment(slot.variable, planned.learning_rate_scale, decay))
    return found


class TwinOptimizer:
    """One rule over the trained variables."""

    def __init__(self, treatments: Sequence[Treatment], recipe: Recipe, engine: Engine) -> None:
        self._fused = engine.fused_update(recipe)
        self.variables = [t.variable for t in treatments]
        self._treatments = treatments
        self._recipe = recipe
        self._guarded = recipe.precision == "fp16"
        moments = 1 if recipe.optimizer == "sgd" else 2
        self.moments = [
            [keras.Variable(ops.zeros(v.shape, v.dtype), trainable=False) for v in self.variables]
            for _ in range(moments)
        ]
        self.steps = 0

    def reset(self) -> None:
        """Forget the moments and the steps taken."""
        for moment in (m for moments in self.moments for m in moments):
            moment.assign(ops.zeros(moment.shape, moment.dtype))
        self.steps = 0

    def scalars(self, learning_rate: float) -> tuple[float, float, float]:
        """Learning rate and AdamW's corrections of the next step, in float64 on the host."""
        step = self.steps + 1
        return learning_rate, 1.0 - BETA_1**step, (1.0 - BETA_2**step) ** 0.5

    def apply(self, gradients: list[Any], scalars: tuple[Any, ...]) -> Any:
        """Update the variables; with fp16, only if every gradient is finite.

        Args:
            gradients: Of the scaled loss, in the order of ``variables``.
            scalars: Learning rate, the two corrections, and the loss scale.

        Returns:
            Whether all gradients were finite (always true without fp16).
        """
        rate, correction_1, correction_2, scale = scalars
        finite: Any = ops.convert_to_tensor(True)
        if self._guarded:
            gradients = [g / scale for g in gradients]
            finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in gradients]))
        for index, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            treatment = self._treatments[index]
            moments = [m[index] for m in self.moments]
            step = rate * treatment.scale
            if kernel := self._kernel(treatment):
                found = Scalars(step, self._recipe.momentum, correction_1, correction_2)
                kernel(variable, moments, gradient, treatment.decay, found)
                continue
            # As tensors: under torch, a Keras variable copies each Python number to the device.
            w, *values = (ops.convert_to_tensor(v) for v in (variable, *moments))
            rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
            new = rule(w, gradient, values, step, treatment.decay, correction_1, correction_2)
            for target, value in zip((variable, *moments), new, strict=True):
                target.assign(ops.where(finite, value, target) if self._guarded else value)
        return finite

    def _kernel(self, treatment: Treatment) -> Update | None:
        """The engine's own: it takes one learning rate for all of a variable, and no condition."""
        one_rate = isinstance(treatment.scale, float)
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
