"""Keras on TensorFlow: graph mode or XLA, fused BatchNorm, fused optimizer kernels.

Measured on 2 CPU cores: XLA is far slower than graph mode; the fused BatchNorm makes ResNet50 1.4
times as fast as Keras's own layer; a step of AdamW by TensorFlow's kernel took 25 ms instead of 55
on ResNet50, 8 instead of 16 on MobileNetV2.

Sources: tensorflow.org, API pages of ``tf.raw_ops.FusedBatchNormV3``, ``ResourceApplyMomentum`` and
``ResourceApplyAdam``, ``tf.config``, ``tf.test.experimental.sync_devices``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.util import _pywrap_util_port as port

from backends.keras_adapter.engines import (
    BETA_1,
    BETA_2,
    EPSILON,
    OFF,
    PRODUCT_DTYPES,
    EngineDefaults,
    FusedUpdate,
    StepFunction,
    TrainedVariable,
    UpdateScalars,
    flag,
)
from backends.out_of_memory import is_out_of_memory
from backends.profile_trace import TraceEvent, is_device_plane, self_seconds, trace_file
from backends.requirements import check_capability, check_device
from bench.spec.run import Precision, Recipe
from bench.system import cores
from bench.system.gpu import FULL_SHARE, gpus
from bench.training.adapter import OnPhase

FUSED_DTYPES = ("float32", "float16", "bfloat16")
"""Dtypes that FusedBatchNormV3 supports."""


class TensorFlowEngine(EngineDefaults):
    """``backends.keras_adapter.engines.Engine`` for TensorFlow."""

    def __init__(self) -> None:
        self._device = "cpu"
        self._compiled = False
        self._batch_norms: set[str] = set()

    def devices(self) -> list[str]:
        gpus = tf.config.list_physical_devices("GPU")
        return ["cpu", *(f"cuda:{i}" for i in range(len(gpus)))]

    def blind_because(self) -> str | None:
        if len(self.devices()) > 1:
            return None
        if not tf.test.is_built_with_cuda():
            return f"TensorFlow {tf.__version__} was built without CUDA"
        build = tf.sysconfig.get_build_info()
        return (
            f"TensorFlow {tf.__version__} needs the libraries of CUDA {build.get('cuda_version')} "
            f"and cuDNN {build.get('cudnn_version')}, and a driver for them"
        )

    def device_name(self, device: str) -> str:
        gpu = tf.config.list_physical_devices("GPU")[int(device.removeprefix("cuda:"))]
        details = tf.config.experimental.get_device_details(gpu)
        return str(details.get("device_name", gpu.name))

    def start(self, device: str) -> None:
        self._take(device)
        with tf.device("CPU:0" if device == "cpu" else "GPU:0"):
            tf.zeros(1)

    def _take(self, device: str) -> list[Any]:
        """Let TensorFlow see this device alone, of which it takes memory as needed. That must come
        before its first computation; later calls for the same device change nothing.

        Returns:
            The GPU, or nothing for the CPU.
        """
        gpus = tf.config.list_physical_devices("GPU")
        chosen = [] if device == "cpu" else [gpus[int(device.removeprefix("cuda:"))]]
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
        return chosen

    def prepare(
        self, device: str, precision: Precision, compile_for: int | None = None,
        native: bool = False,
    ) -> None:  # fmt: skip
        check_device(
            f"TensorFlow {tf.__version__}", device, self.devices(), precision, self.blind_because
        )
        chosen = self._take(device)
        for gpu in chosen:
            details = tf.config.experimental.get_device_details(gpu)
            capability = details.get("compute_capability", (0, 0))
            check_capability(details.get("device_name", device), capability, precision)
        if chosen and self._device != "cpu":  # an earlier run used a GPU
            self.reset_peak()
        if not native or precision == "tf32":
            tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        self._device = device
        self._compiled = compile_for is not None
        self._batch_norms.clear()

    def release(self) -> bool:
        return True  # clearing the session freed the graphs; ``prepare`` resets the GPU's peak

    def splits_groups(self) -> bool:
        # On a CPU, TensorFlow has no gradient of grouped convolutions, so Keras uses XLA for them.
        return self._device == "cpu"

    def taps_depthwise(self) -> bool:
        return False

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
        fused = x.dtype.name in FUSED_DTYPES
        self._batch_norms.add("fused" if fused else "unfused")
        old = tf.convert_to_tensor(mean.value), tf.convert_to_tensor(variance.value)
        if fused:
            # The raw operation: tf.nn's wrapper raises epsilon to 1.001e-5, PyTorch's is 1e-5.
            y, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma,
                offset=beta,
                mean=old[0],
                variance=old[1],
                epsilon=epsilon,
                exponential_avg_factor=momentum,
                is_training=True,
            )
        else:
            y, new_mean, new_variance = _unfused(x, gamma, beta, *old, epsilon, momentum)
        mean.assign(new_mean)
        variance.assign(new_variance)
        return y

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        if x.dtype.name not in FUSED_DTYPES:
            return (x - mean) * (tf.math.rsqrt(variance + epsilon) * gamma) + beta
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        ).y

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], UpdateScalars], None],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        watched = [v.value for v in variables]
        signature = (_batch_signature(inputs), tf.TensorSpec((3,), keras.config.floatx()))

        @self._function(signature)  # type: ignore[untyped-decorator]
        def step(prepared: Any, scalars: Any) -> Any:
            images, labels, masks = prepared
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss, scaled = forward(images, labels, masks)
            update(tape.gradient(scaled, watched), UpdateScalars(*tf.unstack(scalars)))
            return loss

        dtype = keras.config.floatx()

        def train(prepared: Any, scalars: tuple[float, ...], after: OnPhase) -> Any:
            with tf.device("CPU:0"):  # a constant on the GPU would be copied there, and waited for
                numbers = tf.constant(scalars, dtype)
            return step(prepared, numbers)

        return train

    def _function(self, signature: Any) -> Any:
        """Return the decorator of a graph, or of a program of XLA, which compiles each batch size
        anew."""
        return tf.function(
            autograph=False, input_signature=signature, jit_compile=self._compiled or None
        )

    def fused_update(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> FusedUpdate | None:
        return TensorFlowUpdate(recipe, trained, moments)

    def make_gradients(
        self,
        forward: Callable[..., Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        watched = [v.value for v in variables]
        signature = (_batch_signature(inputs),)

        @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
        def gradients(prepared: Any) -> tuple[Any, list[Any]]:
            images, labels, masks = prepared
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss, _ = forward(images, labels, masks)
            return loss, tape.gradient(loss, watched)

        found: Callable[[Any], tuple[Any, list[Any]]] = gradients
        return found

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        infer = self._inference(model)
        return lambda *arrays: infer(*(tf.constant(a) for a in arrays))

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        # Grappler fuses convolution, bias and activation, and lays out kernels, for constants only.
        constant = convert_variables_to_constants_v2(self._inference(model).get_concrete_function())
        return lambda *arrays: constant(*(tf.constant(a) for a in arrays))[0]

    def _inference(self, model: keras.Model) -> Any:
        """Return a function of the model's inputs that computes its inference form."""
        signature = [tf.TensorSpec(i.shape, i.dtype) for i in model.inputs]

        @self._function(signature)  # type: ignore[untyped-decorator]
        def infer(*inputs: Any) -> Any:
            return model(list(inputs), training=False)

        return infer

    def to_device(self, array: Any) -> Any:
        return tf.constant(array)

    def synchronise(self) -> None:
        if self._device != "cpu":
            tf.test.experimental.sync_devices()

    def peak_device_bytes(self) -> int | None:
        if self._device == "cpu":
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def reset_peak(self) -> None:
        if self._device != "cpu":
            tf.config.experimental.reset_memory_stats("GPU:0")

    def layout(self, kernels: list[Any]) -> str | None:
        # On a GPU the graph's optimizer, or XLA, turns convolutions to the layout that it prefers.
        is_as_written = self._device == "cpu" and not self._compiled
        return keras.config.image_data_format() if is_as_written else None

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        factor = tf.random.stateless_normal((side, side), seed=(0, 0)) / side**0.5
        factor = tf.cast(factor, PRODUCT_DTYPES[precision])
        product = factor

        def multiply() -> Any:
            nonlocal product
            product = tf.linalg.matmul(factor, product)
            return product

        return multiply

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        from tensorflow.tsl.profiler.protobuf import xplane_pb2

        with tempfile.TemporaryDirectory(prefix="thawbench-") as folder:
            with tf.profiler.experimental.Profile(folder):
                work()
            space = xplane_pb2.XSpace.FromString(trace_file(Path(folder)).read_bytes())
        return self_seconds(
            [
                TraceEvent(plane.event_metadata[e.metadata_id].name, e.offset_ps, e.duration_ps)
                for e in line.events
            ]
            for plane in space.planes
            if is_device_plane(plane.name)
            for line in plane.lines
        )

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error, self._is_full)

    def _is_full(self) -> bool:
        """Return True if values fill the GPU; what TensorFlow keeps for later does not count."""
        if self._device == "cpu":
            return False
        index = int(self._device.removeprefix("cuda:"))
        total = gpus()[index].memory_bytes if index < len(gpus()) else None
        used = tf.config.experimental.get_memory_info("GPU:0")["current"]
        return total is not None and total - used < FULL_SHARE * total

    def knobs(self) -> dict[str, Any]:
        build = tf.sysconfig.get_build_info()
        return {
            "tensorflow": tf.__version__,
            "threads": _threads(
                tf.config.threading.get_intra_op_parallelism_threads(), "TF_NUM_INTRAOP_THREADS"
            ),
            "interop_threads": _threads(
                tf.config.threading.get_inter_op_parallelism_threads(), "TF_NUM_INTEROP_THREADS"
            ),
            "xla": self._compiled
            or bool(tf.config.optimizer.get_jit())
            or flag("tf_xla_auto_jit", os.environ.get("TF_XLA_FLAGS", "")) not in OFF,
            "tf32": self._device != "cpu"
            and tf.config.experimental.tensor_float_32_execution_enabled(),
            "cuda": build.get("cuda_version") if self._device != "cpu" else None,
            "cudnn": build.get("cudnn_version") if self._device != "cpu" else None,
            "batch_norm_in_training": sorted(self._batch_norms) or None,
            "deterministic": config.is_op_determinism_enabled(),
            "cudnn_benchmark": os.environ.get("TF_CUDNN_USE_AUTOTUNE", "1") != "0",
            "onednn": bool(port.IsMklEnabled()),
        }


def _threads(configured: int, variable: str) -> int:
    """Return the threads in use; 0 means TensorFlow's default: the variable, else one per core."""
    given = os.environ.get(variable, "")
    return configured or (int(given) if given.isdigit() else 0) or cores()


def _batch_signature(inputs: list[Any]) -> tuple[Any, ...]:
    """Return the signature of (images, labels, masks). The batch size is open, so that a smaller
    last batch needs no second trace."""
    images, *masks = (tf.TensorSpec(i.shape, i.dtype) for i in inputs)
    return images, tf.TensorSpec((None,), "int64"), tuple(masks)


def _unfused(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, momentum: float
) -> tuple[Any, Any, Any]:
    """Compute ``batch_norm_training`` from plain operations, for float64."""
    batch_mean, batch_variance = tf.nn.moments(x, axes=(0, 1, 2))
    y = (x - batch_mean) * (tf.math.rsqrt(batch_variance + epsilon) * gamma) + beta
    values = tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype)
    unbiased = batch_variance * (values / (values - 1))
    return (
        y,
        mean * (1 - momentum) + batch_mean * momentum,
        variance * (1 - momentum) + unbiased * momentum,
    )


class TensorFlowUpdate:
    """TensorFlow's kernels of SGD or AdamW, one call a variable (``FusedUpdate``)."""

    can_skip = False

    def __init__(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> None:
        self._recipe, self._trained, self._moments = recipe, trained, moments

    def reset(self) -> None:
        pass

    def __call__(
        self, gradients: list[Any], scalars: UpdateScalars, loss_scale: Any = None
    ) -> None:
        rule = self._sgd if self._recipe.optimizer == "sgd" else self._adamw
        for index, (trained, gradient) in enumerate(zip(self._trained, gradients, strict=True)):
            own = scalars._replace(rate=scalars.rate * trained.rate_scale)
            rule(trained, [each[index] for each in self._moments], gradient, own)

    def _sgd(
        self, trained: TrainedVariable, moments: list[Any], gradient: Any, scalars: UpdateScalars
    ) -> None:
        """Update as PyTorch's SGD: ``velocity = momentum * velocity + gradient``, then
        ``variable -= rate * velocity``."""
        if trained.decay is not None:
            gradient = gradient + trained.decay * trained.variable.value
        tf.raw_ops.ResourceApplyMomentum(
            var=trained.variable.value.handle,
            accum=moments[0].value.handle,
            lr=scalars.rate,
            grad=gradient,
            momentum=tf.constant(self._recipe.momentum, gradient.dtype),
        )

    def _adamw(
        self, trained: TrainedVariable, moments: list[Any], gradient: Any, scalars: UpdateScalars
    ) -> None:
        """Update as PyTorch's AdamW, by ``rate / c1 * m / (sqrt(v) / c2 + epsilon)``.

        With beta powers of 0 the kernel computes ``lr * m / (sqrt(v) + eps)``. It weights new
        values in the moments by 1 minus the rounded beta, PyTorch by the rounded 1 - beta (in
        float32 they differ by 1.3e-5). The moments are linear in that weight, so they are off by a
        constant factor, which ``lr`` and ``eps`` compensate.
        """
        variable = trained.variable.value
        if trained.decay is not None:
            variable.assign(variable * (1.0 - scalars.rate * trained.decay))
        dtype = np.dtype(gradient.dtype.as_numpy_dtype).type
        excess_1, excess_2 = (
            float(dtype(1.0) - dtype(beta)) / float(dtype(1.0 - beta)) for beta in (BETA_1, BETA_2)
        )
        root = excess_2**0.5
        zero, beta_1, beta_2 = (tf.constant(v, gradient.dtype) for v in (0.0, BETA_1, BETA_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moments[0].value.handle,
            v=moments[1].value.handle,
            beta1_power=zero,
            beta2_power=zero,
            lr=scalars.rate * scalars.correction_2 / scalars.correction_1 * (root / excess_1),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=scalars.correction_2 * (EPSILON * root),
            grad=gradient,
        )


def engine() -> TensorFlowEngine:
    """Return the engine of this process."""
    return TensorFlowEngine()
