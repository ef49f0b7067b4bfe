"""Defects to plant in the Keras adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import keras
from keras import ops

from backends.keras_adapter.engines import BETA_1, BETA_2, EPSILON
from backends.keras_adapter.optimizer import TwinOptimizer
from backends.keras_adapter.trainer import KerasTrainer
from backends.keras_adapter.twin import layers
from backends.keras_adapter.twin.builders import BUILDERS
from backends.keras_adapter.twin.twin import Twin
from tests.parity.plants import TRAINED_STAGE, Plant, all_in_training, in_any_adapter, wrapped


def _method(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Plant:
    """Replace a method of a class by ``wrap`` of it."""
    return Plant(patches=lambda: [patch.object(owner, name, wrap(getattr(owner, name)))])


def _rule(name: str, wrap: Callable[[Any], Any]) -> Plant:
    """Replace an update rule of the optimizer, and disable the engine's fused kernels."""

    def apply(sound: Any) -> Any:
        def changed(self: TwinOptimizer, gradients: Any, scalars: Any) -> None:
            self._fused = None
            sound(self, gradients, scalars)

        return changed

    return Plant(
        patches=lambda: [
            patch.object(TwinOptimizer, name, wrap(getattr(TwinOptimizer, name))),
            patch.object(TwinOptimizer, "apply", apply(TwinOptimizer.apply)),
        ]
    )


class _Engine:
    """An engine that delegates everything to a sound one."""

    def __init__(self, sound: Any) -> None:
        self._sound = sound

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sound, name)


class _BiasedVariance(_Engine):
    """An engine with a biased running variance, as in Keras's own layer."""

    def batch_norm_training(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, momentum: Any
    ) -> Any:
        kept = ops.convert_to_tensor(variance) * (1.0 - momentum)
        y = self._sound.batch_norm_training(x, gamma, beta, mean, variance, epsilon, momentum)
        values = ops.cast(ops.size(x) // x.shape[-1], variance.dtype)
        moved = ops.convert_to_tensor(variance) - kept
        variance.assign(kept + moved * (values - 1.0) / values)
        return y


class _OnlyMoves(_Engine):
    """An engine that normalises by the running statistics and also updates them."""

    def batch_norm_training(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, momentum: Any
    ) -> Any:
        old = (ops.convert_to_tensor(v) for v in (mean, variance))
        y = self._sound.batch_norm_inference(x, gamma, beta, *old, epsilon)
        self._sound.batch_norm_training(x, gamma, beta, mean, variance, epsilon, momentum)
        return y


def _with_engine(change: Callable[[Any], Any], but_in: str = "") -> Callable[[Any], Any]:
    """Pass a changed engine to a builder, except in the stage ``but_in``."""
    return lambda build: (
        lambda o, shape, engine: build(o, shape, engine if o.stage == but_in else change(engine))
    )


def _pad_zeros(call: Any) -> Any:
    def changed(self: layers.PadLowest, x: Any) -> Any:
        top, bottom, left, right = self.edges
        return ops.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=0.0)

    return changed


class _Dropout(keras.layers.Layer):
    """Dropout that is active in inference too."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def call(self, x: Any) -> Any:
        return keras.random.dropout(x, self.rate, seed=0)


def _always_dropout(apply: Any) -> Any:
    """Apply dropout in inference form too."""

    def changed(self: Twin, operation: Any, inputs: Any, masks: Any, trains: bool) -> Any:
        if operation.kind == "dropout" and not trains:
            return _Dropout(operation.attributes["rate"])(inputs[0])
        return apply(self, operation, inputs, masks, trains)

    return changed


Rule = Callable[..., Any]
"""(optimizer, gradient, [weights, moments …], trained variable, scalars) → new weights, moments."""


def _keras_sgd(rule: Rule) -> Rule:
    """Use Keras's SGD, whose velocity includes the learning rate."""

    def changed(self: TwinOptimizer, g: Any, values: Any, trained: Any, scalars: Any) -> Any:
        w, velocity = values
        if trained.decay:
            g = g + trained.decay * w
        rate = scalars.rate * trained.rate_scale
        velocity = self._recipe.momentum * velocity - rate * g
        return w + velocity, velocity

    return changed


def _coupled(rule: Rule) -> Rule:
    """Add the decay to the gradient: Adam with L2 instead of AdamW."""

    def changed(self: TwinOptimizer, g: Any, values: Any, trained: Any, scalars: Any) -> Any:
        g = g + (trained.decay or 0.0) * values[0]
        return rule(self, g, values, trained._replace(decay=None), scalars)

    return changed


def _decoupled(rule: Rule) -> Rule:
    """Decay the weights directly: SGDW instead of SGD."""

    def changed(self: TwinOptimizer, g: Any, values: Any, trained: Any, scalars: Any) -> Any:
        w, *moments = values
        w = w * (1.0 - scalars.rate * trained.rate_scale * (trained.decay or 0.0))
        return rule(self, g, [w, *moments], trained._replace(decay=None), scalars)

    return changed


def _keras_adam(rule: Rule) -> Rule:
    """Use Keras's AdamW, which adds epsilon to the root before its correction."""

    def changed(self: TwinOptimizer, g: Any, values: Any, trained: Any, scalars: Any) -> Any:
        w, first, second = values
        rate = scalars.rate * trained.rate_scale
        first = BETA_1 * first + (1.0 - BETA_1) * g
        second = BETA_2 * second + (1.0 - BETA_2) * g * g
        root = (ops.sqrt(second) + EPSILON) / scalars.correction_2
        w = w * (1.0 - rate * (trained.decay or 0.0))
        return w - rate / scalars.correction_1 * first / root, first, second

    return changed


def _next_label(criterion: Any) -> Any:
    return lambda self, labels, logits: criterion(self, (labels + 1) % logits.shape[-1], logits)


def _softmax_first(criterion: Any) -> Any:
    """Apply softmax first; times 1, because Keras would recognise and remove a plain softmax."""
    return lambda self, labels, logits: criterion(self, labels, ops.softmax(logits) * 1.0)


def _resumed_in_inference(assemble: Any) -> Any:
    """Run the part behind the frozen prefix in inference form, in training too."""

    def changed(self: Twin, training: bool, resumed: Any = None) -> Any:
        sound = self.plan
        if resumed is not None:
            self.plan = replace(sound, first_trained=len(self.blueprint.operations))
        try:
            return assemble(self, training, resumed)
        finally:
            self.plan = sound

    return changed


def _flipped_in_training(trace: Any) -> Any:
    def changed(self: Twin, training: bool, resumed: Any = None) -> Any:
        sound = self._preprocess
        if training:
            self._preprocess = lambda images: ops.flip(sound(images), axis=2)
        try:
            return trace(self, training, resumed)
        finally:
            self._preprocess = sound

    return changed


def _without_reset(restore: Any) -> Any:
    """Go back to the start without forgetting the optimizer's moments."""

    def changed(self: KerasTrainer, tensors: Any) -> None:
        with patch.object(TwinOptimizer, "reset", lambda self: None):
            restore(self, tensors)

    return changed


PLANTS: dict[str, Plant] = {
    **in_any_adapter(BUILDERS),
    "biased_variance": wrapped(BUILDERS, "batch_norm", _with_engine(_BiasedVariance)),
    "statistics_move_in_frozen_stage": replace(
        wrapped(BUILDERS, "batch_norm", _with_engine(_OnlyMoves, but_in=TRAINED_STAGE)),
        plan=all_in_training,
    ),
    "max_pool_padding_with_zeros": _method(layers.PadLowest, "call", _pad_zeros),
    "flatten_order": wrapped(BUILDERS, "flatten", lambda build: lambda *given: build(*given)[-1:]),
    "dropout_in_evaluation": _method(Twin, "_apply", _always_dropout),
    "learning_rate_in_velocity": _rule("_sgd", _keras_sgd),
    "coupled_decay": _rule("_adamw", _coupled),
    "decoupled_decay": _rule("_sgd", _decoupled),
    "moments_kept": _method(KerasTrainer, "restore", _without_reset),
    "resumed_in_inference_form": _method(Twin, "assemble", _resumed_in_inference),
    "pixels_flipped_in_training": _method(Twin, "_trace", _flipped_in_training),
    "adam_epsilon": _rule("_adamw", _keras_adam),
    "label_off_by_one_in_loss": _method(KerasTrainer, "_criterion", _next_label),
    "softmax_in_loss": _method(KerasTrainer, "_criterion", _softmax_first),
}
"""Name in ``tests.parity.defects`` → defect."""
