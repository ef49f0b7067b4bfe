"""The interface between the Keras adapter and the engine that Keras runs on.

Each engine has its own module; a worker imports only the one it uses.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras

from bench.errors import Unavailable
from bench.spec.run import Precision, Recipe

StepFunction = Callable[[Any, tuple[float, float, float, float]], tuple[Any, Any]]
"""(prepared batch, (learning rate, 1 - b1^t, sqrt(1 - b2^t), loss scale)) → (loss, True if all
gradients were finite)."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Constants of AdamW."""


class UpdateScalars(NamedTuple):
    """Scalars of one optimizer step for one variable; tensors inside a compiled step."""

    rate: Any
    """Learning rate of the variable."""
    momentum: float
    """Momentum of SGD."""
    correction_1: Any
    """AdamW's 1 - b1^t."""
    correction_2: Any
    """AdamW's sqrt(1 - b2^t)."""


FusedUpdate = Callable[[Any, list[Any], Any, float | None, UpdateScalars], None]
"""Updates (variable, its moments) in place, given (its gradient, its weight decay, scalars)."""

PRODUCT_DTYPES: dict[Precision, str] = {
    "fp32": "float32",
    "fp64": "float64",
    "bf16": "bfloat16",
    "fp16": "float16",
}
"""Precision → dtype of the matrix products of a run."""

OFF = (None, "0", "-1", "false", "False")
"""Values of ``flag`` that mean that the flag is off."""


def flag(name: str, flags: str) -> str | None:
    """Return the value of the last ``--name=value`` in ``flags``: 'true' for a bare ``--name``,
    None if the flag is absent."""
    found = re.findall(rf"(?:^|\s)--{re.escape(name)}(?:=(\S+))?(?=\s|$)", flags)
    return (found[-1] or "true") if found else None


def check_device(library: str, device: str, visible: list[str], precision: Precision) -> None:
    """Raise Unavailable if the engine does not see the device or the device lacks the precision.

    Args:
        library: Name and version of the engine, for the message.
        device: cpu or cuda:N.
        visible: Devices that the engine sees.
        precision: Precision of the run.
    """
    if device not in visible:
        raise Unavailable(
            f"{library} does not see {device}, only {', '.join(visible)}; "
            "run `python run_bench.py doctor` for details"
        )
    if device == "cpu" and precision == "fp16":
        raise Unavailable("fp16 needs a GPU; on a CPU use --precision fp32 or bf16")


class Engine(Protocol):
    """The part of the Keras adapter that differs between TensorFlow, torch and JAX."""

    def prepare(self, device: str, precision: Precision) -> None:
        """Select the device and set the flags of a run, before anything is built.

        Raises:
            Unavailable: The engine does not see the device, or the device lacks the precision.
        """

    def devices(self) -> list[str]:
        """Return 'cpu' and one 'cuda:N' for each GPU that the engine sees."""

    def release(self) -> bool:
        """Free what deleted networks left behind. Return True if the next run in this process will
        be measured as in a new one."""

    def splits_groups(self) -> bool:
        """Return True if a grouped convolution should run as one convolution per group."""

    def taps_depthwise(self) -> bool:
        """Return True if a depthwise convolution should run as a sum over the kernel's positions,
        because the engine's own is far too slow on this device."""

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
        """Normalise x (N, H, W, C) by its own statistics; return it with the new running mean and
        (unbiased) variance, both (C,)."""

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        """Normalise x (N, H, W, C) by the running statistics."""

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], tuple[Any, ...]], Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        """Build a training step that takes batches of any size.

        Args:
            forward: (images, labels, masks, loss scale) → (mean loss, mean loss times the scale).
            update: (gradients, scalars) → True if all gradients were finite; applies them.
            variables: The trained variables.
            inputs: Symbolic inputs of the model: images (None, px, px, 3) uint8, then masks.
        """

    def fused_update(self, recipe: Recipe) -> FusedUpdate | None:
        """Return the engine's own kernel for the recipe's optimizer, None if it has none that beats
        the plain operations."""

    def make_gradients(
        self,
        forward: Callable[..., Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        """Build a function: prepared batch → (mean loss, gradient of each variable), in training
        form. Arguments as for ``make_step``; it may move BatchNorm's statistics."""

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        """Build a function: one host array per input of the model → its output or list of outputs,
        with ``training=False``."""

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        """Do the same as ``make_infer`` for a model with one output and constant variables."""

    def to_device(self, array: Any) -> Any:
        """Copy a host array to the device."""

    def synchronise(self) -> None:
        """Wait until the device has finished all work."""

    def peak_device_bytes(self) -> int | None:
        """Return the peak memory of the GPU in bytes; None on a CPU."""

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        """Build a function that queues one product of (side, side) matrices in the dtype of
        ``PRODUCT_DTYPES``. One factor of each product is the product before it."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return True if an exception reports that memory ran out."""

    def knobs(self) -> dict[str, Any]:
        """Return the settings in force, read back from the engine."""


def load() -> Engine:
    """Import the engine that Keras runs on in this process."""
    module = importlib.import_module(f"backends.keras_adapter.engines.{keras.backend.backend()}")
    engine: Engine = module.engine()
    return engine
