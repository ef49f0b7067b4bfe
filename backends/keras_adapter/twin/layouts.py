"""Where a Blueprint's tensors lie in Keras layers, and in which layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bench.network.blueprint import Array, Operation

Shape = tuple[int, ...]
Layout = tuple[Any, Callable[[Array], Array], Callable[[Array], Array]]


def _as_is(array: Array) -> Array:
    return array


def _conv_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
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


def _linear_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
    if role == "bias":
        return layer.bias, _as_is, _as_is
    return layer.kernel, np.transpose, np.transpose


def _batch_norm_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
    variables = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": layer.moving_mean,
        "running_var": layer.moving_variance,
    }
    return variables[role], _as_is, _as_is


def _layer_norm_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
    return layer.gamma if role == "weight" else layer.beta, _as_is, _as_is


def _parameter_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
    """Of a parameter that meets a value: (C, 1, 1) becomes (1, 1, C)."""
    meeting = tuple(o.attributes["shape"])
    if len(meeting) < 3:
        return _reshaped_layout(o, role, layer, shape)
    return (
        layer.parameter,
        lambda w: np.transpose(w.reshape(meeting), (1, 2, 0)),
        lambda w: np.transpose(w, (2, 0, 1)).reshape(shape),
    )


def _reshaped_layout(o: Operation, role: str, layer: Any, shape: Shape) -> Layout:
    wanted = tuple(layer.parameter.shape)
    return layer.parameter, lambda w: w.reshape(wanted), lambda w: w.reshape(shape)


LAYOUTS: dict[str, Callable[[Operation, str, Any, Shape], Layout]] = {
    "conv2d": _conv_layout,
    "linear": _linear_layout,
    "batch_norm": _batch_norm_layout,
    "layer_norm": _layer_norm_layout,
    "scale": _parameter_layout,
    "shift": _parameter_layout,
    "prepend": _reshaped_layout,
}
"""Kind of operation → (operation, role, layer, shape of the tensor) → variable, to Keras's layout,
and back."""
