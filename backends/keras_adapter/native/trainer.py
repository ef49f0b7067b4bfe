"""Training in native mode: ``compile``, ``train_on_batch`` and Keras's own optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from backends.keras_adapter.engines import Engine
from backends.keras_adapter.native.knobs import NativeSetup, describe_head, read_knobs
from backends.keras_adapter.native.model import NativeModel, build_native_model
from backends.keras_adapter.trainer import configure, number_count
from bench.network.blueprint import Array
from bench.network.freezing import TensorPlan, TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import Batch, DeviceEvents, OnPhase
from bench.workers.tasks import NativeRequest, ParameterCounts


class GroupedOptimizer(keras.optimizers.Optimizer):
    """Keras optimizers for variables with different learning rates (Keras has no such groups)."""

    def __init__(
        self, inner: dict[float, keras.optimizers.Optimizer], scales: dict[int, float]
    ) -> None:
        """
        Args:
            inner: Learning-rate scale → the optimizer of the variables at that scale.
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
        """Base learning rate: that of any inner optimizer, divided by the scale of its layers."""
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

    waits_for_steps = True  # ``train_on_batch`` returns the loss as a number

    def __init__(self, request: NativeRequest, engine: Engine) -> None:
        recipe = request.recipe
        configure(engine, request.device, recipe, native=True)
        self._engine = engine
        self._precision = recipe.precision
        native = build_native_model(request)
        self._model, self._state = native.model, native.state
        self.plan = plan_native(native, request.policy.backbone_scale)
        optimizers = stock_optimizers(self.plan, recipe)
        initial_head = describe_head(native.logits)
        self._setup = NativeSetup(
            request, native, self.plan, optimizers, self.counts(), initial_head
        )
        self._model.compile(
            optimizer=one_optimizer(optimizers, self._model, self.plan),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True if recipe.compile == "compiled" else "auto",
        )

    def to_device(self, batch: Batch) -> Any:
        return self._engine.to_device(batch.images), self._engine.to_device(batch.labels)

    def train_step(self, prepared: Any, learning_rate: float) -> float:
        images, labels = prepared
        self._model.optimizer.learning_rate = learning_rate
        return float(self._model.train_on_batch(images, labels, return_dict=True)["loss"])

    def step_in_phases(self, prepared: Any, learning_rate: float, after: OnPhase) -> float:
        return self.train_step(prepared, learning_rate)

    def losses(self, handles: list[float]) -> list[float]:
        return handles

    def infer(self, images: npt.NDArray[np.uint8]) -> Array:
        logits: Array = self._model.predict_on_batch(images)
        return logits

    def logits(self, handles: list[Array]) -> Array:
        return np.concatenate(handles)

    def synchronise(self) -> None:
        self._engine.synchronise()

    def tensors(self) -> dict[str, Array]:
        return {v.path: np.array(ops.convert_to_numpy(v), order="C") for v in self._model.weights}

    def counts(self) -> ParameterCounts:
        state = self._state
        return ParameterCounts(
            total_parameters=number_count(v for v in self._model.weights if id(v) not in state),
            trainable_parameters=number_count(self._model.trainable_weights),
            state_values=number_count(v for v in self._model.weights if id(v) in state),
        )

    def knobs(self) -> dict[str, Any]:
        engine = self._engine.knobs()
        if "xla" in engine:
            engine["xla"] = engine["xla"] or self._model.jit_compile
        return {
            "keras": keras.version(),
            "engine": keras.backend.backend(),
            **engine,
            "floatx": keras.config.floatx(),
            "dtype_policy": keras.config.dtype_policy().name,
            "jit_compile": self._model.jit_compile,
            **read_knobs(self._setup),
        }

    def peak_device_bytes(self) -> int | None:
        return self._engine.peak_device_bytes()

    def reserved_device_bytes(self) -> int | None:
        return self._engine.reserved_device_bytes()

    def reset_peak(self) -> None:
        self._engine.reset_peak()

    def events(self) -> DeviceEvents | None:
        return self._engine.events()

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._engine.host_array(shape, dtype)

    def matrix_product(self, side: int) -> Callable[[], Any]:
        return self._engine.matrix_product(side, self._precision)


def plan_native(native: NativeModel, backbone_scale: float) -> TrainingPlan:
    """Return the plan of the trained and frozen variables, by their paths.

    Weight decay applies to all trained variables, which is the default of Keras's optimizers.
    """
    in_head = {id(v) for layer in native.head for v in layer.weights}
    trained = {
        v.path: TensorPlan(1.0 if id(v) in in_head else backbone_scale, True)
        for v in native.model.trainable_weights
    }
    frozen_layers = native.base.layers[: native.first_trained]
    frozen = dict.fromkeys(v.path for layer in frozen_layers for v in layer.weights)
    moving = [v.path for v in native.model.non_trainable_weights if v.path not in frozen]
    # Native networks are not looked into, so a BatchNorm over a single position may train.
    return TrainingPlan(0, trained, tuple(frozen), tuple(moving), (), needs_two_images=True)


def stock_optimizers(plan: TrainingPlan, recipe: Recipe) -> dict[float, keras.optimizers.Optimizer]:
    """Return, for each learning-rate scale, an SGD or AdamW with Keras's defaults."""
    scales = sorted({tensor.learning_rate_scale for tensor in plan.trained.values()})
    rates = {scale: recipe.learning_rate * scale for scale in scales}
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return {
            scale: keras.optimizers.SGD(rate, momentum=recipe.momentum, weight_decay=decay or None)
            for scale, rate in rates.items()
        }
    return {s: keras.optimizers.AdamW(rate, weight_decay=decay) for s, rate in rates.items()}


def one_optimizer(
    optimizers: dict[float, keras.optimizers.Optimizer], model: keras.Model, plan: TrainingPlan
) -> keras.optimizers.Optimizer:
    """Return Keras's optimizer itself where all variables have the same learning rate."""
    if list(optimizers) == [1.0]:
        return optimizers[1.0]
    scales = {id(v): plan.trained[v.path].learning_rate_scale for v in model.trainable_weights}
    return GroupedOptimizer(optimizers, scales)
