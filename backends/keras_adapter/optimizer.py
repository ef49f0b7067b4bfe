"""PyTorch's SGD and AdamW on Keras variables.

Keras's own optimizers differ: SGD includes the learning rate in the velocity, AdamW adds epsilon to
the uncorrected root (docs/design.md, Twins and Blueprints). Formulas: docs.pytorch.org,
torch.optim.SGD and AdamW, torch.amp.GradScaler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from backends.keras_adapter.engines import (
    BETA_1,
    BETA_2,
    EPSILON,
    Engine,
    TrainedVariable,
    UpdateScalars,
)
from backends.keras_adapter.twin.twin import Slot
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe

FIRST_LOSS_SCALE, GROWTH_STEPS = 2.0**16, 2000
"""Initial loss scale and steps before it doubles, as in ``torch.amp.GradScaler``."""


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


class LossScale:
    """The factor on the loss in fp16. It lives on the device, like the count of steps that were not
    skipped, so that no step waits for the device."""

    def __init__(self) -> None:
        self._scale, self._good_steps, self._steps = (
            keras.Variable(value, trainable=False, dtype=keras.config.floatx(), autocast=False)
            for value in (FIRST_LOSS_SCALE, 0.0, 0.0)
        )

    def reset(self) -> None:
        """Begin anew."""
        values = zip(
            (self._scale, self._good_steps, self._steps), (FIRST_LOSS_SCALE, 0.0, 0.0), strict=True
        )
        for variable, value in values:
            variable.assign(value)

    @property
    def value(self) -> Any:
        """The factor, as a tensor."""
        return ops.convert_to_tensor(self._scale)

    def corrections(self) -> tuple[Any, Any]:
        """Return AdamW's 1 - b1^t and sqrt(1 - b2^t) of the step that is taken now."""
        step = ops.convert_to_tensor(self._steps) + 1.0
        return 1.0 - _power(BETA_1, step), ops.sqrt(1.0 - _power(BETA_2, step))

    def adapt(self, finite: Any) -> None:
        """Halve the factor after an overflow; double it after 2,000 good steps in a row."""
        scale, good, steps = (
            ops.convert_to_tensor(v) for v in (self._scale, self._good_steps, self._steps)
        )
        good = good + 1.0
        is_due = good >= GROWTH_STEPS
        self._scale.assign(ops.where(finite, ops.where(is_due, scale * 2, scale), scale / 2))
        zero = ops.zeros_like(good)
        self._good_steps.assign(ops.where(finite, ops.where(is_due, zero, good), zero))
        self._steps.assign(ops.where(finite, steps + 1.0, steps))


def _power(base: float, exponent: Any) -> Any:
    """Compute a power without a copy of ``base`` to the device."""
    return ops.exp(exponent * math.log(base))


class TwinOptimizer:
    """SGD or AdamW over the trained variables."""

    def __init__(self, trained: Sequence[TrainedVariable], recipe: Recipe, engine: Engine) -> None:
        self.variables = [t.variable for t in trained]
        self._trained = trained
        self._recipe = recipe
        moments = 1 if recipe.optimizer == "sgd" else 2
        self.moments = [
            [keras.Variable(ops.zeros(v.shape, v.dtype), trainable=False) for v in self.variables]
            for _ in range(moments)
        ]
        self.loss_scale = LossScale() if recipe.precision == "fp16" else None
        # An engine's kernels take one rate a variable.
        one_rate = all(isinstance(t.rate_scale, float) for t in trained)
        fused = engine.fused_update(recipe, trained, self.moments) if one_rate else None
        is_able = fused is not None and (self.loss_scale is None or fused.can_skip)
        self._fused = fused if is_able else None
        self.steps = 0
        """Steps taken so far; in fp16 the device counts those that were not skipped."""

    def reset(self) -> None:
        """Set the moments, the step count and the loss scale to their start."""
        for moment in (m for moments in self.moments for m in moments):
            moment.assign(ops.zeros(moment.shape, moment.dtype))
        if self._fused is not None:
            self._fused.reset()
        if self.loss_scale is not None:
            self.loss_scale.reset()
        self.steps = 0

    def scalars(self, learning_rate: float) -> tuple[float, float, float]:
        """Compute the next step's learning rate and AdamW corrections, in float64 on the host."""
        step = self.steps + 1
        return learning_rate, 1.0 - BETA_1**step, (1.0 - BETA_2**step) ** 0.5

    def apply(self, gradients: list[Any], scalars: UpdateScalars) -> None:
        """Update the variables; in fp16, only if every gradient is finite.

        Args:
            gradients: Gradients of the scaled loss, in the order of ``variables``.
            scalars: Scalars of the step.
        """
        if self._fused is not None:
            scale = None if self.loss_scale is None else self.loss_scale.value
            finite = self._fused(gradients, scalars, scale)
            if self.loss_scale is not None:
                self.loss_scale.adapt(finite)
            return
        finite = None
        if self.loss_scale is not None:
            scale = self.loss_scale.value
            gradients = [g / scale for g in gradients]
            finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in gradients]))
            scalars = UpdateScalars(scalars.rate, *self.loss_scale.corrections())
        rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
        for index, (trained, gradient) in enumerate(zip(self._trained, gradients, strict=True)):
            targets = trained.variable, *(m[index] for m in self.moments)
            # As tensors: under torch, arithmetic on a Keras variable copies numbers to the device.
            values = [ops.convert_to_tensor(v) for v in targets]
            for target, old, new in zip(
                targets, values, rule(gradient, values, trained, scalars), strict=True
            ):
                target.assign(new if finite is None else ops.where(finite, new, old))
        if self.loss_scale is not None:
            self.loss_scale.adapt(finite)

    def _sgd(
        self, g: Any, values: list[Any], trained: TrainedVariable, scalars: UpdateScalars
    ) -> tuple[Any, ...]:
        w, velocity = values
        if trained.decay is not None:
            g = g + trained.decay * w
        velocity = self._recipe.momentum * velocity + g
        return w - scalars.rate * trained.rate_scale * velocity, velocity

    def _adamw(
        self, g: Any, values: list[Any], trained: TrainedVariable, scalars: UpdateScalars
    ) -> tuple[Any, ...]:
        w, first, second = values
        rate = scalars.rate * trained.rate_scale
        first = first + (1.0 - BETA_1) * (g - first)
        second = BETA_2 * second + (1.0 - BETA_2) * (g * g)
        if trained.decay is not None:
            w = w * (1.0 - rate * trained.decay)
        root = ops.sqrt(second) / scalars.correction_2 + EPSILON
        return w - (rate / scalars.correction_1) * (first / root), first, second
