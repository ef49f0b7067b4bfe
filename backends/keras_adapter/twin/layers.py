"""Keras layers for what Keras's own do differently from PyTorch, on ``keras.ops``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras_adapter.engines import Engine
from bench.network.blueprint import Array
from bench.spec.preprocessing import Preprocessing


class Preprocess(keras.layers.Layer):
    """uint8 RGB (N, H, W, 3) → ``(x - mean) * scale`` in the variables' dtype, channels ordered."""

    def __init__(self, preprocessing: Preprocessing, **options: Any) -> None:
        super().__init__(**options)
        self.preprocessing = preprocessing
        # On the device once and for all: under torch, a copy at each call would wait for a GPU.
        self._mean = ops.convert_to_tensor(np.asarray(preprocessing.mean, self.variable_dtype))
        self._scale = ops.convert_to_tensor(np.asarray(preprocessing.scale, self.variable_dtype))

    def call(self, images: Any) -> Any:
        dtype = self.variable_dtype
        if self.preprocessing.channels == "BGR":
            images = ops.flip(images, axis=-1)
        mean, scale = ops.convert_to_tensor(self._mean), ops.convert_to_tensor(self._scale)
        pixels = (ops.cast(images, dtype) - mean) * scale
        return ops.cast(pixels, self.compute_dtype)


class BatchNorm(keras.layers.Layer):
    """BatchNorm as PyTorch defines it: the running variance is the unbiased one."""

    def __init__(
        self,
        epsilon: float,
        momentum: float,
        engine: Engine,
        scaled: bool = True,
        shifted: bool = True,
        **options: Any,
    ) -> None:
        """
        Args:
            epsilon: Added to the variance.
            momentum: Share of the new batch in the running statistics (PyTorch's sense).
            engine: That computes it.
            scaled: Whether it has a factor; it is 1 otherwise.
            shifted: Whether it has an offset; it is 0 otherwise.
        """
        super().__init__(**options)
        self.scaled = scaled
        self.shifted = shifted
        self.epsilon = epsilon
        self.momentum = momentum
        self.engine = engine

    def build(self, input_shape: tuple[int, ...]) -> None:
        # Not cast with the layer's compute dtype: statistics stay in float32 in mixed precision.
        options: dict[str, Any] = {
            "shape": (input_shape[-1],),
            "initializer": "zeros",
            "autocast": False,
        }
        constant = np.ones(input_shape[-1:], self.variable_dtype)
        self.gamma = self.add_weight(name="gamma", **options) if self.scaled else constant
        self.beta = self.add_weight(name="beta", **options) if self.shifted else constant - 1
        self.moving_mean = self.add_weight(name="moving_mean", trainable=False, **options)
        self.moving_variance = self.add_weight(name="moving_variance", trainable=False, **options)

    def call(self, x: Any, batch_statistics: bool = False) -> Any:
        parameters = [
            ops.convert_to_tensor(v)
            for v in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        ]
        if not batch_statistics:
            return self.engine.batch_norm_inference(x, *parameters, self.epsilon)
        y, mean, variance = self.engine.batch_norm_training(
            x, *parameters, self.epsilon, self.momentum
        )
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return y

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return input_shape


class MaskedDropout(keras.layers.Layer):
    """Dropout by a mask that comes with the batch: ``x * (mask * 1 / (1 - rate))``."""

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.scale = 1.0 / (1.0 - rate)

    def call(self, x: Any, mask_values: Any) -> Any:
        return x * (ops.cast(mask_values, x.dtype) * self.scale)


class SplitConv2D(keras.layers.Conv2D):
    """A grouped convolution as one convolution for each group.

    On a CPU Keras compiles TensorFlow's grouped convolution with XLA, which took 20 to 450 times as
    long, forward and backward, for ResNeXt's and RegNet's (2 cores, float32).
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
    """A depthwise convolution as a sum over the kernel's positions.

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
    """What ``padding="same"`` adds before and after (tensorflow.org, tf.nn, "SAME")."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class Function(keras.layers.Layer):
    """A function of one value that has no variables."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


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
    """A value times a parameter that broadcasts against it without the batch."""

    def call(self, x: Any) -> Any:
        return x * ops.convert_to_tensor(self.parameter)


class Shift(_WithParameter):
    """A value plus a parameter that broadcasts against it without the batch."""

    def call(self, x: Any) -> Any:
        return x + ops.convert_to_tensor(self.parameter)


class Prepend(keras.layers.Layer):
    """Tokens that are parameters before those of a sequence (N, L, C)."""

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
    """Scaled dot-product attention of (N, L, 3 C): queries, keys, values, each by heads.

    Keras's own computes its softmax in float32 even in float64.
    """

    def __init__(self, heads: int, scale: float, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.scale = scale

    def call(self, x: Any) -> Any:
        length, width = x.shape[1], x.shape[2] // 3
        apart = ops.reshape(x, (-1, length, 3, self.heads, width // self.heads))
        apart = ops.transpose(apart, (2, 0, 3, 1, 4))
        query, key, value = apart[0], apart[1], apart[2]
        # Not ops.matmul: see Dense.
        scores = (query @ ops.swapaxes(key, -1, -2)) * self.scale
        name = keras.backend.standardize_dtype(x.dtype)
        precise = "float64" if name == "float64" else "float32"  # as PyTorch's autocast
        shares = ops.cast(ops.softmax(ops.cast(scores, precise), axis=-1), x.dtype)
        together = ops.transpose(shares @ value, (0, 2, 1, 3))
        return ops.reshape(together, (-1, length, width))


class PadLowest(keras.layers.Layer):
    """Padding before max pooling: minus infinity, which no maximum picks."""

    def __init__(self, edges: tuple[int, int, int, int], **options: Any) -> None:
        """
        Args:
            edges: Rows or columns to add at top, bottom, left, right.
        """
        super().__init__(**options)
        self.edges = edges

    def call(self, x: Any) -> Any:
        top, bottom, left, right = self.edges
        return ops.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-math.inf)


class PaddedAveragePool(keras.layers.Layer):
    """Average pooling over a padded image, each window divided by what counts in it."""

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        edges: tuple[tuple[int, int], tuple[int, int]],
        counts: Array,
        **options: Any,
    ) -> None:
        """
        Args:
            kernel: Height and width of the window.
            stride: Between windows.
            edges: Zeros to add at (top, bottom), (left, right).
            counts: (rows, columns) of the result: by what each window's sum is divided.
        """
        super().__init__(**options)
        self.kernel_size, self.stride, self.edges = kernel, stride, edges
        self.correction = (math.prod(kernel) / counts)[..., None]

    def call(self, x: Any) -> Any:
        padded = ops.pad(x, ((0, 0), *self.edges, (0, 0)))
        means = ops.average_pool(padded, self.kernel_size, self.stride, "valid")
        if bool((self.correction == 1.0).all()):
            return means
        return means * ops.convert_to_tensor(self.correction, x.dtype)


class AdaptiveAveragePool(keras.layers.Layer):
    """Average over bins ``floor(i H / out)`` to ``ceil((i + 1) H / out)``, as PyTorch's."""

    def __init__(self, output_size: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.output_size = output_size

    def call(self, x: Any) -> Any:
        height, width = x.shape[1], x.shape[2]
        if self.output_size == (height, width):
            return x
        if self.output_size == (1, 1):
            return mean(x, axis=(1, 2), keepdims=True)
        rows = ops.convert_to_tensor(_bins(height, self.output_size[0]), x.dtype)
        columns = ops.convert_to_tensor(_bins(width, self.output_size[1]), x.dtype)
        return ops.einsum("oh,nhwc,pw->nopc", rows, x, columns)


class Dense(keras.layers.Dense):
    """Keras's, but for ``ops.matmul``, which on torch computes in float32 even what is float64."""

    def call(self, x: Any) -> Any:
        y = x @ ops.convert_to_tensor(self.kernel)
        return y if self.bias is None else y + ops.convert_to_tensor(self.bias)


def mean(x: Any, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """``ops.mean``, which on torch and JAX computes in float32 even what is float64."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axis=axis, keepdims=keepdims)
    total = ops.sum(x, axis=axis, keepdims=keepdims)
    return total / ops.cast(ops.size(x) // ops.size(total), x.dtype)


def _bins(size: int, bins: int) -> Any:
    """(bins, size) matrix whose row i averages bin i."""
    matrix = np.zeros((bins, size))
    for i in range(bins):
        first, last = (i * size) // bins, -((-(i + 1) * size) // bins)
        matrix[i, first:last] = 1.0 / (last - first)
    return matrix
