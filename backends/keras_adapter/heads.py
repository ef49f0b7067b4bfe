"""Training many linear heads at once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from backends.keras_adapter.engines import Engine, TrainedVariable
from backends.keras_adapter.optimizer import TwinOptimizer
from backends.keras_adapter.twin.layers import mean
from bench.network.blueprint import Array
from bench.spec.run import Recipe
from bench.training.adapter import Heads, ignore


class KerasHeads:
    """A ``bench.training.adapter.HeadsTrainer`` that computes all heads of a seed as one layer.

    ``KerasTrainer`` has already set the device and dtype policy of the process.
    """

    def __init__(self, heads: Heads, recipe: Recipe, engine: Engine) -> None:
        self._engine = engine
        self._shape = heads.weights.shape
        seeds, per_seed, classes, features = self._shape
        layers = heads.weights.reshape(seeds, per_seed * classes, features).transpose(0, 2, 1)
        dtype = keras.config.floatx()
        self._weights = keras.Variable(layers, dtype=dtype)
        self._biases = keras.Variable(heads.biases.reshape(seeds, 1, -1), dtype=dtype)
        # One number per output, along the last axis.
        rates, decays = (
            ops.convert_to_tensor(np.repeat(a, classes, axis=1)[:, None, :], dtype)
            for a in (heads.learning_rates, heads.weight_decays)
        )
        self._optimizer = TwinOptimizer(
            [
                TrainedVariable(self._weights, rates, decays),
                TrainedVariable(self._biases, rates, None),
            ],
            recipe,
            engine,
        )
        # The engines' steps have the batch axis first: values (N, S, F), labels (N S,).
        values = keras.Input((seeds, features), dtype=dtype)
        self._step = engine.make_step(
            self._forward, self._optimizer.apply, self._optimizer.variables, [values]
        )

    def _logits(self, subscripts: str, values: Any) -> Any:
        """Return logits (S, N, R, C); ``subscripts`` name the axes of ``values`` for einsum."""
        seeds, per_seed, classes, _ = self._shape
        # Not ops.matmul, see layers.Dense.
        logits = ops.einsum(subscripts, values, self._weights) + self._biases
        return ops.reshape(logits, (seeds, -1, per_seed, classes))

    def _forward(self, values: Any, labels: Any, masks: tuple[Any, ...]) -> Any:
        """Return the losses (S, R) and their sum."""
        seeds = self._shape[0]
        logits = self._logits("nsf,sfk->snk", values)
        targets = ops.broadcast_to(ops.reshape(labels, (seeds, -1, 1)), ops.shape(logits)[:3])
        rows = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        losses = mean(rows, axis=(1,))
        return losses, ops.sum(losses)

    def step(self, values: Array, labels: npt.NDArray[np.int64], factor: float) -> Any:
        put = self._engine.to_device
        values = values.transpose(1, 0, 2).astype(keras.config.floatx(), copy=False)
        prepared = put(np.ascontiguousarray(values)), put(labels.reshape(-1)), ()
        losses = self._step(prepared, self._optimizer.scalars(factor), ignore)
        self._optimizer.steps += 1
        return losses

    def losses(self, handles: list[Any]) -> Array:
        return np.stack([ops.convert_to_numpy(h) for h in handles])

    def logits(self, values: Array) -> Array:
        x = ops.convert_to_tensor(values, keras.config.floatx())
        logits = self._logits("nf,sfk->snk", x)
        found: Array = ops.convert_to_numpy(ops.stop_gradient(logits))
        return np.ascontiguousarray(found.transpose(0, 2, 1, 3))

    def tensors(self) -> tuple[Array, Array]:
        seeds, per_seed, classes, features = self._shape
        weights = ops.convert_to_numpy(self._weights).transpose(0, 2, 1)
        biases = ops.convert_to_numpy(self._biases)
        shape = (seeds, per_seed, classes)
        return weights.reshape(*shape, features).copy(), biases.reshape(shape).copy()
