"""Native mode with Keras: ``compile`` and ``train_on_batch``, Keras's own optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from backends.keras_adapter.engines import Engine
from backends.keras_adapter.native.knobs import describe_head, read_knobs
from backends.keras_adapter.native.model import NativeModel, build_native_model
from backends.keras_adapter.trainer import POLICIES
from bench.network.blueprint import Array
from bench.network.freezing import TensorPlan, TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import Batch, Counts, NativeRequest


class GroupedOptimizer(keras.optimizers.Optimizer):
    """Stock Keras optimizers, one for each learning-rate scale: Keras has no parameter groups."""

    def __init__(
        self, inner: dict[float, keras.optimizers.Optimizer], scales: dict[int, float]
    ) -> None:
        """
        Args:
            inner: Scale → the optimizer of the variables at that scale.
            scales: ``id`` of a variable → its scale.
        """
        super().__init__(learning_rate=0.0, name="grouped")
        self.inner = inner
        self._scales = scales

    def _group(self, values: Any, variables: Any, scale: float) -> list[Any]:
        pairs = zip(values, variables, strict=True)
        return [value for value, v in pairs if self._scales[id(v)] == scale]

    def build(self, variables: Any) -> None:
        if self.built:
            return
        for scale, optimizer in self.inner.items():
            optimizer.build(self._group(variables, variables, scale))
        super().build(variables)

    @property
    def variables(self) -> list[Any]:
        return [*self._variables, *(v for o in self.inner.values() for v in o.variables)]

    @property
    def learning_rate(self) -> Any:
        """Of the group that learns fastest, over its scale."""
        scale = max(self.inner)
        return self.inner[scale].learning_rate / scale

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for scale, optimizer in self.inner.items():
            optimizer.learning_rate = rate * scale

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        variables = trainable_variables or self._trainable_variables
        self.build(variables)
        for scale, optimizer in self.inner.items():
            members = self._group(variables, variables, scale)
            optimizer.apply(self._group(grads, variables, scale), members)
        self.iterations.assign_add(1)


class NativeKerasTrainer:
    """A compiled model of ``keras.applications`` (``bench.training.adapter.Trainer``)."""

    def __init__(self, request: NativeRequest, engine: Engine) -> None:
        recipe = request.recipe
        engine.prepare(request.device, recipe.precision)
        keras.config.set_floatx("float64" if recipe.precision == "fp64" else "float32")
        keras.config.set_dtype_policy(POLICIES[recipe.precision])
        keras.config.set_image_data_format("channels_last")
        self._engine = engine
        self.request = request
        self.native: NativeModel = build_native_model(request)
        self.model = self.native.model
        self.fresh_head = describe_head(self.native.logits)
        self.plan = plan_native(self.native, request.policy.backbone_scale)
        self.groups = stock_optimizers(self.model, self.plan, recipe)
        self.model.compile(
            optimizer=self._optimizer(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    def _optimizer(self) -> keras.optimizers.Optimizer:
        if len(self.groups) == 1:  # one rate for all: Keras's optimizer as it is
            (scale,) = self.groups
            if scale == 1.0:
                return self.groups[scale]
        trained = self.model.trainable_weights
        scales = {id(v): self.plan.trained[v.path].learning_rate_scale for v in trained}
        return GroupedOptimizer(self.groups, scales)

    def to_device(self, batch: Batch) -> Any:
        return self._engine.to_device(batch.images), self._engine.to_device(batch.labels)

    def train_step(self, prepared: Any, learning_rate: float) -> float:
        images, labels = prepared
        self.model.optimizer.learning_rate = learning_rate
        return float(self.model.train_on_batch(images, labels, return_dict=True)["loss"])

    def losses(self, handles: list[float]) -> list[float]:
        return handles

    def infer(self, images: npt.NDArray[np.uint8]) -> Array:
        logits: Array = self.model.predict_on_batch(images)
        return logits

    def logits(self, handles: list[Array]) -> Array:
        return np.concatenate(handles)

    def synchronise(self) -> None:
        self._engine.synchronise()

    def tensors(self) -> dict[str, Array]:
        return {v.path: np.array(ops.convert_to_numpy(v), order="C") for v in self.model.weights}

    def counts(self) -> Counts:
        state = self.native.state
        return Counts(
            total_parameters=_values(v for v in self.model.weights if id(v) not in state),
            trainable_parameters=_values(self.model.trainable_weights),
            state_values=_values(v for v in self.model.weights if id(v) in state),
        )

    def knobs(self) -> dict[str, Any]:
        engine = self._engine.knobs()
        if "xla" in engine:
            engine["xla"] = engine["xla"] or self.model.jit_compile
        return {
            "keras": keras.version(),
            "engine": keras.backend.backend(),
            **engine,
            "floatx": keras.config.floatx(),
            "dtype_policy": keras.config.dtype_policy().name,
            "jit_compile": self.model.jit_compile,
            **read_knobs(self),
        }

    def peak_device_bytes(self) -> int | None:
        return self._engine.peak_device_bytes()

    def matrix_product(self, side: int) -> Callable[[], Any]:
        return self._engine.matrix_product(side, self.request.recipe.precision)


def _values(variables: Any) -> int:
    return sum(math.prod(v.shape) for v in variables)


def plan_native(native: NativeModel, backbone_scale: float) -> TrainingPlan:
    """Which variables train and which must not change, by their paths.

    Weight decay applies to all that train, as Keras's optimizers do by themselves.
    """
    in_head = {id(v) for layer in native.head for v in layer.weights}
    trained = {
        v.path: TensorPlan(1.0 if id(v) in in_head else backbone_scale, True)
        for v in native.model.trainable_weights
    }
    still = [w for layer in native.base.layers[: native.first_trained] for w in layer.weights]
    frozen = dict.fromkeys(v.path for v in still)
    moving = [v.path for v in native.model.non_trainable_weights if v.path not in frozen]
    return TrainingPlan(0, trained, tuple(frozen), tuple(moving), ())


def stock_optimizers(
    model: keras.Model, plan: TrainingPlan, recipe: Recipe
) -> dict[float, keras.optimizers.Optimizer]:
    """Learning-rate scale → keras.optimizers.SGD or AdamW with Keras's own defaults."""
    scales = sorted({treatment.learning_rate_scale for treatment in plan.trained.values()})
    rates = {scale: recipe.learning_rate * scale for scale in scales}
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return {
            scale: keras.optimizers.SGD(rate, momentum=recipe.momentum, weight_decay=decay or None)
            for scale, rate in rates.items()
        }
    return {s: keras.optimizers.AdamW(rate, weight_decay=decay) for s, rate in rates.items()}
