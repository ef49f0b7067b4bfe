"""Layers that compute what PyTorch does where Keras's own layers differ, on ``keras.ops``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras_adapter.engines import Edges, Engine, Pair
from bench.network.blueprint import ALPHA, Array, alpha_dropout_constants
from bench.spec.preprocessing import Preprocessing


def constant(values: Any, dtype: str) -> Any:
    """Return numbers as a tensor. Layers make their constants once, when they are made: under torch
    a copy in each call would wait for the GPU."""
    return ops.convert_to_tensor(np.asarray(values, np.float64), dtype)


def _in(tensor: Any) -> Any:
    """Bring a constant into the graph that is being traced."""
    return ops.convert_to_tensor(tensor)


class Preprocess(keras.layers.Layer):
    """The map from uint8 RGB (N, H, W, 3) to ``(x - mean) * scale``, in the variables' dtype and
    with channels in the network's order."""

    def __init__(self, preprocessing: Preprocessing, **options: Any) -> None:
        super().__init__(**options)
        self.preprocessing = preprocessing
        self._mean = constant(preprocessing.mean, self.variable_dtype)
        self._scale = constant(preprocessing.scale, self.variable_dtype)

    def call(self, images: Any) -> Any:
        dtype = self.variable_dtype
        if self.preprocessing.channels == "BGR":
            images = ops.flip(images, axis=-1)
        pixels = (ops.cast(images, dtype) - _in(self._mean)) * _in(self._scale)
        return ops.cast(pixels, self.compute_dtype)


class BatchNorm(keras.layers.Layer):
    """PyTorch's BatchNorm, whose running variance is unbiased."""

    def __init__(
        self,
        epsilon: float,
        momentum: float,
        engine: Engine,
        scaled: bool,
        shifted: bool,
        channels: int,
        **options: Any,
    ) -> None:
        """
        Args:
            epsilon: Added to the variance.
            momentum: Share of the new batch in the running statistics (PyTorch's convention).
            engine: Engine that computes it.
            scaled: True for a trained factor instead of 1.
            shifted: True for a trained offset instead of 0.
            channels: Number of channels, the last axis.
        """
        super().__init__(**options)
        self.scaled = scaled
        self.shifted = shifted
        self._one, self._zero = (
            constant(np.full(channels, value), self.variable_dtype) for value in (1.0, 0.0)
        )
        self.epsilon = epsilon
        self.momentum = momentum
        self.engine = engine

    def build(self, input_shape: tuple[int, ...]) -> None:
        # No autocast: statistics stay in float32 in mixed precision.
        options: dict[str, Any] = {
            "shape": (input_shape[-1],),
            "initializer": "zeros",
            "autocast": False,
        }
        self.gamma = self.add_weight(name="gamma", **options) if self.scaled else self._one
        self.beta = self.add_weight(name="beta", **options) if self.shifted else self._zero
        self.moving_mean = self.add_weight(name="moving_mean", trainable=False, **options)
        self.moving_variance = self.add_weight(name="moving_variance", trainable=False, **options)

    def call(self, x: Any, batch_statistics: bool = False) -> Any:
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        if batch_statistics:
            return self.engine.batch_norm_training(
                x, gamma, beta, self.moving_mean, self.moving_variance, self.epsilon, self.momentum
            )
        mean, variance = (
            ops.convert_to_tensor(v) for v in (self.moving_mean, self.moving_variance)
        )
        return self.engine.batch_norm_inference(x, gamma, beta, mean, variance, self.epsilon)

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return input_shape


class MaskedDropout(keras.layers.Layer):
    """Dropout by a mask that is part of the batch: ``x * (mask * 1 / (1 - rate))``."""

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.scale = 1.0 / (1.0 - rate)

    def call(self, x: Any, mask_values: Any) -> Any:
        return x * (ops.cast(mask_values, x.dtype) * self.scale)


class AlphaDropout(keras.layers.Layer):
    """Self-normalising dropout by a mask that is part of the batch."""

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor, self.offset = alpha_dropout_constants(rate)
        self.dropped = constant(ALPHA, self.compute_dtype)

    def call(self, x: Any, mask_values: Any) -> Any:
        return ops.where(ops.cast(mask_values, "bool"), x, _in(self.dropped)) * self.factor + (
            self.offset
        )


class GroupNorm(keras.layers.Layer):
    """PyTorch's GroupNorm over (N, H, W, C), whose groups are neighbouring channels.

    Keras's own computes in float32 even for float64.
    """

    def __init__(
        self, groups: int, epsilon: float, scaled: bool, shifted: bool, **options: Any
    ) -> None:
        """
        Args:
            groups: Number of groups of channels.
            epsilon: Added to the variance.
            scaled: True for a trained factor instead of 1.
            shifted: True for a trained offset instead of 0.
        """
        super().__init__(**options)
        self.groups, self.epsilon = groups, epsilon
        self.scaled, self.shifted = scaled, shifted

    def build(self, input_shape: tuple[int, ...]) -> None:
        shape = (input_shape[-1],)
        zeros: dict[str, Any] = {"shape": shape, "initializer": "zeros"}
        self.gamma = self.add_weight(name="gamma", **zeros) if self.scaled else None
        self.beta = self.add_weight(name="beta", **zeros) if self.shifted else None

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        name = keras.backend.standardize_dtype(x.dtype)
        precise = "float64" if name == "float64" else "float32"  # as PyTorch's autocast
        grouped = (-1, height * width, self.groups, channels // self.groups)
        values = ops.reshape(ops.cast(x, precise), grouped)
        centred = values - mean(values, axis=(1, 3), keepdims=True)
        variance = mean(centred * centred, axis=(1, 3), keepdims=True)
        normal = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), (-1, *x.shape[1:]))
        if self.gamma is not None:
            normal = normal * ops.cast(ops.convert_to_tensor(self.gamma), precise)
        if self.beta is not None:
            normal = normal + ops.cast(ops.convert_to_tensor(self.beta), precise)
        return ops.cast(normal, x.dtype)


class Interpolate(keras.layers.Layer):
    """Resizing of (N, H, W, C) by a matrix along each axis."""

    def __init__(self, rows: Array, columns: Array, **options: Any) -> None:
        """
        Args:
            rows: (new height, height) matrix.
            columns: (new width, width) matrix.
        """
        super().__init__(**options)
        self.rows, self.columns = (constant(m, self.compute_dtype) for m in (rows, columns))

    def call(self, x: Any) -> Any:
        return ops.einsum("oh,nhwc,pw->nopc", _in(self.rows), x, _in(self.columns))


class SplitConv2D(keras.layers.Conv2D):
    """A grouped convolution as one convolution per group.

    On a CPU, Keras compiles TensorFlow's grouped convolution with XLA. For ResNeXt and RegNet that
    took 20 to 450 times as long, forward and backward (2 cores, float32).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        whole = super().convolution_op
        parts = zip(
            ops.split(inputs, self.groups, axis=-1),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return ops.concatenate([whole(x, k) for x, k in parts], axis=-1)


class TapDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """A depthwise convolution as a sum over the kernel's positions (taps).

    JAX's own took 300 times as long in float64 on a CPU (672 channels, 5×5).
    """

    def call(self, inputs: Any) -> Any:
        size = list(inputs.shape[1:3])
        if self.padding == "same":
            edges = [
                same_padding(*axis)
                for axis in zip(
                    size, self.kernel_size, self.strides, self.dilation_rate, strict=True
                )
            ]
            inputs = ops.pad(inputs, ((0, 0), *edges, (0, 0)))
            size = list(inputs.shape[1:3])
        reach = [(k - 1) * d for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
        kernel = ops.convert_to_tensor(self.kernel)
        values = ops.repeat(inputs, self.depth_multiplier, axis=-1)
        flat = ops.reshape(kernel, (*self.kernel_size, -1))
        (down, right), (tall, wide) = self.strides, self.dilation_rate
        total = sum(
            values[
                :,
                i * tall : size[0] - reach[0] + i * tall : down,
                j * wide : size[1] - reach[1] + j * wide : right,
            ]
            * flat[i, j]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        )
        return total if self.bias is None else total + ops.convert_to_tensor(self.bias)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what ``padding="same"`` adds before and after (tensorflow.org, tf.nn, "SAME")."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class Function(keras.layers.Layer):
    """A function of one value, without variables."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


class Affine(keras.layers.Layer):
    """The product with a constant, and the sum with another: numbers, or one for each channel."""

    def __init__(self, factor: Any, offset: Any, **options: Any) -> None:
        super().__init__(**options)
        self.factor, self.offset = (
            constant(v, self.compute_dtype) if isinstance(v, list) else v for v in (factor, offset)
        )

    def call(self, x: Any) -> Any:
        numbers = int | float
        factor, offset = (
            v if isinstance(v, numbers) else _in(v) for v in (self.factor, self.offset)
        )
        return x * factor + offset


class _WithParameter(keras.layers.Layer):
    """A layer with one parameter, named ``parameter``."""

    def __init__(self, parameter_shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.parameter_shape = parameter_shape

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.parameter = self.add_weight(
            name="parameter", shape=self.parameter_shape, initializer="zeros"
        )


class Scale(_WithParameter):
    """The product of a value and a parameter that broadcasts over the batch."""

    def call(self, x: Any) -> Any:
        return x * ops.convert_to_tensor(self.parameter)


class PReLU(_WithParameter):
    """x where it is positive, else x times a trained slope."""

    def call(self, x: Any) -> Any:
        return ops.where(x > 0, x, x * ops.cast(ops.convert_to_tensor(self.parameter), x.dtype))


class Shift(_WithParameter):
    """The sum of a value and a parameter that broadcasts over the batch."""

    def call(self, x: Any) -> Any:
        return x + ops.convert_to_tensor(self.parameter)


class Prepend(keras.layers.Layer):
    """Learned tokens in front of a sequence (N, L, C)."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def build(self, input_shape: tuple[int, ...]) -> None:
        shape = (self.count, input_shape[-1])
        self.parameter = self.add_weight(name="parameter", shape=shape, initializer="zeros")

    def call(self, x: Any) -> Any:
        tokens = ops.convert_to_tensor(self.parameter)
        batch = ops.shape(x)[0]
        repeated = ops.broadcast_to(tokens[None], (batch, *self.parameter.shape))
        return ops.concatenate([repeated, x], axis=1)

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return (input_shape[0], input_shape[1] + self.count, input_shape[2])


class Attention(keras.layers.Layer):
    """Scaled dot-product attention over (N, L, 3 C): queries, keys and values, each split by heads.

    Keras's own layer computes its softmax in float32 even for float64.
    """

    def __init__(self, heads: int, scale: float, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.scale = scale

    def call(self, x: Any) -> Any:
        length, width = x.shape[1], x.shape[2] // 3
        split = ops.reshape(x, (-1, length, 3, self.heads, width // self.heads))
        split = ops.transpose(split, (2, 0, 3, 1, 4))
        query, key, value = split[0], split[1], split[2]
        # Not ops.matmul, see Dense.
        scores = (query @ ops.swapaxes(key, -1, -2)) * self.scale
        name = keras.backend.standardize_dtype(x.dtype)
        precise = "float64" if name == "float64" else "float32"  # as PyTorch's autocast
        weights = ops.cast(ops.softmax(ops.cast(scores, precise), axis=-1), x.dtype)
        merged = ops.transpose(weights @ value, (0, 2, 1, 3))
        return ops.reshape(merged, (-1, length, width))


class PadLowest(keras.layers.Layer):
    """Padding before max pooling, with minus infinity, which is never the maximum."""

    def __init__(self, edges: tuple[int, int, int, int], **options: Any) -> None:
        super().__init__(**options)
        self.edges = edges  # rows or columns to add at top, bottom, left, right

    def call(self, x: Any) -> Any:
        top, bottom, left, right = self.edges
        return ops.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-math.inf)


class MaxPool(keras.layers.Layer):
    """Max pooling by an engine that pads by itself."""

    def __init__(
        self, kernel: Pair, stride: Pair, edges: Edges, engine: Engine, **options: Any
    ) -> None:
        """
        Args:
            kernel: Height and width of a window.
            stride: Step between windows, down and right.
            edges: Rows and columns to add.
            engine: Engine that computes it.
        """
        super().__init__(**options)
        self.kernel_size, self.stride, self.edges, self.engine = kernel, stride, edges, engine

    def call(self, x: Any) -> Any:
        return self.engine.max_pool(x, self.kernel_size, self.stride, self.edges)


class AveragePool(keras.layers.Layer):
    """Average pooling over a padded image; only some elements of a window count in its average."""

    def __init__(
        self,
        kernel: Pair,
        stride: Pair,
        edges: Edges,
        counts: Array | None,
        engine: Engine,
        **options: Any,
    ) -> None:
        """
        Args:
            kernel: Height and width of a window.
            stride: Step between windows, down and right.
            edges: Zeros to add at (top, bottom), (left, right).
            counts: (rows, columns) array of divisors of the windows' sums; None: all elements of a
                window count.
            engine: Engine that computes it.
        """
        super().__init__(**options)
        self.kernel_size, self.stride, self.edges, self.engine = kernel, stride, edges, engine
        self.correction: Any = None
        if counts is not None and not (counts == math.prod(kernel)).all():
            factors = (math.prod(kernel) / counts)[..., None]
            self.correction = constant(factors, self.compute_dtype)

    def call(self, x: Any) -> Any:
        if self.engine.pads():
            means = self.engine.average_pool(x, self.kernel_size, self.stride, self.edges)
        else:
            padded = ops.pad(x, ((0, 0), *self.edges, (0, 0))) if any(sum(self.edges, ())) else x
            means = ops.average_pool(padded, self.kernel_size, self.stride, "valid")
        return means if self.correction is None else means * _in(self.correction)


class AdaptiveAveragePool(keras.layers.Layer):
    """PyTorch's average over bins from ``floor(i H / out)`` to ``ceil((i + 1) H / out)``."""

    def __init__(self, output_size: Pair, **options: Any) -> None:
        super().__init__(**options)
        self.output_size = output_size

    def build(self, input_shape: Any) -> None:
        self.bins = [
            constant(_bins(*each), self.compute_dtype)
            for each in zip(input_shape[1:3], self.output_size, strict=True)
        ]

    def call(self, x: Any) -> Any:
        if self.output_size == tuple(x.shape[1:3]):
            return x
        if self.output_size == (1, 1):
            return mean(x, axis=(1, 2), keepdims=True)
        rows, columns = (_in(matrix) for matrix in self.bins)
        return ops.einsum("oh,nhwc,pw->nopc", rows, x, columns)


class Convolution(keras.layers.Conv2D):
    """A convolution, grouped or not, by an engine that pads by itself."""

    def __init__(
        self, edges: Edges, size: Pair, engine: Engine, *arguments: Any, **options: Any
    ) -> None:
        """
        Args:
            edges: Zeros to add at (top, bottom), (left, right).
            size: Height and width of the output.
            engine: Engine that computes it.
            arguments: As for Keras's layer.
            options: As for Keras's layer.
        """
        super().__init__(*arguments, padding="valid", **options)
        self.edges, self.size, self.engine = edges, size, engine

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.engine.lay_out(self._kernel)

    def call(self, x: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        bias = None if self.bias is None else ops.convert_to_tensor(self.bias)
        return self.engine.convolution(
            x, kernel, bias, self.strides, self.edges, self.dilation_rate, self.groups
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self.size, self.filters)


class Dense(keras.layers.Dense):
    """Keras's Dense without ``ops.matmul``, which on torch computes float64 in float32."""

    def call(self, x: Any) -> Any:
        y = x @ ops.convert_to_tensor(self.kernel)
        return y if self.bias is None else y + ops.convert_to_tensor(self.bias)


def mean(x: Any, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """Compute ``ops.mean``, in float64 too: on torch and JAX Keras's own uses float32 for that."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axis=axis, keepdims=keepdims)
    total = ops.sum(x, axis=axis, keepdims=keepdims)
    return total / ops.cast(ops.size(x) // ops.size(total), x.dtype)


def _bins(size: int, bins: int) -> Any:
    """Return a (bins, size) matrix whose row i averages bin i."""
    matrix = np.zeros((bins, size))
    for i in range(bins):
        first, last = (i * size) // bins, -((-(i + 1) * size) // bins)
        matrix[i, first:last] = 1.0 / (last - first)
    return matrix
