"""Keras on TensorFlow: graph mode, fused BatchNorm, no XLA.

Sources: tensorflow.org API pages of ``tf.raw_ops.FusedBatchNormV3``, ``tf.config``,
``tf.test.experimental.sync_devices``. Measured on 2 CPU cores: XLA is far slower than the default
there, and the fused BatchNorm makes ResNet50 1.4 times as fast as Keras's own layer.


PyTorch's SGD and AdamW by TensorFlow's own kernels: one pass over each variable.

Measured on 2 CPU cores: AdamW on ResNet50 took 25 ms a step in place of 55, on MobileNetV2 8 in
place of 16. Formulas of the kernels: tensorflow.org, ``tf.raw_ops.ResourceApplyMomentum`` and
``ResourceApplyAdam``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
    Scalars,
    StepFunction,
    Update,
    flag,
)
from bench.errors import Unavailable
from bench.spec.run import Precision, Recipe
from bench.system import cores

FUSED_DTYPES = ("float32", "float16", "bfloat16")
"""What FusedBatchNormV3 exists for."""


class TensorFlowEngine:
    """``backends.keras_adapter.engines.Engine`` for TensorFlow."""

    def __init__(self) -> None:
        self._device = "cpu"
        self._batch_norms: set[str] = set()

    def devices(self) -> list[str]:
        gpus = tf.config.list_physical_devices("GPU")
        return ["cpu", *(f"cuda:{i}" for i in range(len(gpus)))]

    def prepare(self, device: str, precision: Precision) -> None:
        known = self.devices()
        if device not in known:
            raise Unavailable(
                f"TensorFlow {tf.__version__} does not see {device}, only {', '.join(known)}; "
                "`python run_bench.py doctor` tells more"
            )
        gpus = tf.config.list_physical_devices("GPU")
        chosen = [] if device == "cpu" else [gpus[int(device.removeprefix("cuda:"))]]
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
        if chosen and self._device != "cpu":  # another run was here before
            tf.config.experimental.reset_memory_stats("GPU:0")
        tf.config.experimental.enable_tensor_float_32_execution(False)
        if device == "cpu" and precision == "fp16":
            raise Unavailable("fp16 is for GPUs; a CPU has --precision fp32 or bf16")
        self._device = device
        self._batch_norms.clear()

    def release(self) -> bool:
        return True  # graphs fall with the session; a GPU's memory stays, its peak is reset

    def splits_groups(self) -> bool:
        # TensorFlow has no gradient of grouped convolutions on a CPU, and Keras compiles them.
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
    ) -> tuple[Any, Any, Any]:
        fused = x.dtype.name in FUSED_DTYPES
        self._batch_norms.add("fused" if fused else "unfused")
        if not fused:
            return _unfused(x, gamma, beta, mean, variance, epsilon, momentum)
        # The raw operation, for tf.nn's wrapper raises epsilon to 1.001e-5 where PyTorch has 1e-5.
        y, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            exponential_avg_factor=momentum,
            is_training=True,
        )
        return y, new_mean, new_variance

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
        update: Callable[[list[Any], tuple[Any, ...]], Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        watched = [v.value for v in variables]
        signature = (_batch_signature(inputs), tf.TensorSpec((4,), keras.config.floatx()))

        @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
        def step(prepared: Any, scalars: Any) -> tuple[Any, Any]:
            images, labels, masks = prepared
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss, scaled = forward(images, labels, masks, scalars[3])
            return loss, update(tape.gradient(scaled, watched), tuple(tf.unstack(scalars)))

        dtype = keras.config.floatx()
        return lambda prepared, scalars: step(prepared, tf.constant(scalars, dtype))

    def fused_update(self, recipe: Recipe) -> Update | None:
        return sgd_update if recipe.optimizer == "sgd" else adamw_update

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
                loss, _ = forward(images, labels, masks, 1.0)
            return loss, tape.gradient(loss, watched)

        found: Callable[[Any], tuple[Any, list[Any]]] = gradients
        return found

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        signature = [tf.TensorSpec(i.shape, i.dtype) for i in model.inputs]

        @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
        def infer(*inputs: Any) -> Any:
            return model(list(inputs), training=False)

        return lambda *arrays: infer(*(tf.constant(a) for a in arrays))

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        signature = [tf.TensorSpec(i.shape, i.dtype) for i in model.inputs]

        @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
        def infer(*inputs: Any) -> Any:
            return model(list(inputs), training=False)

        # Grappler joins convolution, bias and activation, and lays kernels out, for constants only.
        constant = convert_variables_to_constants_v2(infer.get_concrete_function())
        return lambda *arrays: constant(*(tf.constant(a) for a in arrays))[0]

    def to_device(self, array: Any) -> Any:
        return tf.constant(array)

    def synchronise(self) -> None:
        if self._device != "cpu":
            tf.test.experimental.sync_devices()

    def peak_device_bytes(self) -> int | None:
        if self._device == "cpu":
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        factor = tf.random.stateless_normal((side, side), seed=(0, 0)) / side**0.5
        factor = tf.cast(factor, PRODUCT_DTYPES[precision])
        product = factor

        def multiply() -> Any:
            nonlocal product
            product = tf.linalg.matmul(factor, product)
            return product

        return multiply

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)

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
            "xla": bool(tf.config.optimizer.get_jit())
            or flag("tf_xla_auto_jit", os.environ.get("TF_XLA_FLAGS", "")) not in OFF,
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "cuda": build.get("cuda_version") if self._device != "cpu" else None,
            "cudnn": build.get("cudnn_version") if self._device != "cpu" else None,
            "batch_norm_in_training": sorted(self._batch_norms) or None,
            "deterministic": config.is_op_determinism_enabled(),
            "cudnn_benchmark": os.environ.get("TF_CUDNN_USE_AUTOTUNE", "1") != "0",
            "onednn": bool(port.IsMklEnabled()),
        }


def _threads(configured: int, variable: str) -> int:
    """0 is TensorFlow's word for its default: the variable's number, else one thread a core."""
    return configured or int(os.environ.get(variable) or 0) or cores()


def _batch_signature(inputs: list[Any]) -> tuple[Any, ...]:
    """Of (images, labels, masks); with the batch left open there is one trace, also for a last
    batch of fewer images."""
    images, *masks = (tf.TensorSpec(i.shape, i.dtype) for i in inputs)
    return images, tf.TensorSpec((None,), "int64"), tuple(masks)


def _unfused(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, momentum: float
) -> tuple[Any, Any, Any]:
    """The textbook form, for float64."""
    batch_mean, batch_variance = tf.nn.moments(x, axes=(0, 1, 2))
    y = (x - batch_mean) * (tf.math.rsqrt(batch_variance + epsilon) * gamma) + beta
    values = tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype)
    unbiased = batch_variance * (values / (values - 1))
    return (
        y,
        mean * (1 - momentum) + batch_mean * momentum,
        variance * (1 - momentum) + unbiased * momentum,
    )


def engine() -> TensorFlowEngine:
    """The engine of this process."""
    return TensorFlowEngine()


def sgd_update(
    variable: Any, moments: list[Any], gradient: Any, decay: float | None, scalars: Scalars
) -> None:
    """``velocity = momentum * velocity + gradient; variable -= rate * velocity``."""
    if decay is not None:
        gradient = gradient + decay * variable.value
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.value.handle,
        accum=moments[0].value.handle,
        lr=scalars.rate,
        grad=gradient,
        momentum=tf.constant(scalars.momentum, gradient.dtype),
    )


def adamw_update(
    variable: Any, moments: list[Any], gradient: Any, decay: float | None, scalars: Scalars
) -> None:
    """PyTorch's: ``rate / c1 * m / (sqrt(v) / c2 + epsilon)``; the kernel's, with powers of 0:
    ``lr * m / (sqrt(v) + eps)``.

    The kernel weighs what it adds to the moments by 1 minus the rounded beta, PyTorch by the
    rounded 1 - beta: in float32, 1.3e-5 apart. The moments are linear in that weight, so that a
    constant factor, taken out again here, is all that comes of it.
    """
    if decay is not None:
        variable.value.assign(variable.value * (1.0 - scalars.rate * decay))
    dtype = np.dtype(gradient.dtype.as_numpy_dtype).type
    excess_1, excess_2 = (
        float(dtype(1.0) - dtype(beta)) / float(dtype(1.0 - beta)) for beta in (BETA_1, BETA_2)
    )
    root = excess_2**0.5
    zero, beta_1, beta_2 = (tf.constant(v, gradient.dtype) for v in (0.0, BETA_1, BETA_2))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.value.handle,
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
