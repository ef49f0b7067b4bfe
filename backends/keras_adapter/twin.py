"""A Blueprint as a Keras functional model, channels last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from backends.keras_adapter import layers
from backends.keras_adapter.engines import Engine
from bench.blueprint import INPUT, Array, Blueprint, Network, Operation
from bench.plan import TrainingPlan

Layers = list[keras.layers.Layer]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A Keras variable and the tensor of the Blueprint that it holds."""

    tensor: str
    """Name in the Blueprint."""
    variable: Any
    """``keras.Variable``."""
    to_keras: Callable[[Array], Array]
    """From PyTorch's layout to Keras's."""
    to_blueprint: Callable[[Array], Array]
    """And back."""


class Twin:
    """The layers of a Blueprint, and the two models that they make: in training and inference form.

    The training model takes uint8 images (N, px, px, 3) and the dropout masks of the plan; the
    inference model takes the images alone. Both give logits (N, classes).
    """

    def __init__(self, network: Network, plan: TrainingPlan, engine: Engine) -> None:
        self.blueprint = network.blueprint
        self.plan = plan
        self._preprocess = layers.Preprocess(self.blueprint.preprocessing, name="preprocess")
        self._layers = {
            o.name: BUILDERS[o.kind](o, self._input_shape(o), engine)
            for o in self.blueprint.operations
        }
        self.inference = self.assemble(training=False)
        self.slots = [s for o in self.blueprint.operations for s in self._slots(o)]
        for slot in self.slots:
            slot.variable.assign(slot.to_keras(network.tensors[slot.tensor]))
        for index, operation in enumerate(self.blueprint.operations):
            for layer in self._layers[operation.name]:
                layer.trainable = plan.in_training(index)
        self.training = self.assemble(training=True)

    def assemble(self, training: bool, outputs: list[str] | None = None) -> keras.Model:
        """A functional model over the shared layers.

        Args:
            training: Whether the trained part runs in training form, with masks as inputs.
            outputs: Values to give, by the operation's name; the logits if None.
        """
        px = self.blueprint.px
        images = keras.Input((px, px, 3), dtype="uint8", name="images")
        masks = {
            o.name: keras.Input(channels_last(o.shape), dtype="bool", name=f"mask_{o.name}")
            for o in (self.plan.dropouts if training else ())
        }
        values: dict[str, Any] = {INPUT: self._preprocess(images)}
        for index, operation in enumerate(self.blueprint.operations):
            inputs = [values[name] for name in operation.inputs]
            trains = training and self.plan.in_training(index)
            values[operation.name] = self._apply(operation, inputs, masks, trains)
        given = [values[n] for n in outputs] if outputs else values[self.blueprint.output]
        return keras.Model([images, *masks.values()], given)

    def _apply(
        self, operation: Operation, inputs: list[Any], masks: dict[str, Any], trains: bool
    ) -> Any:
        stack = self._layers[operation.name]
        if operation.kind == "dropout":
            return stack[0](inputs[0], masks[operation.name]) if trains else inputs[0]
        if operation.kind == "batch_norm":
            return stack[0](inputs[0], batch_statistics=trains)
        x: Any = inputs if operation.kind in ("add", "cat") else inputs[0]
        for layer in stack:
            x = layer(x)
        return x

    def _input_shape(self, operation: Operation) -> Shape:
        """Shape (C, H, W) or (features,) of what an operation reads first."""
        px = self.blueprint.px
        shapes: dict[str, Shape] = {o.name: o.shape for o in self.blueprint.operations}
        return shapes.get(operation.inputs[0], (3, px, px))

    def _slots(self, operation: Operation) -> list[Slot]:
        layer = self._layers[operation.name][-1] if operation.tensors else None
        return [
            Slot(tensor, *LAYOUTS[operation.kind](operation, role, layer))
            for role, tensor in operation.tensors.items()
        ]


def channels_last(shape: Shape) -> Shape:
    """(C, H, W) → (H, W, C); (features,) as it is."""
    return (*shape[1:], shape[0])


def channels_first(value: Array) -> Array:
    """(N, H, W, C) → (N, C, H, W); anything else as it is."""
    return np.moveaxis(value, -1, 1) if value.ndim == 4 else value


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What ``padding="same"`` adds before and after (tensorflow.org, tf.nn, "SAME")."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _edges(padding: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    top, bottom, left, right = padding
    return (top, bottom), (left, right)


def _conv2d(o: Operation, shape: Shape, engine: Engine) -> Layers:
    channels, height, width = shape
    a = o.attributes
    kernel = tuple(a["kernel"])
    edges = _edges(a["padding"])
    same = edges == (
        _same_padding(height, kernel[0], a["stride"][0], a["dilation"][0]),
        _same_padding(width, kernel[1], a["stride"][1], a["dilation"][1]),
    )
    before = [] if same or not any(a["padding"]) else [keras.layers.ZeroPadding2D(edges)]
    options: dict[str, Any] = {
        "kernel_size": kernel,
        "strides": tuple(a["stride"]),
        "padding": "same" if same else "valid",
        "dilation_rate": tuple(a["dilation"]),
        "use_bias": "bias" in o.tensors,
        "name": o.name,
    }
    if a["groups"] == channels and channels > 1:
        multiplier = o.shape[0] // channels
        depthwise = keras.layers.DepthwiseConv2D(
            depth_multiplier=multiplier, depthwise_initializer="zeros", **options
        )
        return [*before, depthwise]
    convolution = keras.layers.Conv2D(
        o.shape[0], groups=a["groups"], kernel_initializer="zeros", **options
    )
    return [*before, convolution]


def _batch_norm(o: Operation, shape: Shape, engine: Engine) -> Layers:
    a = o.attributes
    return [layers.BatchNorm(a["epsilon"], a["momentum"], engine, name=o.name)]


def _max_pool2d(o: Operation, shape: Shape, engine: Engine) -> Layers:
    a = o.attributes
    (top, _), (left, _) = _edges(a["padding"])
    # Rows that the last window reaches beyond the input: what ceil mode adds, or fewer than the
    # padding below where floor mode leaves some unread.
    below = (o.shape[1] - 1) * a["stride"][0] + a["kernel"][0] - shape[1] - top
    right = (o.shape[2] - 1) * a["stride"][1] + a["kernel"][1] - shape[2] - left
    edges = (top, max(below, 0), left, max(right, 0))
    before = [layers.PadLowest(edges)] if any(edges) else []
    pool = keras.layers.MaxPooling2D(tuple(a["kernel"]), tuple(a["stride"]), name=o.name)
    return [*before, pool]


def _avg_pool2d(o: Operation, shape: Shape, engine: Engine) -> Layers:
    a = o.attributes
    pool = keras.layers.AveragePooling2D(tuple(a["kernel"]), tuple(a["stride"]), name=o.name)
    return [pool]


def _flatten(o: Operation, shape: Shape, engine: Engine) -> Layers:
    """In PyTorch's order, channels first."""
    flat = keras.layers.Flatten(name=o.name)
    spatial = len(shape) == 3 and shape[1:] != (1, 1)
    return [keras.layers.Permute((3, 1, 2)), flat] if spatial else [flat]


def _linear(o: Operation, shape: Shape, engine: Engine) -> Layers:
    dense = layers.Dense(
        o.shape[0], use_bias="bias" in o.tensors, kernel_initializer="zeros", name=o.name
    )
    return [dense]


BUILDERS: dict[str, Callable[[Operation, Shape, Engine], Layers]] = {
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "relu": lambda o, s, e: [keras.layers.ReLU(name=o.name)],
    "relu6": lambda o, s, e: [keras.layers.ReLU(max_value=6.0, name=o.name)],
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda o, s, e: [
        layers.AdaptiveAveragePool(tuple(o.attributes["output_size"]), name=o.name)
    ],
    "add": lambda o, s, e: [keras.layers.Add(name=o.name)],
    "cat": lambda o, s, e: [keras.layers.Concatenate(axis=-1, name=o.name)],
    "flatten": _flatten,
    "dropout": lambda o, s, e: [layers.MaskedDropout(o.attributes["rate"], name=o.name)],
    "linear": _linear,
    "pad": lambda o, s, e: [
        keras.layers.ZeroPadding2D(_edges(o.attributes["padding"]), name=o.name)
    ],
}
"""Kind of operation → (operation, shape of its input, engine) → layers, applied in turn."""

Layout = tuple[Any, Callable[[Array], Array], Callable[[Array], Array]]


def _as_is(array: Array) -> Array:
    return array


def _conv_layout(o: Operation, role: str, layer: Any) -> Layout:
    if role == "bias":
        return layer.bias, _as_is, _as_is
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = layer.kernel

        def to_keras(w: Array) -> Array:
            height, width, channels, multiplier = kernel.shape
            grouped = w.reshape(channels, multiplier, height, width)
            return np.transpose(grouped, (2, 3, 0, 1))

        return (
            kernel,
            to_keras,
            lambda w: np.transpose(w, (2, 3, 0, 1)).reshape(-1, 1, *w.shape[:2]),
        )
    return (
        layer.kernel,
        lambda w: np.transpose(w, (2, 3, 1, 0)),
        lambda w: np.transpose(w, (3, 2, 0, 1)),
    )


def _linear_layout(o: Operation, role: str, layer: Any) -> Layout:
    if role == "bias":
        return layer.bias, _as_is, _as_is
    return layer.kernel, np.transpose, np.transpose


def _batch_norm_layout(o: Operation, role: str, layer: Any) -> Layout:
    variables = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": layer.moving_mean,
        "running_var": layer.moving_variance,
    }
    return variables[role], _as_is, _as_is


LAYOUTS: dict[str, Callable[[Operation, str, Any], Layout]] = {
    "conv2d": _conv_layout,
    "batch_norm": _batch_norm_layout,
    "linear": _linear_layout,
}
"""Kind of operation → (operation, role, layer) → variable, to Keras's layout, and back."""


def state_variables(blueprint: Blueprint, slots: list[Slot]) -> list[Any]:
    """The variables that hold BatchNorm statistics."""
    roles = {tensor: role for _, role, tensor in blueprint.named_tensors()}
    return [s.variable for s in slots if roles[s.tensor].startswith("running_")]
