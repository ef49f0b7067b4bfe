"""What an adapter must do: the only things that the loop asks of a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan
from bench.spec.backbone import BackboneEntry, Reader
from bench.spec.preprocessing import Preprocessing
from bench.spec.run import Policy, Recipe


class Batch(NamedTuple):
    """One training step's input, in host memory."""

    images: Array
    """uint8 (N, px, px, 3) RGB, augmented; or in its place the values at which training starts, as
    ``ResumingTrainer.values`` gives them."""
    labels: npt.NDArray[np.int64]
    """(N,) class numbers."""
    masks: tuple[npt.NDArray[np.bool_], ...]
    """For each dropout of the plan, what is kept: (N, H, W, C), (N, L, C) or (N, C)."""


@dataclass(frozen=True)
class Counts:
    """Of the network as the framework built it, asked of the framework."""

    total_parameters: int
    """Without BatchNorm statistics."""
    trainable_parameters: int
    """Those that the framework computes gradients for."""
    state_values: int
    """BatchNorm moving statistics."""


@dataclass(frozen=True)
class NativeRequest:
    """What native mode asks of an adapter: a network of the framework's own under this name."""

    backbone: str
    """Its name."""
    entry: BackboneEntry
    """What is known of it."""
    weights: Path | None
    """File with the framework's own weights; None for random ones, and for a user's own network as
    it was built."""
    random: bool
    """Whether the weights are random."""
    reader: Reader
    """How the file is read, where the adapter knows several ways."""
    preprocessing: Preprocessing
    """That belongs to the file, where the network does not bring its own."""
    classes: int
    """Outputs of the head."""
    policy: Policy
    """What is trained."""
    recipe: Recipe
    """How."""
    device: str
    """cpu or cuda:N."""
    seed: int
    """Of random weights, head and dropout, each drawn by the framework's own generator."""


class Trainer(Protocol):
    """A network built by a framework for one run."""

    def to_device(self, batch: Batch) -> Any:
        """Copy a batch to the device; what comes back is passed to ``train_step``."""

    def train_step(self, prepared: Any, learning_rate: float) -> Any:
        """One optimizer step; returns a handle of the mean loss, perhaps not computed yet."""

    def losses(self, handles: list[Any]) -> list[float]:
        """The losses of handles; waits for the device."""

    def infer(self, images: Array) -> Any:
        """A handle of the logits of uint8 images (N, px, px, 3), or of values of the frozen prefix,
        in inference form."""

    def logits(self, handles: list[Any]) -> Array:
        """(sum of N, classes) logits of handles, in float32 or float64; waits for the device."""

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""

    def tensors(self) -> dict[str, Array]:
        """Every tensor of the Blueprint as it is now, in the Blueprint's names and layout."""

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Set every tensor (names and layout as ``tensors`` gives them) and forget the optimizer's
        moments and the loss scale, so that training starts anew."""

    def activations(self, images: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """The value of every operation in inference form, and the preprocessed pixels.

        Args:
            images: (N, px, px, 3).

        Returns:
            Name of the value → (N, C, H, W) or (N, …) in the Blueprint's layout.
        """

    def gradients(self, prepared: Any) -> tuple[float, dict[str, Array]]:
        """Mean loss of a batch in training form, and its gradient for each trained tensor.

        BatchNorm statistics may move, as in a training step; nothing else does.
        """

    def cross_entropy(self, logits: Array, labels: npt.NDArray[np.int64]) -> float:
        """Mean loss of logits (N, classes), by the function that training uses."""

    def counts(self) -> Counts:
        """Numbers of parameters, read from the framework's own objects."""

    def knobs(self) -> dict[str, Any]:
        """What is in force, read back from the framework."""

    def peak_device_bytes(self) -> int | None:
        """Most memory that the run held on a GPU; None where it cannot be known."""

    def matrix_product(self, side: int) -> Callable[[], object]:
        """A function that gives the device one product of two (side, side) matrices to do, in the
        precision in which the run multiplies; ``synchronise`` waits for it."""


class Prefix(Protocol):
    """What computes the value at which training starts, where all before it is frozen."""

    def prefix(self, images: npt.NDArray[np.uint8]) -> Any:
        """Compute the frozen prefix's value (see ``bench.network.frozen_prefix.boundary_of``).

        Args:
            images: (N, px, px, 3).

        Returns:
            A handle; pass it to ``values``.
        """

    def values(self, handles: list[Any]) -> Array:
        """(sum of N, …) values of handles of ``prefix``, channels last, in float64 if that is the
        recipe's precision and else in float32; waits for the device."""

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""

    def prefix_form(self) -> str:
        """Return the form in force (``bench.training.prefix_cache``), with the reason if it is a
        fallback."""


class ResumingTrainer(Trainer, Prefix, Protocol):
    """One that can do the frozen prefix and what follows it apart."""


class Heads(NamedTuple):
    """Linear heads of S seeds, R of each, over F features and C classes."""

    weights: Array
    """(S, R, C, F)."""
    biases: Array
    """(S, R, C)."""
    learning_rates: Array
    """(S, R) peak rates."""
    weight_decays: Array
    """(S, R), on the weights."""


class HeadsTrainer(Protocol):
    """Many linear heads that train at once, each as if it were alone."""

    def step(self, values: Array, labels: npt.NDArray[np.int64], factor: float) -> Any:
        """One optimizer step of every head.

        Args:
            values: (S, N, F): each seed has its own order of the images.
            labels: (S, N) class numbers.
            factor: Learning rate over its peak, by the schedule.

        Returns:
            A handle of their mean losses.
        """

    def losses(self, handles: list[Any]) -> Array:
        """(steps, S, R) losses of handles; waits for the device."""

    def logits(self, values: Array) -> Array:
        """(S, R, N, C) of values (N, F)."""

    def tensors(self) -> tuple[Array, Array]:
        """Weights (S, R, C, F) and biases (S, R, C) as they are now."""


class Adapter(Protocol):
    """A framework."""

    def build(
        self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str
    ) -> ResumingTrainer:
        """Build a network for training.

        Raises:
            Unavailable: The device or precision cannot be had.
        """

    def build_prefix(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> Prefix:
        """Build a frozen prefix by itself.

        Args:
            network: Its answer is the wanted value.
            recipe: Of the run; of it the precision counts.
            device: cpu or cuda:N, prepared by ``build``.
            compiled: By the framework's compiler, where it has one.
        """

    def build_heads(self, heads: Heads, recipe: Recipe, device: str) -> HeadsTrainer:
        """Build linear heads to be trained at once.

        Args:
            heads: Their first numbers, and what sets them apart.
            recipe: What they have in common: optimizer, momentum, precision.
            device: cpu or cuda:N, prepared by ``build``.
        """

    def build_native(self, request: NativeRequest) -> tuple[Trainer, TrainingPlan]:
        """Build the framework's own network, as its user would, for training.

        Returns:
            The trainer, whose ``knobs`` tell what is its framework's own; and which of its tensors
            are trained and frozen, by the framework's names, with no operations and no dropouts.

        Raises:
            Unavailable: The framework has no such network, or the device cannot be had.
            UserError: The weights file, head or boundary does not fit.
        """

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory did not suffice."""

    def devices(self) -> list[str]:
        """Devices that the framework sees, as 'cpu' and 'cuda:N'."""

    def release(self) -> bool:
        """Give back what networks that nobody holds any more have left: graphs, compiled code, a
        GPU's memory as far as the framework can. Whether the process is as good as new; where it is
        not, another does the next run."""
