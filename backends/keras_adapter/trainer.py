"""Training a Blueprint with Keras (matched mode)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from backends.keras_adapter.engines import Engine, StepFunction
from backends.keras_adapter.optimizer import TwinOptimizer, trained_variables
from backends.keras_adapter.prefix import joined
from backends.keras_adapter.twin.layers import mean
from backends.keras_adapter.twin.twin import Twin, channels_first, state_variables
from bench.network.blueprint import INPUT, Array, Network
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import boundary_of
from bench.spec.run import Precision, Recipe
from bench.training.adapter import Batch, DeviceEvents, OnPhase, ignore
from bench.workers.tasks import ParameterCounts

POLICIES: dict[Precision, str] = {
    "fp32": "float32",
    "tf32": "float32",
    "fp64": "float64",
    "bf16": "mixed_bfloat16",
    "fp16": "mixed_float16",
}
"""Precision → Keras dtype policy."""


def configure(engine: Engine, device: str, recipe: Recipe, native: bool = False) -> None:
    """Select the device and set the global options of Keras for a run; in native mode the engine
    keeps its own flags."""
    precision = recipe.precision
    compile_for = recipe.batch_size if recipe.compile == "compiled" else None
    engine.prepare(device, precision, compile_for, native)
    # Learning rates and constants follow floatx, not the dtype policy.
    keras.config.set_floatx("float64" if precision == "fp64" else "float32")
    keras.config.set_dtype_policy(POLICIES[precision])
    keras.config.set_image_data_format("channels_last")


class KerasTrainer:
    """A Blueprint as a Keras model with its optimizer (a ``MatchedTrainer``)."""

    waits_for_steps = False

    def __init__(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str, engine: Engine
    ) -> None:
        configure(engine, device, recipe)
        self._precision = recipe.precision
        self._engine = engine
        self.twin = Twin(network, plan, engine)
        trained = trained_variables(self.twin.slots, plan, recipe)
        self.optimizer = TwinOptimizer(trained, recipe, engine)
        self._boundary = boundary_of(network.blueprint, plan)
        self._step: StepFunction | None = None
        self._infer = engine.make_infer(self.twin.inference)
        self._resumed: tuple[StepFunction, Callable[..., Any]] | None = None
        self._prefix: Callable[..., Any] | None = None
        self._record: tuple[list[str], Callable[..., Any]] | None = None
        self._gradients: Callable[[Any], tuple[Any, list[Any]]] | None = None

    def _step_of(self, model: keras.Model) -> StepFunction:
        return self._engine.make_step(
            partial(self.forward, model=model),
            self.optimizer.apply,
            self.optimizer.variables,
            model.inputs,
        )

    def _whole_step(self) -> StepFunction:
        """Return the training step that starts from pixels."""
        if self._step is None:
            self._step = self._step_of(self.twin.training)
        return self._step

    def _resume(self) -> tuple[StepFunction, Callable[..., Any]]:
        """Return training step and inference that start from values of the frozen prefix."""
        if self._resumed is None:
            training = self.twin.assemble(training=True, resumed=self._boundary)
            inference = self.twin.assemble(training=False, resumed=self._boundary)
            self._resumed = self._step_of(training), self._engine.make_infer(inference)
        return self._resumed

    def to_device(self, batch: Batch) -> Any:
        put = self._engine.to_device
        return put(batch.images), put(batch.labels), tuple(put(m) for m in batch.masks)

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._engine.host_array(shape, dtype)

    def forward(
        self, images: Any, labels: Any, masks: tuple[Any, ...], model: keras.Model | None = None
    ) -> Any:
        """Return the mean cross-entropy in training form, and its product with the loss scale."""
        model = model or self.twin.training
        logits = ops.cast(model([images, *masks]), keras.config.floatx())
        loss = self._criterion(labels, logits)
        scale = self.optimizer.loss_scale
        return loss, loss if scale is None else loss * scale.value

    def _criterion(self, labels: Any, logits: Any) -> Any:
        return mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))

    def train_step(self, prepared: Any, learning_rate: float) -> Any:
        return self.step_in_phases(prepared, learning_rate, ignore)

    def step_in_phases(self, prepared: Any, learning_rate: float, after: OnPhase) -> Any:
        step = self._whole_step() if is_pixels(prepared[0]) else self._resume()[0]
        loss = step(prepared, self.optimizer.scalars(learning_rate), after)
        self.optimizer.steps += 1
        return loss

    def losses(self, handles: list[Any]) -> list[float]:
        return [float(value) for value in ops.convert_to_numpy(ops.stack(handles))]

    def infer(self, images: Array) -> Any:
        return self._infer(images) if is_pixels(images) else self._resume()[1](images)

    def prefix(self, images: npt.NDArray[np.uint8]) -> Any:
        if self._prefix is None:
            assert self._boundary is not None, "without frozen stages there is no prefix"
            self._prefix = self._engine.make_infer(self.twin.up_to(self._boundary.value))
        return self._engine.to_host(self._prefix(images))

    def values(self, handles: list[Any]) -> Array:
        return joined(handles)

    def prefix_form(self) -> str:
        return "plain"

    def logits(self, handles: list[Any]) -> Array:
        dtype = keras.config.floatx()
        return np.concatenate([ops.convert_to_numpy(ops.cast(h, dtype)) for h in handles])

    def synchronise(self) -> None:
        self._engine.synchronise()

    def tensors(self) -> dict[str, Array]:
        return {
            slot.tensor: np.array(slot.to_blueprint(ops.convert_to_numpy(slot.variable)), order="C")
            for slot in self.twin.slots
        }

    def restore(self, tensors: Mapping[str, Array]) -> None:
        for slot in self.twin.slots:
            slot.variable.assign(slot.to_keras(tensors[slot.tensor]))
        self.optimizer.reset()

    def activations(self, images: npt.NDArray[np.uint8]) -> dict[str, Array]:
        if self._record is None:
            names = [INPUT, *(o.name for o in self.twin.blueprint.operations)]
            self._record = names, self._engine.make_infer(self.twin.up_to(names))
        names, record = self._record
        values = (ops.convert_to_numpy(value) for value in record(images))
        return {
            name: np.array(channels_first(value), order="C")
            for name, value in zip(names, values, strict=True)
        }

    def training_pixels(self, prepared: Any) -> Array:
        pixels = self.twin.training_pixels(prepared[0], training=True)
        return np.array(channels_first(ops.convert_to_numpy(pixels)), order="C")

    def gradients(self, prepared: Any) -> tuple[float, dict[str, Array]]:
        if self._gradients is None:
            self._gradients = self._engine.make_gradients(
                self.forward, self.optimizer.variables, self.twin.training.inputs
            )
        loss, found = self._gradients(prepared)
        trained = [s for s in self.twin.slots if s.tensor in self.twin.plan.trained]
        return float(ops.convert_to_numpy(loss)), {
            slot.tensor: np.array(slot.to_blueprint(ops.convert_to_numpy(g)), order="C")
            for slot, g in zip(trained, found, strict=True)
        }

    def cross_entropy(self, logits: Array, labels: npt.NDArray[np.int64]) -> float:
        values = ops.convert_to_tensor(logits, keras.config.floatx())
        targets = ops.convert_to_tensor(labels, "int64")
        return float(ops.convert_to_numpy(self._criterion(targets, values)))

    def counts(self) -> ParameterCounts:
        model = self.twin.inference
        state = {id(v) for v in state_variables(self.twin.blueprint, self.twin.slots)}
        return ParameterCounts(
            total_parameters=number_count(v for v in model.variables if id(v) not in state),
            trainable_parameters=number_count(model.trainable_variables),
            state_values=number_count(v for v in model.variables if id(v) in state),
        )

    def knobs(self) -> dict[str, Any]:
        scale = self.optimizer.loss_scale
        return {
            "keras": keras.version(),
            "engine": keras.backend.backend(),
            **self._engine.knobs(),
            "layout": self._engine.layout(self._kernels()),
            "floatx": keras.config.floatx(),
            "dtype_policy": keras.config.dtype_policy().name,
            "loss_scale": None if scale is None else float(ops.convert_to_numpy(scale.value)),
            "optimizer": f"{type(self.optimizer).__name__} (PyTorch's arithmetic)",
        }

    def _kernels(self) -> list[Any]:
        """Return the variables of the convolutions' kernels."""
        layers = self.twin.inference.layers
        found = (layer.kernel for layer in layers if isinstance(layer, keras.layers.Conv2D))
        return [kernel for kernel in found if len(kernel.shape) == 4]

    def peak_device_bytes(self) -> int | None:
        return self._engine.peak_device_bytes()

    def reserved_device_bytes(self) -> int | None:
        return self._engine.reserved_device_bytes()

    def reset_peak(self) -> None:
        self._engine.reset_peak()

    def events(self) -> DeviceEvents | None:
        return self._engine.events()

    def matrix_product(self, side: int) -> Callable[[], Any]:
        return self._engine.matrix_product(side, self._precision)


def is_pixels(images: Any) -> bool:
    """Return True for uint8 images, False for values of the frozen prefix."""
    return bool(keras.backend.standardize_dtype(images.dtype) == "uint8")


def number_count(variables: Iterable[Any]) -> int:
    """Count the numbers that variables hold."""
    return sum(math.prod(v.shape) for v in variables)
