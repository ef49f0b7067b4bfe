"""Keras layers for what Keras's own do differently from PyTorch, on ``keras.ops``."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras_adapter.engines import Engine
from bench.blueprint import Preprocessing


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

    def __init__(self, epsilon: float, momentum: float, engine: Engine, **options: Any) -> None:
        """
        Args:
            epsilon: Added to the variance.
            momentum: Share of the new batch in the running statistics (PyTorch's sense).
            engine: That computes it.
        """
        super().__init__(**options)
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
        self.gamma = self.add_weight(name="gamma", **options)
        self.beta = self.add_weight(name="beta", **options)
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
