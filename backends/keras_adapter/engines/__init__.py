"""The interface between the Keras adapter and the engine that Keras runs on.

Each engine has its own module; a worker imports only the one it uses.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from bench.network.blueprint import Array
from bench.spec.run import Precision, Recipe
from bench.training.adapter import DeviceEvents, OnPhase

Pair = tuple[int, int]
Edges = tuple[Pair, Pair]
"""Padding at (top, bottom), (left, right)."""

StepFunction = Callable[[Any, tuple[float, float, float], OnPhase], Any]
"""(prepared batch, (learning rate, 1 - b1^t, sqrt(1 - b2^t)), called after each part) → loss."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Constants of AdamW."""


class TrainedVariable(NamedTuple):
    """A trained variable with its share of the learning rate and its weight decay."""

    variable: Any
    """The ``keras.Variable``."""
    rate_scale: Any
    """Factor on the step's learning rate: a number, or a tensor that broadcasts with the variable's
    shape."""
    decay: Any
    """Weight decay: a number or such a tensor; None for no decay."""


class UpdateScalars(NamedTuple):
    """Scalars of one optimizer step; tensors inside a compiled step."""

    rate: Any
    """Learning rate of the step."""
    correction_1: Any
    """AdamW's 1 - b1^t."""
    correction_2: Any
    """AdamW's sqrt(1 - b2^t)."""


class FusedUpdate(Protocol):
    """An engine's own kernels for the recipe's optimizer, over all trained variables."""

    can_skip: bool
    """True if they can leave out a step whose gradients are not finite."""

    def __call__(self, gradients: list[Any], scalars: UpdateScalars, loss_scale: Any = None) -> Any:
        """Update variables and moments in place, given the gradient of each variable.

        With a ``loss_scale`` (only where ``can_skip``) divide the gradients by it, skip the step if
        one is not finite, and return a boolean tensor: True if all were.
        """

    def reset(self) -> None:
        """Forget what it keeps besides the moments."""


PRODUCT_DTYPES: dict[Precision, str] = {
    "fp32": "float32",
    "tf32": "float32",
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


class Engine(Protocol):
    """The part of the Keras adapter that differs between TensorFlow, torch and JAX."""

    def prepare(
        self, device: str, precision: Precision, compile_for: int | None = None,
        native: bool = False,
    ) -> None:  # fmt: skip
        """Select the device and set the flags of a run, before anything is built.

        Args:
            device: cpu or cuda:N.
            precision: Precision of the run.
            compile_for: Batch size for which steps and inference go through the engine's compiler;
                None: they do not, or always do.
            native: True to leave the framework's own flags as they are.

        Raises:
            Unavailable: The engine does not see the device, or the device lacks the precision.
        """

    def devices(self) -> list[str]:
        """Return 'cpu' and one 'cuda:N' for each GPU that the engine sees."""

    def blind_because(self) -> str | None:
        """Return why the engine sees no GPU, where it tells."""

    def device_name(self, device: str) -> str:
        """Return the model of a GPU."""

    def start(self, device: str) -> None:
        """Take what the engine keeps on a device for the whole process."""

    def release(self) -> bool:
        """Free what deleted networks left behind. Return True if the next run in this process will
        be measured as in a new one."""

    def splits_groups(self) -> bool:
        """Return True if a grouped convolution should run as one convolution per group."""

    def taps_depthwise(self) -> bool:
        """Return True if a depthwise convolution should run as a sum over the kernel's positions,
        because the engine's own is far too slow on this device."""

    def pads(self) -> bool:
        """Return True if ``convolution``, ``max_pool`` and ``average_pool`` take any padding; else
        layers in front of them pad, and Keras's own operations compute."""

    def convolution(
        self, x: Any, kernel: Any, bias: Any, stride: Pair, edges: Edges, dilation: Pair,
        groups: int,
    ) -> Any:  # fmt: skip
        """Convolve x (N, H, W, C) with a kernel (h, w, C / groups, outputs); called only where
        ``pads``. Bias (outputs,) or None."""

    def lay_out(self, kernel: Any) -> None:
        """Give the variable of a convolution's kernel the layout in memory that ``convolution``
        takes without a copy."""

    def max_pool(self, x: Any, kernel: Pair, stride: Pair, edges: Edges) -> Any:
        """Take the maximum over windows of x (N, H, W, C); called only where ``pads``."""

    def average_pool(self, x: Any, kernel: Pair, stride: Pair, edges: Edges) -> Any:
        """Take the mean over windows of x (N, H, W, C), zeros at the edges included; called only
        where ``pads``."""

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
        """Normalise x (N, H, W, C) by its own statistics; move the running mean and (unbiased)
        variance, ``keras.Variable`` of shape (C,), towards them."""

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        """Normalise x (N, H, W, C) by the running statistics."""

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], UpdateScalars], None],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        """Build a training step that takes batches of any size.

        Args:
            forward: (images, labels, masks) → (mean loss, mean loss times the loss scale).
            update: (gradients of the scaled loss, scalars of the step); applies them.
            variables: The trained variables.
            inputs: Symbolic inputs of the model: images (None, px, px, 3) uint8, then masks.
        """

    def fused_update(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> FusedUpdate | None:
        """Return the engine's own kernels for the recipe's optimizer, None if it has none that beat
        the plain operations.

        Args:
            recipe: Recipe of the run.
            trained: Variables, whose rates and decays are numbers.
            moments: For each moment of the optimizer, a variable for each trained one.
        """

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

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialised array on the host, of the kind that ``to_device`` copies
        fastest."""

    def to_host(self, value: Any) -> Callable[[], Array]:
        """Begin to copy a value to the host; return a function that waits for it."""

    def events(self) -> DeviceEvents | None:
        """Return a clock on the device's own timeline; None where there is none."""

    def synchronise(self) -> None:
        """Wait until the device has finished all work."""

    def peak_device_bytes(self) -> int | None:
        """Return the peak memory of the GPU in bytes; None on a CPU."""

    def reserved_device_bytes(self) -> int | None:
        """Return the most memory that the engine took from the GPU; None where it is not told."""

    def reset_peak(self) -> None:
        """Let ``peak_device_bytes`` begin anew, where the engine can."""

    def layout(self, kernels: list[Any]) -> str | None:
        """Return 'channels_last' or 'channels_first' as convolutions with these kernels run; None
        where a compiler chooses and does not tell."""

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        """Build a function that queues one product of (side, side) matrices in the dtype of
        ``PRODUCT_DTYPES``. One factor of each product is the product before it."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return True if an exception reports that memory ran out."""

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        """Do ``work`` and return the seconds of each operation itself, see ``Adapter.profile``."""

    def knobs(self) -> dict[str, Any]:
        """Return the settings in force, read back from the engine."""


class EngineDefaults:
    """What engines share that compute with Keras's own operations and have no memory, clock or
    layout to show."""

    def pads(self) -> bool:
        return False

    def convolution(self, *_: Any) -> Any:
        raise NotImplementedError("Keras's own layers convolve")

    def lay_out(self, kernel: Any) -> None:
        pass

    def max_pool(self, *_: Any) -> Any:
        raise NotImplementedError("Keras's own layers pool")

    def average_pool(self, *_: Any) -> Any:
        raise NotImplementedError("Keras's own layers pool")

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.empty(shape, dtype)

    def to_host(self, value: Any) -> Callable[[], Array]:
        return lambda: host_values(value)

    def events(self) -> DeviceEvents | None:
        return None

    def reserved_device_bytes(self) -> int | None:
        return None


def host_values(value: Any) -> Array:
    """Copy a value to the host, in float64 if it is float64, else in float32."""
    is_double = keras.backend.standardize_dtype(value.dtype) == "float64"
    found: Array = ops.convert_to_numpy(ops.cast(value, "float64" if is_double else "float32"))
    return found


def load() -> Engine:
    """Import the engine that Keras runs on in this process."""
    module = importlib.import_module(f"backends.keras_adapter.engines.{keras.backend.backend()}")
    engine: Engine = module.engine()
    return engine
