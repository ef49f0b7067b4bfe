"""The Keras variables of a Blueprint's tensors, and conversions between both layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bench.network.blueprint import Array, Operation

TensorShape = tuple[int, ...]
"""Shape of a tensor in the Blueprint."""
VariableLayout = tuple[Any, Callable[[Array], Array], Callable[[Array], Array]]
"""A variable, the conversion to its layout, and the conversion back to the Blueprint's."""


def _as_is(array: Array) -> Array:
    return array


def _conv_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
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


def _linear_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
    if role == "bias":
        return layer.bias, _as_is, _as_is
    return layer.kernel, np.transpose, np.transpose


def _batch_norm_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
    variables = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": layer.moving_mean,
        "running_var": layer.moving_variance,
    }
    return variables[role], _as_is, _as_is


def _layer_norm_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
    return layer.gamma if role == "weight" else layer.beta, _as_is, _as_is


def _parameter_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
    """Convert a parameter that broadcasts with a value: (C, 1, 1) becomes (1, 1, C)."""
    broadcast = tuple(o.attributes["shape"])
    if len(broadcast) < 3:
        return _reshaped_layout(o, role, layer, shape)
    return (
        layer.parameter,
        lambda w: np.transpose(w.reshape(broadcast), (1, 2, 0)),
        lambda w: np.transpose(w, (2, 0, 1)).reshape(shape),
    )


def _reshaped_layout(o: Operation, role: str, layer: Any, shape: TensorShape) -> VariableLayout:
    keras_shape = tuple(layer.parameter.shape)
    return layer.parameter, lambda w: w.reshape(keras_shape), lambda w: w.reshape(shape)


LAYOUTS: dict[str, Callable[[Operation, str, Any, TensorShape], VariableLayout]] = {
    "conv2d": _conv_layout,
    "linear": _linear_layout,
    "batch_norm": _batch_norm_layout,
    "layer_norm": _layer_norm_layout,
    "group_norm": _layer_norm_layout,
    "prelu": _reshaped_layout,
    "scale": _parameter_layout,
    "shift": _parameter_layout,
    "prepend": _reshaped_layout,
}
"""Kind of operation → function of (operation, role of the tensor, layer, shape of the tensor)."""
