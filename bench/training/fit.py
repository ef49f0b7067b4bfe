"""Training the network of a run, or of one phase of a run, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.data import Packed
from bench.data.model import Labels
from bench.network.blueprint import Array, Blueprint, Network
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.phases import Phase
from bench.spec.result import Failure
from bench.spec.run import Policy, Recipe, RunSpec
from bench.system import OtherWork, core_times
from bench.training.adapter import Adapter, Batch, HostMemory, MatchedTrainer, Trainer
from bench.training.batches import TrainingBatches, each_ahead, input_threads
from bench.training.clocks import FirstCalls, Windows
from bench.training.metrics import evaluate
from bench.training.prefix_cache import CachedPrefix
from bench.training.schedule import learning_rate
from bench.workers.events import OnEvent, Step

TRAINING = "training"
"""Name of the training steps among ``Fit.calls``."""
FIRST_LOSSES = 2
"""Number of steps whose losses are kept one by one."""
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
    plan: TrainingPlan
    trainer: Trainer
    """The network at the start of the phase."""
    cached: CachedPrefix | None = None
    """Values of the frozen prefix, which the trainer takes in place of images."""
    note: str | None = None
    """Reason why there are none, where a reader would expect them."""


def take_step(
    trainer: Trainer, batch: Batch, recipe: Recipe, at: tuple[int, int], steps_per_epoch: int
) -> Any:
    """Take one optimizer step of a phase at its schedule's rate; return a handle of the loss.

    Runs, searches, proofs and benchmarks all train by this function. ``at`` is the epoch in the
    phase, whose ``recipe`` it is, and the step in that epoch.
    """
    epoch, index = at
    step, steps = epoch * steps_per_epoch + index, recipe.epochs * steps_per_epoch
    return trainer.train_step(trainer.to_device(batch), learning_rate(recipe, step, steps))


def train_epoch(
    trainer: Trainer, batches: TrainingBatches, recipe: Recipe, epoch: int, first_epoch: int = 0
) -> list[float]:
    """Train epoch ``epoch`` of the run, in the phase that begins with ``first_epoch``, without
    events and windows; return the loss of each step."""
    handles = [
        take_step(trainer, batch, recipe, (epoch - first_epoch, index), batches.steps_per_epoch)
        for index, batch in enumerate(batches.epoch(epoch))
    ]
    return trainer.losses(handles)


def infer(
    trainer: Trainer, inputs: Array, batch_size: int, threads: int = 1,
    windows: Windows | None = None, calls: FirstCalls | None = None,
) -> Array:  # fmt: skip
    """Return the (N, classes) logits of N images, or of N values of the frozen prefix, which
    ``threads`` copy ahead of their use."""
    calls = calls or FirstCalls(trainer.synchronise)
    work = f"inference of {inputs.dtype}"
    handles = []
    if windows:
        windows.open()
    for images in _parts(trainer, inputs, batch_size, threads):
        is_first = calls.is_first(work, len(images))
        if windows and is_first:
            windows.close()
        handles.append(calls.time(work, len(images), partial(trainer.infer, images)))
        if windows and is_first:
            windows.leave_out()
        elif windows:
            windows.step(len(images))
    logits = trainer.logits(handles)
    if windows:
        windows.close()
    return logits


def _parts(memory: HostMemory, inputs: Array, batch_size: int, threads: int) -> Generator[Array]:
    """Yield the rows of ``inputs``, which may be mapped from a file, batch by batch as copies."""

    def copied(first: int) -> Array:
        rows = inputs[first : first + batch_size]
        copy: Array = memory.host_array(rows.shape, rows.dtype)
        copy[...] = rows
        return copy

    jobs = (partial(copied, first) for first in range(0, len(inputs), batch_size))
    yield from each_ahead(jobs, threads, inputs[:1].nbytes * batch_size)


def add_loss(fields: dict[str, Any], loss: float, epoch: int, rate: float) -> bool:
    """Add the training loss of ``epoch`` (from 0) to a run's fields; return False if the run
    diverged, with the failure among them."""
    is_finite = math.isfinite(loss)
    fields["train_loss_by_epoch"].append(loss if is_finite else None)
    if not is_finite:
        message = (
            f"the training loss is {loss} in epoch {epoch + 1}; a smaller learning_rate may help "
            f"(the peak was {rate:g})"
        )
        fields["failure"] = Failure(kind="diverged", message=message)
    return is_finite


def add_validation(fields: dict[str, Any], logits: Array, labels: Labels, epoch: int) -> bool:
    """Add the validation accuracy after ``epoch`` (from 0), as ``add_loss`` does the loss."""
    is_finite = bool(np.isfinite(logits).all())  # NaN would count as class 0
    top1 = evaluate("val", logits, labels)["val_top1"] if is_finite else None
    fields["val_top1_by_epoch"].append(top1)
    if not is_finite:
        message = f"logits in inference are not finite after epoch {epoch + 1}"
        fields["failure"] = Failure(kind="diverged", message=message)
    return is_finite


def add_test(fields: dict[str, Any], logits: Array, labels: Labels) -> bool:
    """Add the metrics of the test images, as ``add_loss`` does the loss."""
    if np.isfinite(logits).all():
        fields.update(evaluate("test", logits, labels))
        return True
    fields["failure"] = Failure(kind="diverged", message="logits of test images are not finite")
    return False


class Fit:
    """The training of one phase: its network, batches and clocks."""

    def __init__(self, spec: RunSpec, packed: Packed, ready: Ready, report: OnEvent) -> None:
        self.phase, self.plan, self.trainer = ready.phase, ready.plan, ready.trainer
        self.cached, self.note = ready.cached, ready.note
        self.recipe = ready.phase.recipe(spec.recipe)
        """The run's recipe over the epochs of the phase."""
        self._spec, self._packed, self._report = spec, packed, report
        self._reported = 0.0
        self.batches = self.make_batches(spec.recipe.epochs)
        self.val = self.cached.val if self.cached else packed.val.images
        """Validation images, or the values of the frozen prefix in place of them."""
        self.threads = input_threads(spec.device)
        self.windows = Windows(self.trainer.synchronise, spec.device)
        self.calls = FirstCalls(self.trainer.synchronise)
        """First calls of each batch size, in training and validation."""
        self.step_s: list[float] = []
        """Durations of the steps over full batches, without the first step; on a GPU, of calls that
        queue them."""
        self.warmup_device_bytes: int | None = None
        """Peak memory of the first steps, in which libraries search for their kernels."""
        self._is_warm = False
        self._steady_bytes: int | None = None
        """Peak memory of steps before the peak last began anew."""
        self.other_work: list[OtherWork] = []
        """Use of the machine's cores in each epoch so far, where the system tells."""
        self.first_batch: Batch | None = None
        self.train_s = 0.0
        """Seconds in all epochs so far, without validation."""
        self.epochs = 0
        """Epochs trained so far."""
        self.first_losses: list[float] = []
        """Losses of the first steps, for the run's fingerprint."""

    def make_batches(self, ahead_until: int = 0) -> TrainingBatches:
        """Return the training batches of all epochs, starting with the first batch. Those of the
        phase are made ahead of each epoch before ``ahead_until``."""
        spec, numbers = self._spec, self.phase.numbers
        return TrainingBatches(
            self._packed.train, spec.recipe, self.plan.dropouts, spec.seed,
            self.cached.train if self.cached else None, input_threads(spec.device),
            self.plan.needs_two_images, range(numbers.start, min(numbers.stop, ahead_until)),
            self.trainer.host_array,
        )  # fmt: skip

    def check_frozen(self, before: str) -> None:
        """Raise FrozenChanged if the hash of the frozen tensors is no longer ``before``."""
        if self.plan.frozen_sha256(self.trainer.tensors()) != before:
            raise FrozenChanged

    def train_epoch(self, epoch: int) -> float:
        """Train epoch ``epoch`` of the run with all clocks; return the mean loss of its images."""
        began = time.perf_counter()
        handles, weights = [], []
        steps = self.batches.steps_per_epoch
        batches = self.batches.epoch(epoch)
        epoch_in_phase = epoch - self.phase.first_epoch
        before = core_times()
        self.windows.open()
        for index in range(steps):
            requested = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - requested
            step = partial(
                take_step, self.trainer, batch, self.recipe, (epoch_in_phase, index), steps
            )
            images = len(batch.labels)
            is_first = self.calls.is_first(TRAINING, images)
            if is_first:
                self.windows.close()
                self._steady_bytes = self.peak_device_bytes()
            handles.append(self.calls.time(TRAINING, images, step))
            weights.append(images)
            if self.first_batch is None:
                self.first_batch = batch
            elif images == self.recipe.batch_size:
                self.step_s.append(time.perf_counter() - requested)
            if is_first:
                self.windows.leave_out()
            else:
                self.windows.step(images, waited)
            self._settle_memory(is_first)
            self._report_step(epoch, (index + 1) / steps)
        batches.close()
        losses = self.trainer.losses(handles)
        after = core_times()
        if before is not None and after is not None:
            self.other_work.append(before.others(after))
        self.first_losses = self.first_losses or losses[:FIRST_LOSSES]
        self.windows.close()
        self.train_s += time.perf_counter() - began
        self.epochs += 1
        return float(np.average(losses, weights=weights))

    def peak_device_bytes(self) -> int | None:
        """Return the peak memory on the device of the steps so far, without those in which
        libraries search for their kernels; None where it is not known."""
        now = self.trainer.peak_device_bytes()
        return now if now is None else max(now, self._steady_bytes or 0)

    def _settle_memory(self, is_first: bool) -> None:
        """Let the peak of memory begin anew when the first steps are over, and after the first one
        of each batch size."""
        is_over = not self._is_warm and self.windows.warmup_steps == 0
        if is_over or (self._is_warm and is_first):
            peak = self.trainer.peak_device_bytes()
            if peak is not None:
                self.warmup_device_bytes = max(peak, self.warmup_device_bytes or 0)
            if is_over:
                self._steady_bytes = None
            self._is_warm = True
            self.trainer.reset_peak()

    def _report_step(self, epoch: int, share: float) -> None:
        if time.perf_counter() - self._reported >= REPORT_S:
            self._reported = time.perf_counter()
            done = (epoch + share) / self._spec.recipe.epochs
            self._report(Step(share=done))


def build_phase(
    adapter: Adapter, blueprint: Blueprint, tensors: Mapping[str, Array], policy: Policy,
    recipe: Recipe, device: str,
) -> tuple[MatchedTrainer, TrainingPlan]:  # fmt: skip
    """Build the network of a phase from the tensors that the phase before it left, in the form of
    ``Trainer.tensors``."""
    plan = plan_training(blueprint, policy)
    return adapter.build(Network(blueprint, dict(tensors)), plan, recipe, device), plan
