"""Keras on JAX: each step is one function that XLA compiles once for each batch size.

Sources: docs.jax.dev, "Configuration options", "GPU memory allocation", ``jax.jit``
(``donate_argnums``), "Asynchronous dispatch"; keras.io, "StatelessScope".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import keras

from backends.keras_adapter.engines import (
    OFF,
    PRODUCT_DTYPES,
    FusedUpdate,
    StepFunction,
    check_device,
    flag,
)
from bench.spec.run import Precision, Recipe
from bench.system import cores

DETERMINISTIC_FLAGS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")


class JaxEngine:
    """``backends.keras_adapter.engines.Engine`` for JAX."""

    def __init__(self) -> None:
        # JAX reads this when it first looks for devices. The training loop assumes that a step on a
        # CPU is finished when its call returns.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._device: Any = None
        self._slow_groups = False
        self._pending: list[Any] = []
        self._batch_sizes: set[int] = set()

    def devices(self) -> list[str]:
        return ["cpu", *(f"cuda:{i}" for i in range(len(_gpus())))]

    def prepare(self, device: str, precision: Precision) -> None:
        check_device(f"JAX {jax.__version__}", device, self.devices(), precision)
        on_cpu = device == "cpu"
        chosen = jax.devices("cpu")[0] if on_cpu else _gpus()[int(device.removeprefix("cuda:"))]
        jax.config.update("jax_default_device", chosen)
        jax.config.update("jax_enable_x64", precision == "fp64")
        jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
        self._device = chosen
        # XLA's grouped convolution in float64 on a CPU is slow: a step of EfficientNet-Lite0
        # (64 px, batch 4) took 17 s on one core, and 0.2 s with TapDepthwiseConv2D.
        self._slow_groups = on_cpu and precision == "fp64"

    def release(self) -> bool:
        self._pending.clear()
        self._batch_sizes.clear()
        jax.clear_caches()
        # A GPU's peak memory is that of the whole process; JAX cannot reset it.
        return self._device is None or self._device.platform == "cpu"

    def splits_groups(self) -> bool:
        return self._slow_groups

    def taps_depthwise(self) -> bool:
        return self._slow_groups

    def batch_norm_training(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mean: Any,
        variance: Any,
        epsilon: float,
        momentum: float,
    ) -> tuple[Any, Any, Any]:
        values = x.astype(gamma.dtype)  # in mixed precision, statistics stay in float32
        batch_mean = jnp.mean(values, axis=(0, 1, 2))
        batch_variance = jnp.mean(jnp.square(values - batch_mean), axis=(0, 1, 2))
        y = (values - batch_mean) * (jax.lax.rsqrt(batch_variance + epsilon) * gamma) + beta
        count = x.shape[0] * x.shape[1] * x.shape[2]
        unbiased = batch_variance * (count / (count - 1))
        return (
            y.astype(x.dtype),
            mean * (1 - momentum) + batch_mean * momentum,
            variance * (1 - momentum) + unbiased * momentum,
        )

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        y = (x.astype(gamma.dtype) - mean) * (jax.lax.rsqrt(variance + epsilon) * gamma) + beta
        return y.astype(x.dtype)

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], tuple[Any, ...]], Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        differentiate = _differentiated(forward, variables)

        def traced(prepared: Any, scalars: Any) -> tuple[Any, Any]:
            loss, gradients = differentiate(prepared, scalars[3])
            return loss, update(gradients, tuple(scalars))

        compiled = CompiledFunction(traced)

        def step(prepared: Any, scalars: tuple[float, ...]) -> tuple[Any, Any]:
            self._batch_sizes.add(len(prepared[1]))
            done: tuple[Any, Any] = compiled(prepared, jnp.asarray(scalars, keras.config.floatx()))
            self._pending.append(done)
            return done

        return step

    def fused_update(self, recipe: Recipe) -> FusedUpdate | None:
        return None  # XLA fuses the plain operations

    def make_gradients(
        self, forward: Callable[..., Any], variables: list[Any], inputs: list[Any]
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        differentiate = _differentiated(forward, variables)
        compiled = CompiledFunction(lambda prepared: differentiate(prepared, 1.0))
        return lambda prepared: compiled(prepared)

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        compiled = CompiledFunction(lambda *tensors: model(list(tensors), training=False))

        def infer(*arrays: Any) -> Any:
            done = compiled(*(self.to_device(a) for a in arrays))
            self._pending.append(done)
            return done

        return infer

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        return self.make_infer(model)

    def to_device(self, array: Any) -> Any:
        return jax.device_put(array, self._device)

    def synchronise(self) -> None:
        # All, not just the last: independent computations may finish in any order.
        jax.block_until_ready(self._pending)
        self._pending.clear()

    def peak_device_bytes(self) -> int | None:
        if self._device.platform == "cpu":
            return None
        statistics = self._device.memory_stats()
        return None if statistics is None else int(statistics["peak_bytes_in_use"])

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        factor = jax.random.normal(jax.random.key(0), (side, side), jnp.float32) / side**0.5
        factor = jax.device_put(factor.astype(PRODUCT_DTYPES[precision]), self._device)
        product, compiled = factor, jax.jit(jnp.matmul)

        def multiply() -> Any:
            nonlocal product
            product = compiled(factor, product)
            self._pending = [product]  # depends on all products before it
            return product

        return multiply

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, MemoryError):
            return True
        return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)

    def knobs(self) -> dict[str, Any]:
        flags, given = os.environ.get("XLA_FLAGS", ""), os.environ.get("NPROC", "")
        settings = jax.config.values
        on_cpu = self._device.platform == "cpu"
        return {
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,  # type: ignore[attr-defined]
            # XLA starts NPROC threads, by default one per core.
            "threads": (int(given) if given.isdigit() else cores()) if on_cpu else None,
            "xla": not settings["jax_disable_jit"],
            "xla_flags": flags or None,
            "x64": settings["jax_enable_x64"],
            "matmul_precision": settings["jax_default_matmul_precision"],
            "tf32": settings["jax_default_matmul_precision"] not in ("highest", "float32"),
            "deterministic": any(flag(name, flags) not in OFF for name in DETERMINISTIC_FLAGS),
            "async_dispatch": not on_cpu or settings["jax_cpu_enable_async_dispatch"],
            "donated_buffers": True,
            "compiled_for_batch_sizes": sorted(self._batch_sizes) or None,
            "cuda": None if on_cpu else self._device.client.platform_version,
        }


class CompiledFunction:
    """A compiled function of arrays that may read and assign Keras variables.

    Tracing it once finds those variables. Each call reads their current values and assigns the new
    ones, so that they may be changed between calls; replaced values donate their buffers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function  # (arrays …) → arrays, on ``keras.ops`` and ``jax.numpy``
        self._read: list[Any] = []
        self._assigned: list[Any] = []
        self._compiled: Any = None

    def __call__(self, *arrays: Any) -> Any:
        if self._compiled is None:
            self._find_variables(arrays)
            self._compiled = jax.jit(self._pure, donate_argnums=0)
        result, values = self._compiled(
            [_placed(v) for v in self._assigned], [_placed(v) for v in self._read], *arrays
        )
        for variable, value in zip(self._assigned, values, strict=True):
            # ``assign`` would check shape and dtype again: 6 µs each, for hundreds of variables.
            variable._direct_assign(value)
        return result

    def _pure(self, replaced: list[Any], kept: list[Any], *arrays: Any) -> tuple[Any, list[Any]]:
        state = [*zip(self._assigned, replaced, strict=True), *zip(self._read, kept, strict=True)]
        with TracingScope(state) as scope:
            result = self._function(*arrays)
        return result, [scope.get_current_value(v) for v in self._assigned]

    def _find_variables(self, arrays: tuple[Any, ...]) -> None:
        scope = TracingScope()

        def recorded(*arrays: Any) -> Any:
            with scope:
                return self._function(*arrays)

        jax.eval_shape(recorded, *arrays)
        self._assigned = list(scope.assigned.values())
        self._read = [v for key, v in scope.read.items() if key not in scope.assigned]


def _placed(variable: Any) -> Any:
    """Return the value of a variable, committed to its device. Results of compiled functions are
    committed and fresh values are not; JAX would compile separately for each."""
    value = variable.value
    return value if value.committed else jax.device_put(value, value.device)


class TracingScope(keras.StatelessScope):
    """Values of variables during tracing, and a record of which are read and assigned.

    A variable has its given value, then the last assigned one; a variable without either has its
    value in the enclosing scope.
    """

    def __init__(self, state: list[tuple[Any, Any]] | None = None) -> None:
        super().__init__(state_mapping=state)
        self.read: dict[int, Any] = {}
        self.assigned: dict[int, Any] = {}

    def get_current_value(self, variable: Any) -> Any:
        self.read[id(variable)] = variable
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update: tuple[Any, Any]) -> None:
        self.assigned[id(update[0])] = update[0]
        super().add_update(update)


def _differentiated(
    forward: Callable[..., Any], variables: list[Any]
) -> Callable[[Any, Any], tuple[Any, list[Any]]]:
    """Return a traceable function: (batch, loss scale) → (mean loss, gradients of the scaled
    loss)."""

    def differentiate(prepared: Any, scale: Any) -> tuple[Any, list[Any]]:
        assigned: list[Any] = []

        def scaled_loss(values: list[Any]) -> tuple[Any, Any]:
            with TracingScope(list(zip(variables, values, strict=True))) as scope:
                loss, scaled = forward(*prepared, scale)
            # BatchNorm's statistics are returned as values: a tracer must not outlive its trace.
            assigned[:] = scope.assigned.values()
            return scaled, (loss, [scope.get_current_value(v) for v in assigned])

        tensors = [v.value for v in variables]
        (_, (loss, news)), gradients = jax.value_and_grad(scaled_loss, has_aux=True)(tensors)
        for variable, new in zip(assigned, news, strict=True):
            variable.assign(new)
        return loss, gradients

    return differentiate


def _gpus() -> list[Any]:
    return [d for d in jax.devices() if d.platform == "gpu"]


def engine() -> JaxEngine:
    """Return the engine of this process."""
    return JaxEngine()
