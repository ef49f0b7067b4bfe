"""Keras on JAX: each step is one program that XLA compiles once for each batch size.

Sources: docs.jax.dev, "Configuration options", "GPU memory allocation", ``jax.jit``
(``donate_argnums``), "Ahead-of-time lowering and compilation", "Asynchronous dispatch";
keras.io, "StatelessScope".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import keras
import numpy as np

from backends.keras_adapter.engines import (
    OFF,
    PRODUCT_DTYPES,
    EngineDefaults,
    FusedUpdate,
    StepFunction,
    TrainedVariable,
    UpdateScalars,
    flag,
    host_values,
)
from backends.out_of_memory import is_out_of_memory
from backends.profile_trace import TraceEvent, is_device_plane, self_seconds, trace_file
from backends.requirements import check_capability, check_device
from bench.errors import first_line
from bench.network.blueprint import Array
from bench.spec.run import Precision, Recipe
from bench.system import cores
from bench.system.gpu import FULL_SHARE
from bench.training.adapter import OnPhase

DETERMINISTIC_FLAGS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")


class JaxEngine(EngineDefaults):
    """``backends.keras_adapter.engines.Engine`` for JAX."""

    def __init__(self) -> None:
        # JAX reads this when it first looks for devices. The training loop assumes that a step on a
        # CPU is finished when its call returns.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._device: Any = None
        self._blind: str | None = None
        self._slow_groups = False
        self._pending: list[Any] = []
        self._programs: list[Program] = []

    def devices(self) -> list[str]:
        return ["cpu", *(f"cuda:{i}" for i in range(len(self._gpus_or_reason())))]

    def _gpus_or_reason(self) -> list[Any]:
        """Return the GPUs; keep the reason where JAX cannot start, such as an old driver. Raise its
        exception if the memory of a GPU is full."""
        try:
            return _gpus()
        except RuntimeError as error:
            if self.is_out_of_memory(error):
                raise
            self._blind = first_line(error)
            return []

    def blind_because(self) -> str | None:
        if self._gpus_or_reason():
            return None
        if self._blind is None:
            try:
                jax.devices("gpu")
            except RuntimeError as error:
                self._blind = first_line(error)
        return self._blind

    def device_name(self, device: str) -> str:
        return str(_device(device).device_kind)

    def start(self, device: str) -> None:
        jax.block_until_ready(jax.device_put(np.zeros(1, np.float32), _device(device)))

    def prepare(
        self, device: str, precision: Precision, compile_for: int | None = None,
        native: bool = False,
    ) -> None:  # fmt: skip
        check_device(
            f"JAX {jax.__version__}", device, self.devices(), precision, self.blind_because
        )
        on_cpu = device == "cpu"
        chosen = _device(device)
        if not on_cpu:
            major, minor = (int(part) for part in chosen.compute_capability.split("."))
            check_capability(chosen.device_kind, (major, minor), precision)
        jax.config.update("jax_default_device", chosen)
        jax.config.update("jax_enable_x64", precision == "fp64")
        products = "tensorfloat32" if precision == "tf32" else None if native else "highest"
        jax.config.update("jax_default_matmul_precision", products)
        self._device = chosen
        self._programs.clear()
        # XLA's grouped convolution in float64 on a CPU is slow: a step of EfficientNet-Lite0
        # (64 px, batch 4) took 17 s on one core, and 0.2 s with TapDepthwiseConv2D.
        self._slow_groups = on_cpu and precision == "fp64"

    def release(self) -> bool:
        self._pending.clear()
        self._programs.clear()
        jax.clear_caches()
        return True

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
    ) -> Any:
        values = x.astype(gamma.dtype)  # in mixed precision, statistics stay in float32
        batch_mean = jnp.mean(values, axis=(0, 1, 2))
        batch_variance = jnp.mean(jnp.square(values - batch_mean), axis=(0, 1, 2))
        y = (values - batch_mean) * (jax.lax.rsqrt(batch_variance + epsilon) * gamma) + beta
        count = x.shape[0] * x.shape[1] * x.shape[2]
        unbiased = batch_variance * (count / (count - 1))
        for variable, new in ((mean, batch_mean), (variance, unbiased)):
            variable.assign(variable.value * (1 - momentum) + new * momentum)
        return y.astype(x.dtype)

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        y = (x.astype(gamma.dtype) - mean) * (jax.lax.rsqrt(variance + epsilon) * gamma) + beta
        return y.astype(x.dtype)

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], UpdateScalars], None],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        differentiate = _differentiated(forward, variables)

        def traced(prepared: Any, scalars: Any) -> Any:
            loss, gradients = differentiate(prepared)
            update(gradients, UpdateScalars(*scalars))
            return loss

        compiled = CompiledFunction(traced, self._programs)

        def step(prepared: Any, scalars: tuple[float, ...], after: OnPhase) -> Any:
            loss = compiled(prepared, jnp.asarray(scalars, keras.config.floatx()))
            self._pending.append(loss)
            return loss

        return step

    def fused_update(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> FusedUpdate | None:
        return None  # XLA fuses the plain operations

    def make_gradients(
        self, forward: Callable[..., Any], variables: list[Any], inputs: list[Any]
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        differentiate = _differentiated(forward, variables)
        compiled = CompiledFunction(differentiate, self._programs)
        return lambda prepared: compiled(prepared)

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        compiled = CompiledFunction(
            lambda *tensors: model(list(tensors), training=False), self._programs
        )

        def infer(*arrays: Any) -> Any:
            done = compiled(*(self.to_device(a) for a in arrays))
            self._pending.append(done)
            return done

        return infer

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        return self.make_infer(model)

    def to_device(self, array: Any) -> Any:
        return jax.device_put(array, self._device)

    def to_host(self, value: Any) -> Callable[[], Array]:
        value.copy_to_host_async()
        if self._pending and self._pending[-1] is value:
            self._pending.pop()  # the returned function waits for it
        return lambda: host_values(value)

    def synchronise(self) -> None:
        # All, not just the last: independent computations may finish in any order.
        jax.block_until_ready(self._pending)
        self._pending.clear()

    def peak_device_bytes(self) -> int | None:
        """Return the memory of the program that needs most. JAX cannot reset the allocator's own
        peak, which is that of all runs of the process."""
        if self._device.platform == "cpu":
            return None
        return max((program.device_bytes for program in self._programs), default=None)

    def reset_peak(self) -> None:
        pass  # a program's memory does not contain the search for its kernels

    def layout(self, kernels: list[Any]) -> str | None:
        on_cpu = self._device.platform == "cpu"
        return keras.config.image_data_format() if on_cpu else None

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

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="thawbench-") as folder:
            with jax.profiler.trace(folder):
                work()
            space = jax.profiler.ProfileData.from_file(str(trace_file(Path(folder))))
        return self_seconds(
            [
                TraceEvent(e.name, round(e.start_ns * 1000), round(e.duration_ns * 1000))
                for e in line.events
            ]
            for plane in space.planes
            if is_device_plane(plane.name)
            for line in plane.lines
        )

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error, self._is_full)

    def _is_full(self) -> bool:
        """Return True if values fill the memory that JAX may take of the GPU."""
        if self._device is None or self._device.platform == "cpu":
            return False
        told = self._device.memory_stats() or {}
        used, limit = told.get("bytes_in_use"), told.get("bytes_limit")
        return bool(used and limit and limit - used < FULL_SHARE * limit)

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
            "compile": not settings["jax_disable_jit"],
            "matmul_precision": settings["jax_default_matmul_precision"],
            "tf32": not on_cpu
            and settings["jax_default_matmul_precision"] not in ("highest", "float32"),
            "deterministic": any(flag(name, flags) not in OFF for name in DETERMINISTIC_FLAGS),
            "async_dispatch": not on_cpu or settings["jax_cpu_enable_async_dispatch"],
            "donated_buffers": True,
            "graphs_compiled": len(self._programs),
            "compiled_for_batch_sizes": sorted({p.batch_size for p in self._programs}) or None,
            "cuda": None if on_cpu else self._device.client.platform_version,
        }


class Program(NamedTuple):
    """A compiled program."""

    batch_size: int
    call: Any
    device_bytes: int
    """Memory of its arguments, outputs and temporary values."""


class CompiledFunction:
    """A compiled function of arrays that may read and assign Keras variables.

    Tracing it once finds those variables. Each call reads their current values and assigns the new
    ones, so that they may be changed between calls; replaced values donate their buffers.
    """

    def __init__(self, function: Callable[..., Any], programs: list[Program]) -> None:
        """
        Args:
            function: (arrays …) → arrays, on ``keras.ops`` and ``jax.numpy``.
            programs: Takes each program that is compiled.
        """
        self._function = function
        self._all_programs = programs
        self._read: list[Any] = []
        self._assigned: list[Any] = []
        self._jitted: Any = None
        self._programs: dict[tuple[Any, ...], Program] = {}
        """Shapes of the arrays → program."""

    def __call__(self, *arrays: Any) -> Any:
        if self._jitted is None:
            self._find_variables(arrays)
            self._jitted = jax.jit(self._pure, donate_argnums=0)
        values = [[_placed(v) for v in each] for each in (self._assigned, self._read)]
        shapes = tuple(array.shape for array in jax.tree.leaves(arrays))
        if shapes not in self._programs:
            self._programs[shapes] = self._compile(shapes[0][0], (*values, *arrays))
        result, new = self._programs[shapes].call(*values, *arrays)
        for variable, value in zip(self._assigned, new, strict=True):
            # ``assign`` would check shape and dtype again: 6 µs each, for hundreds of variables.
            variable._direct_assign(value)
        return result

    def _compile(self, batch_size: int, arguments: tuple[Any, ...]) -> Program:
        call = self._jitted.lower(*arguments).compile()
        found = call.memory_analysis()
        held = 0
        if found is not None:
            held = found.argument_size_in_bytes + found.output_size_in_bytes
            held += found.temp_size_in_bytes - found.alias_size_in_bytes
        program = Program(batch_size, call, held)
        self._all_programs.append(program)
        return program

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
) -> Callable[[Any], tuple[Any, list[Any]]]:
    """Return a traceable function: batch → (mean loss, gradients of the scaled loss)."""

    def differentiate(prepared: Any) -> tuple[Any, list[Any]]:
        assigned: list[Any] = []

        def scaled_loss(values: list[Any]) -> tuple[Any, Any]:
            with TracingScope(list(zip(variables, values, strict=True))) as scope:
                loss, scaled = forward(*prepared)
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
    return [d for d in jax.devices() if d.platform in ("gpu", "cuda")]


def _device(name: str) -> Any:
    return jax.devices("cpu")[0] if name == "cpu" else _gpus()[int(name.removeprefix("cuda:"))]


def engine() -> JaxEngine:
    """Return the engine of this process."""
    return JaxEngine()
