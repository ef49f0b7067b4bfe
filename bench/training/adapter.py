"""The interface between the training code and a framework's adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.workers.tasks import NativeRequest, ParameterCounts


class Batch(NamedTuple):
    """The input of one training step, in host memory."""

    images: Array
    """uint8 (N, px, px, 3) RGB, augmented; or values of the frozen prefix, from ``Prefix.values``,
    in place of images."""
    labels: npt.NDArray[np.int64]
    """(N,) class numbers."""
    masks: tuple[npt.NDArray[np.bool_], ...]
    """For each dropout of the plan, the elements it keeps: (N, H, W, C), (N, L, C) or (N, C)."""


class DeviceEvents(Protocol):
    """A clock on a device's own timeline, which does not make the host wait."""

    def mark(self) -> None:
        """Note the moment when the device has done all that is queued now."""

    def seconds(self) -> list[float]:
        """Return the seconds between neighbouring marks; waits for the last one."""


class HostMemory(Protocol):
    """Arrays on the host that a device reads fast."""

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialised array on the host, of the kind that the device copies fastest:
        pinned memory where the framework gives it."""


OnPhase = Callable[[str], None]
"""Called with 'forward', 'backward' and 'optimizer' when that part of a step is queued."""


def ignore(phase: str) -> None:
    """Do nothing: the ``OnPhase`` of a training step."""


class Trainer(HostMemory, Protocol):
    """A network on a device with its optimizer: all that a run needs, in either mode."""

    waits_for_steps: bool
    """True if ``train_step`` returns when the device is done, and not when the step is queued."""

    def to_device(self, batch: Batch) -> Any:
        """Copy a batch to the device and return it in the form that ``train_step`` takes."""

    def train_step(self, prepared: Any, learning_rate: float) -> Any:
        """Do one optimizer step; return a handle of the mean loss, perhaps not computed yet."""

    def step_in_phases(self, prepared: Any, learning_rate: float, after: OnPhase) -> Any:
        """Do ``train_step`` and report its parts; a framework that runs the step as one program
        reports none."""

    def losses(self, handles: list[Any]) -> list[float]:
        """Return the losses of handles; waits for the device."""

    def infer(self, images: Array) -> Any:
        """Return a handle of the logits, in inference form, of uint8 images (N, px, px, 3) or of
        values of the frozen prefix."""

    def logits(self, handles: list[Any]) -> Array:
        """Return the (sum of N, classes) logits of handles, in float32 or float64; waits for the
        device."""

    def synchronise(self) -> None:
        """Wait until the device has done all work it was given."""

    def tensors(self) -> dict[str, Array]:
        """Return a copy of every tensor: in matched mode by the Blueprint's names and in its
        layout, in native mode by the framework's."""

    def counts(self) -> ParameterCounts:
        """Return the numbers of parameters, read from the framework's own objects."""

    def knobs(self) -> dict[str, Any]:
        """Return the settings in force, read back from the framework."""

    def peak_device_bytes(self) -> int | None:
        """Return the most memory that the run held on a GPU since ``reset_peak``; None where it
        cannot be known."""

    def reserved_device_bytes(self) -> int | None:
        """Return the most memory that the framework took from a GPU; None where it is not told."""

    def reset_peak(self) -> None:
        """Let ``peak_device_bytes`` begin anew, where the framework can."""

    def events(self) -> DeviceEvents | None:
        """Return a clock on the device's own timeline; None where there is none."""

    def matrix_product(self, side: int) -> Callable[[], object]:
        """Return a function that queues one product of two (side, side) matrices on the device, in
        the precision in which the run multiplies; ``synchronise`` waits for it."""


@runtime_checkable
class Restorable(Protocol):
    """A trainer that can start anew from given tensors."""

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Set every tensor (names and layout as ``Trainer.tensors`` returns them) and reset the
        optimizer's moments and the loss scale."""


class Prefix(HostMemory, Protocol):
    """The frozen operations before the first trained one (``bench.network.frozen_prefix``)."""

    def prefix(self, images: npt.NDArray[np.uint8]) -> Any:
        """Compute the frozen prefix's value for images (N, px, px, 3) and begin to copy it to the
        host; return a handle for ``values``."""

    def values(self, handles: list[Any]) -> Array:
        """Return the (sum of N, …) values of handles, channels last, in float64 if that is the
        recipe's precision and else in float32; waits for the device."""

    def synchronise(self) -> None:
        """Wait until the device has done all work it was given."""

    def prefix_form(self) -> str:
        """Return the form in force (``bench.training.prefix_cache``), with the reason if it is a
        fallback."""


class MatchedTrainer(Trainer, Restorable, Prefix, Protocol):
    """The trainer of a Blueprint, in matched mode: it can also train and infer from values of the
    frozen prefix, and its intermediate values can be read, as proofs need."""

    def activations(self, images: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """Compute the preprocessed pixels and the value of every operation in inference form for
        images (N, px, px, 3): name → (N, C, H, W) or (N, …) in the Blueprint's layout."""

    def training_pixels(self, prepared: Any) -> Array:
        """Return the preprocessed pixels (N, 3, H, W) from which a training step on a batch of
        images starts. BatchNorm statistics may change, as in a training step; nothing else does."""

    def gradients(self, prepared: Any) -> tuple[float, dict[str, Array]]:
        """Compute the mean loss of a batch in training form, and its gradient for each trained
        tensor. BatchNorm statistics may change, as in a training step; nothing else does."""

    def cross_entropy(self, logits: Array, labels: npt.NDArray[np.int64]) -> float:
        """Compute the mean loss of logits (N, classes) by the function that training uses."""


class Heads(NamedTuple):
    """The initial values and settings of R linear heads for each of S seeds, over F features and C
    classes."""

    weights: Array
    """(S, R, C, F)."""
    biases: Array
    """(S, R, C)."""
    learning_rates: Array
    """(S, R) peak rates."""
    weight_decays: Array
    """(S, R), applied to the weights."""


class HeadsTrainer(Protocol):
    """Linear heads that train at once, each as if it were alone."""

    def step(self, values: Array, labels: npt.NDArray[np.int64], factor: float) -> Any:
        """Do one optimizer step of every head; return a handle of their mean losses.

        Each seed has its own order of the images: values (S, N, F), labels (S, N). ``factor`` is
        the learning rate over its peak, by the schedule.
        """

    def losses(self, handles: list[Any]) -> Array:
        """Return the (steps, S, R) losses of handles; waits for the device."""

    def logits(self, values: Array) -> Array:
        """Return the (S, R, N, C) logits of values (N, F)."""

    def tensors(self) -> tuple[Array, Array]:
        """Return copies of the weights (S, R, C, F) and biases (S, R, C)."""


class Adapter(Protocol):
    """All that a framework does for Thawbench: it builds trainers and names devices."""

    def build(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str
    ) -> MatchedTrainer:
        """Build the trainer of a Blueprint; raise Unavailable if the framework lacks the device or
        the precision."""

    def build_prefix(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> Prefix:
        """Build a frozen prefix without the rest of the network, on a device prepared by ``build``.

        Args:
            network: Its output is the prefix's value.
            recipe: The run's; only precision and batch size count.
            compiled: True to use the framework's compiler, where it has one.
        """

    def build_heads(self, heads: Heads, recipe: Recipe, device: str) -> HeadsTrainer:
        """Build linear heads that train at once, on a device prepared by ``build``; optimizer,
        momentum and precision are those of ``recipe``."""

    def build_native(self, request: NativeRequest) -> tuple[Trainer, TrainingPlan]:
        """Build the framework's own network for training, as a user of the framework would.

        Returns:
            The trainer, whose ``knobs`` include the native differences; and the plan of its
            tensors, by the framework's names, without operations and dropouts.

        Raises:
            Unavailable: The framework lacks the network or the device.
            UserError: The weights file, head or boundary does not fit.
        """

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return True if an exception means that memory ran out."""

    def devices(self) -> list[str]:
        """Return the devices that the framework sees, as 'cpu' and 'cuda:N'."""

    def blind_because(self) -> str | None:
        """Return why the framework sees no GPU, where it tells; None if it sees one."""

    def device_name(self, device: str) -> str:
        """Return the model of a GPU, by the framework."""

    def start(self, device: str) -> None:
        """Take what the framework keeps on a device, and beside it on the host, for the whole
        process."""

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        """Do ``work``, which waits for the device, and return the seconds of each operation itself,
        without those that it calls, by the framework's own profiler."""

    def release(self) -> bool:
        """Free what deleted networks left behind: graphs, compiled code, GPU memory. Return True if
        the process is then as good as new; if not, another process does the next run."""
