"""What only one engine of Keras can do, a module each; a worker imports just its own."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras

from bench.spec.run import Precision, Recipe

StepFunction = Callable[[Any, tuple[float, float, float, float]], tuple[Any, Any]]
"""(prepared batch, (learning rate, 1 - b1^t, sqrt(1 - b2^t), loss scale)) → (loss, all finite)."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of AdamW."""


class Scalars(NamedTuple):
    """Numbers of a step's update; tensors within a compiled step."""

    rate: Any
    """Learning rate of the variable."""
    momentum: float
    """Of SGD."""
    correction_1: Any
    """AdamW's 1 - b1^t."""
    correction_2: Any
    """AdamW's sqrt(1 - b2^t)."""


Update = Callable[[Any, list[Any], Any, float | None, Scalars], None]
"""(variable, its moments, its gradient, its weight decay, scalars): updates all in place."""

OFF = (None, "0", "-1", "false", "False")
"""What ``flag`` gives of one that is not in force."""


def flag(name: str, flags: str) -> str | None:
    """The value of ``--name=value`` or ``--name`` among ``flags``, the last one; None if it is not
    there."""
    found = re.findall(rf"(?:^|\s)--{re.escape(name)}(?:=(\S+))?(?=\s|$)", flags)
    return (found[-1] or "true") if found else None


class Engine(Protocol):
    """The part of the Keras adapter that differs between TensorFlow, torch and JAX."""

    def prepare(self, device: str, precision: Precision) -> None:
        """Take a device and set the flags of a run, before anything is built.

        Raises:
            Unavailable: The engine does not see the device, or it cannot do the precision.
        """

    def devices(self) -> list[str]:
        """'cpu' and one 'cuda:N' for each GPU that the engine sees."""

    def release(self) -> bool:
        """Give back what networks that nobody holds any more have left; whether figures of the next
        run are as if it were the first."""

    def splits_groups(self) -> bool:
        """Whether grouped convolutions are to be one convolution for each group."""

    def taps_depthwise(self) -> bool:
        """Whether a depthwise convolution is to be computed as a sum over the kernel's positions,
        for the engine's own is hopelessly slow here."""

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
        """x (N, H, W, C) normalised by its own statistics, and the new running mean and variance
        (C,), the variance unbiased."""

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        """x (N, H, W, C) normalised by the running statistics."""

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], tuple[Any, ...]], Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        """A training step, compiled once for batches of any size.

        Args:
            forward: (images, labels, masks, loss scale) → the mean loss, and the same scaled.
            update: (gradients, scalars) → applies them; gives whether all were finite.
            variables: That are trained.
            inputs: Of the model: symbolic images (None, px, px, 3) uint8, then masks.
        """

    def fused_update(self, recipe: Recipe) -> Update | None:
        """The engine's own kernel for the recipe's optimizer; None: it compiles or runs Keras's
        operations as well as it can."""

    def make_gradients(
        self,
        forward: Callable[..., Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        """Prepared batch → (mean loss, gradient of each variable), in training form.

        Arguments are those of ``make_step``; moving statistics may change or not.
        """

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        """Host arrays, one for each input of the model → its output, or list of outputs.

        The model is called with ``training=False``.
        """

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        """As ``make_infer``, of a model with one output whose variables never change again."""

    def to_device(self, array: Any) -> Any:
        """A host array on the device."""

    def synchronise(self) -> None:
        """Wait for the device."""

    def peak_device_bytes(self) -> int | None:
        """Most memory held on a GPU; None on a CPU."""

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        """A function that queues one product of (side, side) matrices, in half precision where the
        dtype policy computes in it. Each takes the product before as a factor."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory did not suffice."""

    def knobs(self) -> dict[str, Any]:
        """What is in force, read back from the engine."""


PRODUCT_DTYPES: dict[Precision, str] = {
    "fp32": "float32",
    "fp64": "float64",
    "bf16": "bfloat16",
    "fp16": "float16",
}
"""Precision → dtype in which a run multiplies."""


def load() -> Engine:
    """The engine that Keras runs on in this process."""
    module = importlib.import_module(f"backends.keras_adapter.engines.{keras.backend.backend()}")
    engine: Engine = module.engine()
    return engine
