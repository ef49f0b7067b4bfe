"""Training the network of a run, or of one phase of a run, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data import Packed
from bench.network.blueprint import Array, Blueprint, Network
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.phases import Phase
from bench.spec.result import Failure
from bench.spec.run import Policy, Recipe, RunSpec
from bench.training.adapter import Adapter, Batch, MatchedTrainer, Trainer
from bench.training.batches import TrainingBatches, input_threads
from bench.training.clocks import Windows
from bench.training.prefix_cache import CachedPrefix
from bench.training.schedule import learning_rate

Report = Callable[[dict[str, Any]], None]
"""Takes progress events: {'event': 'step' or 'epoch', …}."""
REPORT_S = 0.25
"""Shortest time between two events of steps, in seconds."""


class FrozenChanged(Exception):
    """A tensor that the policy freezes changed during training."""

    failure_kind = "frozen_changed"

    def __init__(self) -> None:
        super().__init__("frozen tensors changed during training; the run is void")


@dataclass(frozen=True)
class Ready:
    """A phase whose network a framework has built and which can be trained now."""

    phase: Phase
    """The epochs of the phase and its policy."""
    plan: TrainingPlan
    """The tensors that train."""
    trainer: Trainer
    """The network at the start of the phase."""
    cached: CachedPrefix | None = None
    """Values of the frozen prefix, which the trainer takes in place of images."""
    note: str | None = None
    """Reason why there are none, where a reader would expect them."""


def take_step(
    trainer: Trainer, batch: Batch, recipe: Recipe, at: tuple[int, int], steps_per_epoch: int
) -> Any:
    """Take one optimizer step at the schedule's rate; return a handle of the loss.

    Runs, searches, proofs and benchmarks all train by this function.

    Args:
        recipe: Of the phase: its epochs are the phase's.
        at: Epoch in the phase, and step in that epoch.
    """
    epoch, index = at
    step, steps = epoch * steps_per_epoch + index, recipe.epochs * steps_per_epoch
    return trainer.train_step(trainer.to_device(batch), learning_rate(recipe, step, steps))


def train_epoch(
    trainer: Trainer, batches: TrainingBatches, recipe: Recipe, epoch: int, first_epoch: int = 0
) -> list[float]:
    """Train an epoch without events and without windows; return the loss of each step.

    Args:
        recipe: Of the phase.
        epoch: Its number in the run.
        first_epoch: Number in the run of the phase's first epoch.
    """
    handles = [
        take_step(trainer, batch, recipe, (epoch - first_epoch, index), batches.steps_per_epoch)
        for index, batch in enumerate(batches.epoch(epoch))
    ]
    return trainer.losses(handles)


def infer(
    trainer: Trainer, inputs: Array, batch_size: int, windows: Windows | None = None
) -> Array:
    """Return the (N, classes) logits of N images, or of N values of the frozen prefix."""
    handles = []
    if windows:
        windows.open()
    for first in range(0, len(inputs), batch_size):
        images = np.array(inputs[first : first + batch_size])  # copied off the read-only map
        handles.append(trainer.infer(images))
        if windows:
            windows.step(len(images))
    logits = trainer.logits(handles)
    if windows:
        windows.close()
    return logits


def loss_failure(loss: float, epoch: int, rate: float) -> Failure | None:
    """Return the failure of a run whose training loss is not finite.

    Args:
        epoch: Number of the epoch, from 0.
        rate: Peak learning rate.
    """
    if math.isfinite(loss):
        return None
    return Failure(
        kind="diverged",
        message=f"the training loss is {loss} in epoch {epoch + 1}; a smaller learning_rate may "
        f"help (the peak was {rate:g})",
    )


def logits_failure(logits: Array, epoch: int | None = None) -> Failure | None:
    """Return the failure of a run whose logits are not finite: NaN would count as class 0.

    Args:
        logits: Of validation images, after ``epoch`` (from 0); None: of test images.
    """
    if np.isfinite(logits).all():
        return None
    if epoch is None:
        return Failure(kind="diverged", message="logits of test images are not finite")
    message = f"logits in inference are not finite after epoch {epoch + 1}"
    return Failure(kind="diverged", message=message)


class Fit:
    """The training of one phase: its network, batches and clocks."""

    def __init__(self, spec: RunSpec, packed: Packed, ready: Ready, report: Report) -> None:
        self.phase, self.plan, self.trainer = ready.phase, ready.plan, ready.trainer
        self.cached, self.note = ready.cached, ready.note
        self.recipe = ready.phase.recipe(spec.recipe)
        """The run's recipe over the epochs of the phase."""
        self._spec = spec
        self._packed = packed
        self._report = report
        self._reported = 0.0
        self.batches = self.make_batches()
        self.val = self.cached.val if self.cached else packed.val.images
        """Validation images, or the values of the frozen prefix in place of them."""
        self.windows = Windows(self.trainer.synchronise)
        self.step_s: list[float] = []
        """Durations of the steps over full batches, without the first step."""
        self.first_step_s: float | None = None
        self.first_batch: Batch | None = None
        self.train_s = 0.0
        """Seconds in all epochs so far, without validation."""
        self.epochs = 0
        """Epochs trained so far."""

    def make_batches(self) -> TrainingBatches:
        """Return the training batches, from the first one on."""
        return TrainingBatches(
            self._packed.train,
            self._spec.recipe,
            self.plan.dropouts,
            self._spec.seed,
            self.cached.train if self.cached else None,
            input_threads(self._spec.device),
        )

    def frozen_sha256(self, tensors: dict[str, Array] | None = None) -> str:
        """Hash the frozen tensors (hex), of ``tensors`` or as they are in the trainer now."""
        return self.plan.frozen_sha256(self.trainer.tensors() if tensors is None else tensors)

    def check_frozen(self, before: str) -> None:
        """Raise FrozenChanged if ``frozen_sha256`` is no longer ``before``."""
        if self.frozen_sha256() != before:
            raise FrozenChanged

    def train_epoch(self, epoch: int) -> float:
        """Train epoch ``epoch`` of the run with all clocks; return the mean loss of its images."""
        began = time.perf_counter()
        handles, weights = [], []
        steps = self.batches.steps_per_epoch
        batches = self.batches.epoch(epoch)
        epoch_in_phase = epoch - self.phase.first_epoch
        self.windows.open()
        for index in range(steps):
            requested = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - requested
            at = epoch_in_phase, index
            handles.append(take_step(self.trainer, batch, self.recipe, at, steps))
            weights.append(len(batch.labels))
            if self.first_step_s is None:
                self.first_batch = batch
                self.trainer.synchronise()
                self.first_step_s = time.perf_counter() - requested
            elif len(batch.labels) == self.recipe.batch_size:
                self.step_s.append(time.perf_counter() - requested)
            self.windows.step(len(batch.labels), waited)
            self._report_step(epoch, (index + 1) / steps)
        batches.close()
        losses = self.trainer.losses(handles)
        self.windows.close()
        self.train_s += time.perf_counter() - began
        self.epochs += 1
        return float(np.average(losses, weights=weights))

    def _report_step(self, epoch: int, share: float) -> None:
        if time.perf_counter() - self._reported >= REPORT_S:
            self._reported = time.perf_counter()
            done = (epoch + share) / self._spec.recipe.epochs
            self._report({"event": "step", "share": done})

    def logits(self, inputs: Array, windows: Windows | None = None) -> Array:
        """Return the (N, classes) logits of N images, or of N values of the frozen prefix."""
        return infer(self.trainer, inputs, self.recipe.batch_size, windows)


def build_phase(
    adapter: Adapter,
    blueprint: Blueprint,
    tensors: Mapping[str, Array],
    policy: Policy,
    recipe: Recipe,
    device: str,
) -> tuple[MatchedTrainer, TrainingPlan]:
    """Build the network of a phase from the tensors that the phase before it left.

    Args:
        tensors: Names and layout as ``Trainer.tensors`` gives them; copied.
        policy: The phase's.
    """
    plan = plan_training(blueprint, policy)
    return adapter.build(Network(blueprint, dict(tensors)), plan, recipe, device), plan
