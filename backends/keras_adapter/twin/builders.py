"""Builders of the Keras layers for each kind of operation in a Blueprint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras_adapter.engines import Edges, Engine
from backends.keras_adapter.twin import layers
from bench.network.blueprint import Array, Operation, channels_last, interpolation

LayerStack = list[keras.layers.Layer]
"""Layers applied one after the other."""
ValueShape = tuple[int, ...]
"""Shape (C, H, W), (L, C) or (C,) of an operation's input, as in the Blueprint."""
LayerBuilder = Callable[[Operation, ValueShape, Engine], LayerStack]


def _edges(padding: list[int]) -> Edges:
    top, bottom, left, right = padding
    return (top, bottom), (left, right)


def _conv2d(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    channels, height, width = shape
    a = o.attributes
    kernel = tuple(a["kernel"])
    edges = _edges(a["padding"])
    same = edges == (
        layers.same_padding(height, kernel[0], a["stride"][0], a["dilation"][0]),
        layers.same_padding(width, kernel[1], a["stride"][1], a["dilation"][1]),
    )
    if engine.pads():
        return [_padding_convolution(o, edges, engine)]
    before = [] if same or not any(a["padding"]) else [keras.layers.ZeroPadding2D(edges)]
    options: dict[str, Any] = {
        "kernel_size": kernel,
        "strides": tuple(a["stride"]),
        "padding": "same" if same else "valid",
        "dilation_rate": tuple(a["dilation"]),
        "use_bias": "bias" in o.tensors,
        "name": o.name,
    }
    if a["groups"] == channels > 1 and a["stride"][0] == a["stride"][1]:
        multiplier = o.shape[0] // channels
        taps = engine.taps_depthwise()
        constructor = layers.TapDepthwiseConv2D if taps else keras.layers.DepthwiseConv2D
        depthwise = constructor(
            depth_multiplier=multiplier, depthwise_initializer="zeros", **options
        )
        return [*before, depthwise]
    split = a["groups"] > 1 and engine.splits_groups()
    constructor = layers.SplitConv2D if split else keras.layers.Conv2D
    convolution = constructor(o.shape[0], groups=a["groups"], kernel_initializer="zeros", **options)
    return [*before, convolution]


def _padding_convolution(o: Operation, edges: Edges, engine: Engine) -> keras.layers.Layer:
    """Build a convolution of an engine that takes any padding and any number of groups."""
    a = o.attributes
    return layers.Convolution(
        edges, (o.shape[1], o.shape[2]), engine, o.shape[0], tuple(a["kernel"]),
        strides=tuple(a["stride"]), dilation_rate=tuple(a["dilation"]), groups=a["groups"],
        use_bias="bias" in o.tensors, kernel_initializer="zeros", name=o.name,
    )  # fmt: skip


def _batch_norm(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    scaled, shifted = ("weight" in o.tensors, "bias" in o.tensors)
    norm = layers.BatchNorm(
        a["epsilon"], a["momentum"], engine, scaled, shifted, shape[0], name=o.name
    )
    return [norm]


def _layer_norm(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    norm = keras.layers.LayerNormalization(
        axis=-1,
        epsilon=o.attributes["epsilon"],
        scale="weight" in o.tensors,
        center="bias" in o.tensors,
        name=o.name,
    )
    return [norm]


def _max_pool2d(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    (top, bottom), (left, right) = _pool_edges(o, shape)
    edges = (top, bottom, left, right)
    kernel, stride = tuple(a["kernel"]), tuple(a["stride"])
    if engine.pads():
        padding = ((top, bottom), (left, right))
        return [layers.MaxPool(kernel, stride, padding, engine, name=o.name)]
    before = [layers.PadLowest(edges)] if any(edges) else []
    pool = keras.layers.MaxPooling2D(kernel, stride, name=o.name)
    return [*before, pool]


def _avg_pool2d(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    kernel, stride = tuple(a["kernel"]), tuple(a["stride"])
    edges = _pool_edges(o, shape)
    if not any(sum(edges, ())):
        return [layers.AveragePool(kernel, stride, edges, None, engine, name=o.name)]
    counted = _edges(a["padding"]) if a["count_padding"] else ((0, 0), (0, 0))
    counts = [
        _counts(size, *axis)
        for size, axis in zip(
            shape[1:], zip(kernel, stride, edges, counted, strict=True), strict=True
        )
    ]
    divisors = np.outer(*counts)
    return [layers.AveragePool(kernel, stride, edges, divisors, engine, name=o.name)]


def _pool_edges(o: Operation, shape: ValueShape) -> Edges:
    """Return the padding that the windows of a pooling actually read.

    The last window may read more than the declared padding in ceil mode, and less in floor mode.
    """
    a = o.attributes
    (top, _), (left, _) = _edges(a["padding"])
    below = (o.shape[1] - 1) * a["stride"][0] + a["kernel"][0] - shape[1] - top
    right = (o.shape[2] - 1) * a["stride"][1] + a["kernel"][1] - shape[2] - left
    return (top, max(below, 0)), (left, max(right, 0))


def _counts(
    size: int, kernel: int, stride: int, edges: tuple[int, int], counted: tuple[int, int]
) -> Array:
    """Count the elements of each window along one axis that enter the average (ATen, avg_pool2d).

    Args:
        size: Size of the input.
        kernel: Size of a window.
        stride: Step between windows.
        edges: Padding before and after that windows read.
        counted: Padding before and after that counts; what ceil mode reads beyond it does not.
    """
    inside = np.zeros(edges[0] + size + edges[1])
    inside[edges[0] - counted[0] : edges[0] + size + counted[1]] = 1.0
    windows = np.lib.stride_tricks.sliding_window_view(inside, kernel)[::stride]
    counts: Array = windows.sum(axis=1)
    return counts


def _flatten(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    """Flatten in PyTorch's order, channels first."""
    flat = keras.layers.Flatten(name=o.name)
    spatial = len(shape) == 3 and shape[1:] != (1, 1)
    return [keras.layers.Permute((3, 1, 2)), flat] if spatial else [flat]


def _linear(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    dense = layers.Dense(
        channels_last(o.shape)[-1],
        use_bias="bias" in o.tensors,
        kernel_initializer="zeros",
        name=o.name,
    )
    return [dense]


def _parameter_shape(o: Operation) -> ValueShape:
    """Return the shape, in Keras's layout, of the parameter of ``scale`` or ``shift``."""
    return channels_last(tuple(o.attributes["shape"]))


def _attention(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    return [layers.Attention(o.attributes["heads"], o.attributes["scale"], name=o.name)]


def _affine(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    return [layers.Affine(o.attributes["factor"], o.attributes["offset"], name=o.name)]


def _group_norm(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    roles = ("weight" in o.tensors, "bias" in o.tensors)
    return [layers.GroupNorm(a["groups"], a["epsilon"], *roles, name=o.name)]


def _dropout(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    alpha = o.attributes.get("form") == "alpha"
    constructor = layers.AlphaDropout if alpha else layers.MaskedDropout
    return [constructor(o.attributes["rate"], name=o.name)]


def _leaky_relu(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    slope = o.attributes["slope"]
    return [layers.Function(lambda x: ops.where(x > 0, x, x * slope), name=o.name)]


def _elu(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    alpha = o.attributes["alpha"]

    def elu(x: Any) -> Any:
        below = ops.expm1(-ops.relu(-x)) * alpha  # finite, also where it is not taken
        return ops.where(x > 0, x, below)

    return [layers.Function(elu, name=o.name)]


def _mish(x: Any) -> Any:
    return x * ops.tanh(ops.logaddexp(x, ops.zeros_like(x)))


def _upsample(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    rows, columns = (
        interpolation(size, target, a["mode"], a["align_corners"])
        for size, target in zip(shape[1:], a["size"], strict=True)
    )
    return [layers.Interpolate(rows, columns, name=o.name)]


def _pad(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    edges = _edges(o.attributes["padding"])
    if o.attributes.get("mode") != "reflect":
        return [keras.layers.ZeroPadding2D(edges, name=o.name)]
    widths = ((0, 0), *edges, (0, 0))
    return [layers.Function(lambda x: ops.pad(x, widths, mode="reflect"), name=o.name)]


def _gelu(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    """Build GELU from plain operations: on TensorFlow, Keras's own has float32 constants."""
    return [layers.Function(_gelu_tanh if o.attributes["tanh"] else _gelu_erf, name=o.name)]


def _gelu_erf(x: Any) -> Any:
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def _slice(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    a = o.attributes
    rank = len(shape)
    axis = rank if rank == 3 and a["axis"] == 0 else a["axis"] + (rank < 3)
    chosen = [slice(None)] * (rank + 1)
    chosen[axis] = slice(a["start"], a["stop"])
    return [layers.Function(lambda x: x[tuple(chosen)], name=o.name)]


def _select(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    index = o.attributes["index"]
    return [layers.Function(lambda x: x[:, index], name=o.name)]


def _channel_shuffle(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    groups = o.attributes["groups"]
    channels, height, width = shape

    def shuffled(x: Any) -> Any:
        grouped = ops.reshape(x, (-1, height, width, groups, channels // groups))
        return ops.reshape(ops.swapaxes(grouped, 3, 4), (-1, height, width, channels))

    return [layers.Function(shuffled, name=o.name)]


def _reshaped(o: Operation, shape: ValueShape, engine: Engine) -> LayerStack:
    """Reshape a value whose elements are in the right order already."""
    return [keras.layers.Reshape(channels_last(o.shape), name=o.name)]


def _function(function: Callable[[Any], Any]) -> LayerBuilder:
    """Return the builder of a kind with neither tensors nor attributes."""
    return lambda o, shape, engine: [layers.Function(function, name=o.name)]


BUILDERS: dict[str, LayerBuilder] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "leaky_relu": _leaky_relu,
    "prelu": lambda o, s, e: [layers.PReLU((o.attributes["slopes"],), name=o.name)],
    "elu": _elu,
    "mish": _function(_mish),
    "upsample": _upsample,
    "relu": lambda o, s, e: [keras.layers.ReLU(name=o.name)],
    "relu6": lambda o, s, e: [keras.layers.ReLU(max_value=6.0, name=o.name)],
    "sigmoid": _function(ops.sigmoid),
    "hard_sigmoid": _function(ops.hard_sigmoid),
    "silu": _function(ops.silu),
    "hard_swish": _function(ops.hard_silu),
    "gelu": _gelu,
    "tanh": _function(ops.tanh),
    "dropout": _dropout,
    "affine": _affine,
    "scale": lambda o, s, e: [layers.Scale(_parameter_shape(o), name=o.name)],
    "shift": lambda o, s, e: [layers.Shift(_parameter_shape(o), name=o.name)],
    "add": lambda o, s, e: [keras.layers.Add(name=o.name)],
    "multiply": lambda o, s, e: [keras.layers.Multiply(name=o.name)],
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda o, s, e: [
        layers.AdaptiveAveragePool(tuple(o.attributes["output_size"]), name=o.name)
    ],
    "mean_tokens": _function(lambda x: layers.mean(x, axis=(1,))),
    "attention": _attention,
    "cat": lambda o, s, e: [keras.layers.Concatenate(axis=-1, name=o.name)],
    "flatten": _flatten,
    "pad": _pad,
    "slice": _slice,
    "tokens": _reshaped,
    "prepend": lambda o, s, e: [layers.Prepend(o.shape[0] - s[0], name=o.name)],
    "select": _select,
    "expand": _reshaped,
    "channel_shuffle": _channel_shuffle,
}
"""Kind of operation → builder of its layers."""
