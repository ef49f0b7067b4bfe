"""A Blueprint as a Keras functional model, channels last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from backends.keras_adapter.engines import Engine
from backends.keras_adapter.twin import layers
from backends.keras_adapter.twin.builders import BUILDERS, ValueShape
from backends.keras_adapter.twin.layouts import LAYOUTS
from bench.network.blueprint import (
    INPUT,
    Array,
    Blueprint,
    Network,
    Operation,
    channels_last,
    mask_shape,
)
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import Boundary

SEVERAL_INPUTS = frozenset({"add", "multiply", "cat"})
"""Kinds of operation whose layer takes a list of values."""


@dataclass(frozen=True)
class Slot:
    """A Keras variable and the tensor of the Blueprint that it holds."""

    tensor: str
    """Name in the Blueprint."""
    variable: Any
    """The ``keras.Variable``."""
    to_keras: Callable[[Array], Array]
    """Conversion from the Blueprint's layout to Keras's."""
    to_blueprint: Callable[[Array], Array]
    """Conversion from Keras's layout to the Blueprint's."""


class Twin:
    """A Blueprint as Keras layers, and two models over them: in training and in inference form.

    The training model takes uint8 images (N, px, px, 3) and the dropout masks of the plan; the
    inference model takes only the images. Both return logits (N, classes).
    """

    def __init__(self, network: Network, plan: TrainingPlan, engine: Engine) -> None:
        self.blueprint = network.blueprint
        self.plan = plan
        self._preprocess = layers.Preprocess(self.blueprint.preprocessing, name="preprocess")
        self._layers = {
            o.name: BUILDERS[o.kind](o, self._input_shape(o), engine)
            for o in self.blueprint.operations
        }
        # Traced once for logits and intermediate values, because tracing takes 0.25 s.
        inputs, self._inference_values = self._trace(training=False)
        self.inference = keras.Model(inputs, self._inference_values[self.blueprint.output])
        self.slots = [s for o in self.blueprint.operations for s in self._slots(o)]
        for slot in self.slots:
            slot.variable.assign(slot.to_keras(network.tensors[slot.tensor]))
        for index, operation in enumerate(self.blueprint.operations):
            for layer in self._layers[operation.name]:
                layer.trainable = plan.in_training(index)

    @cached_property
    def training(self) -> keras.Model:
        """The training model, assembled on first use: that takes 0.3 s, and a run that trains from
        cached values of the frozen prefix does not use it."""
        inputs, values = self._training
        return keras.Model(inputs, values[self.blueprint.output])

    @property
    def training_pixels(self) -> keras.Model:
        """Return a model of the images alone for the preprocessed pixels that ``training`` uses."""
        inputs, values = self._training
        return keras.Model(inputs[0], values[INPUT])

    @cached_property
    def _training(self) -> tuple[list[Any], dict[str, Any]]:
        return self._trace(training=True)

    def assemble(self, training: bool, resumed: Boundary | None = None) -> keras.Model:
        """Assemble a model over the shared layers that returns logits.

        Args:
            training: True to run the trained part in training form, with masks as inputs.
            resumed: Where to start: the model takes the value there, channels last, instead of
                images.
        """
        inputs, values = self._trace(training, resumed)
        return keras.Model(inputs, values[self.blueprint.output])

    def up_to(self, names: str | list[str]) -> keras.Model:
        """Return an inference model for the value of one operation, or for a list of values."""
        values = self._inference_values
        found = values[names] if isinstance(names, str) else [values[name] for name in names]
        return keras.Model(self.inference.inputs, found)

    def _trace(
        self, training: bool, resumed: Boundary | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the symbolic inputs of a model, and the value of each of its operations."""
        first = 0 if resumed is None else resumed.index
        source, given = self._source(resumed)
        masks = {
            o.name: keras.Input(mask_shape(o), dtype="bool", name=f"mask_{o.name}")
            for o in (self.plan.dropouts if training else ())
        }
        values: dict[str, Any] = dict([given])
        for index, operation in enumerate(self.blueprint.operations[first:], first):
            inputs = [values[name] for name in operation.inputs]
            trains = training and self.plan.in_training(index)
            values[operation.name] = self._apply(operation, inputs, masks, trains)
        return [source, *masks.values()], values

    def _source(self, resumed: Boundary | None) -> tuple[Any, tuple[str, Any]]:
        """Return a model's first input, and the name and value that its operations start from."""
        if resumed is not None:
            shape = channels_last(resumed.shape)
            values = keras.Input(shape, dtype=keras.config.floatx(), name="values")
            return values, (resumed.value, values)
        px = self.blueprint.px
        images = keras.Input((px, px, 3), dtype="uint8", name="images")
        return images, (INPUT, self._preprocess(images))

    def _apply(
        self, operation: Operation, inputs: list[Any], masks: dict[str, Any], trains: bool
    ) -> Any:
        stack = self._layers[operation.name]
        if operation.kind == "dropout":
            return stack[0](inputs[0], masks[operation.name]) if trains else inputs[0]
        if operation.kind == "batch_norm":
            return stack[0](inputs[0], batch_statistics=trains)
        x: Any = inputs if operation.kind in SEVERAL_INPUTS else inputs[0]
        for layer in stack:
            x = layer(x)
        return x

    def _input_shape(self, operation: Operation) -> ValueShape:
        """Return the shape of an operation's first input."""
        px = self.blueprint.px
        shapes: dict[str, ValueShape] = {o.name: o.shape for o in self.blueprint.operations}
        return shapes.get(operation.inputs[0], (3, px, px))

    def _slots(self, operation: Operation) -> list[Slot]:
        layer = self._layers[operation.name][-1] if operation.tensors else None
        shapes = self.blueprint.shapes
        return [
            Slot(tensor, *LAYOUTS[operation.kind](operation, role, layer, shapes[tensor]))
            for role, tensor in operation.tensors.items()
        ]


def channels_first(value: Array) -> Array:
    """Convert (N, H, W, C) to (N, C, H, W); return anything else unchanged."""
    return np.moveaxis(value, -1, 1) if value.ndim == 4 else value


def state_variables(blueprint: Blueprint, slots: list[Slot]) -> list[Any]:
    """Return the variables that hold BatchNorm statistics."""
    roles = {tensor: role for _, role, tensor in blueprint.named_tensors()}
    return [s.variable for s in slots if roles[s.tensor].startswith("running_")]
