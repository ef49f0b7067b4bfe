"""Epochs of one network: of a whole run, or of one phase of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data import Packed
from bench.network.blueprint import Array, Blueprint, Network, hash_tensors
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.phases import Phase
from bench.spec.run import Policy, Recipe, RunSpec
from bench.training.adapter import Adapter, Batch, ResumingTrainer, Trainer
from bench.training.batches import TrainingBatches, input_threads
from bench.training.clocks import Windows
from bench.training.prefix_cache import Features
from bench.training.schedule import learning_rate

Report = Callable[[dict[str, Any]], None]
"""Takes progress events: {'event': 'step' or 'epoch', …}."""
REPORT_S = 0.25


class FrozenChanged(Exception):
    """A tensor that the policy freezes changed during training."""

    failure_kind = "frozen_changed"


@dataclass(frozen=True)
class Ready:
    """A phase whose network a framework has built."""

    phase: Phase
    """Which epochs."""
    plan: TrainingPlan
    """What is trained."""
    trainer: Trainer
    """At the start of the phase."""
    features: Features | None = None
    """Values that stand for the images of train and val, with a trainer that can begin there."""
    note: str | None = None
    """Why there are none, where a reader would expect them."""


def take_step(
    trainer: Trainer, batch: Batch, recipe: Recipe, at: tuple[int, int], steps_per_epoch: int
) -> Any:
    """One optimizer step at the rate that the schedule has for it, in a run and in a proof.

    Args:
        recipe: Over the epochs of the phase.
        at: Epoch of the phase, and step in it.

    Returns:
        A handle of the loss.
    """
    epoch, index = at
    step, steps = epoch * steps_per_epoch + index, recipe.epochs * steps_per_epoch
    return trainer.train_step(trainer.to_device(batch), learning_rate(recipe, step, steps))


class Fit:
    """The epochs of one network, and their clock."""

    def __init__(self, spec: RunSpec, packed: Packed, ready: Ready, report: Report) -> None:
        """
        Args:
            spec: Of the run.
            packed: Its images.
            ready: What is trained.
            report: Takes events.
        """
        self.phase, self.plan, self.trainer = ready.phase, ready.plan, ready.trainer
        self.features, self.note = ready.features, ready.note
        self.recipe = ready.phase.recipe(spec.recipe)
        """Over the epochs of the phase."""
        self._spec = spec
        self._packed = packed
        self._report = report
        self._said = 0.0
        self.batches = self.make_batches()
        self.val = self.features.val if self.features else packed.val.images
        """Validation images, or what stands for them."""
        self.windows = Windows(self.trainer.synchronise)
        self.step_s: list[float] = []
        """Of whole steps of full batches, without the first."""
        self.first_step_s: float | None = None
        self.first_batch: Batch | None = None
        self.train_s = 0.0
        """In all epochs, without validation."""
        self.epochs = 0
        """Trained so far."""

    def make_batches(self) -> TrainingBatches:
        """The training batches, from the first one on."""
        return TrainingBatches(
            self._packed.train,
            self._spec.recipe,
            self.plan.dropouts,
            self._spec.seed,
            self.features.train if self.features else None,
            input_threads(self._spec.device),
        )

    def frozen_sha256(self, tensors: dict[str, Array] | None = None) -> str:
        """Hash (hex) of the tensors that must not change, among all of them as they are now."""
        tensors = self.trainer.tensors() if tensors is None else tensors
        return hash_tensors({name: tensors[name] for name in self.plan.frozen})

    def check_frozen(self, before: str) -> None:
        """
        Args:
            before: What ``frozen_sha256`` gave.

        Raises:
            FrozenChanged: It gives something else now.
        """
        if self.frozen_sha256() != before:
            raise FrozenChanged("frozen tensors changed during training; the run is void")

    def train_epoch(self, epoch: int) -> float:
        """One pass; returns the mean loss over its images.

        Args:
            epoch: Its number in the run.
        """
        began = time.perf_counter()
        handles, weights = [], []
        steps = self.batches.steps_per_epoch
        batches = self.batches.epoch(epoch)
        own = epoch - self.phase.first_epoch
        self.windows.open()
        for index in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked
            handles.append(take_step(self.trainer, batch, self.recipe, (own, index), steps))
            weights.append(len(batch.labels))
            if self.first_step_s is None:
                self.first_batch = batch
                self.trainer.synchronise()
                self.first_step_s = time.perf_counter() - asked
            elif len(batch.labels) == self.recipe.batch_size:
                self.step_s.append(time.perf_counter() - asked)
            self.windows.step(len(batch.labels), waited)
            self._say_step(epoch, (index + 1) / steps)
        batches.close()
        losses = self.trainer.losses(handles)
        self.windows.close()
        self.train_s += time.perf_counter() - began
        self.epochs += 1
        return float(np.average(losses, weights=weights))

    def _say_step(self, epoch: int, share: float) -> None:
        if time.perf_counter() - self._said >= REPORT_S:
            self._said = time.perf_counter()
            done = (epoch + share) / self._spec.recipe.epochs
            self._report({"event": "step", "share": done})

    def logits(self, inputs: Array, windows: Windows | None = None) -> Array:
        """(N, classes) logits of images, or what stands for them, in inference form."""
        size = self.recipe.batch_size
        handles = []
        if windows:
            windows.open()
        for first in range(0, len(inputs), size):
            images = np.array(inputs[first : first + size])  # off the read-only map
            handles.append(self.trainer.infer(images))
            if windows:
                windows.step(len(images))
        logits = self.trainer.logits(handles)
        if windows:
            windows.close()
        return logits


def build_phase(
    adapter: Adapter,
    blueprint: Blueprint,
    tensors: Mapping[str, Array],
    policy: Policy,
    recipe: Recipe,
    device: str,
) -> tuple[ResumingTrainer, TrainingPlan]:
    """Build the network of a phase from the tensors that the one before it left.

    Args:
        tensors: Names and layout as ``Trainer.tensors`` gives them; copied.
        policy: The phase's.
    """
    plan = plan_training(blueprint, policy)
    return adapter.build(Network(blueprint, dict(tensors)), plan, recipe, device), plan
