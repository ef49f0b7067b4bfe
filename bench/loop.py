"""One run, against a ``Trainer``: owns the clock, the schedule and the order of the images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bench.accounting import costs_of
from bench.backend import Batch, Trainer
from bench.blueprint import Array, Network, hash_tensors
from bench.data import Packed
from bench.data.batches import TrainingBatches, input_threads
from bench.features import Features
from bench.measure import LEAST_WINDOWS, WINDOW_S, Windows, peak_host_bytes
from bench.plan import TrainingPlan
from bench.schedule import learning_rate
from bench.scores import score
from bench.spec import Failure, Recipe, RunSpec
from bench.tuning import tune
from bench.utilisation import utilisation

Report = Callable[[dict[str, Any]], None]
"""Takes progress events: {'event': 'step' or 'epoch', …}."""
REPORT_S = 0.25
KNOBS = ("tf32", "xla", "compile", "layout", "deterministic", "threads", "onednn",
         "cudnn_benchmark")  # fmt: skip
"""That every result has; null where a framework has no such thing."""
LEAST_EFFECTIVE_S = LEAST_WINDOWS * WINDOW_S
"""As long as the windows without which there is no rate of whole steps."""
COMPUTE_STEPS = 5
COMPUTE_PATIENCE_S = 1.0


class FrozenChanged(Exception):
    """A tensor that the policy freezes is not what it was before training."""


@dataclass
class Outcome:
    """What the loop found: fields of ``RunResult``, and the predictions."""

    fields: dict[str, Any] = field(default_factory=dict)
    """By the names of ``RunResult``."""
    logits: Array | None = None
    """(test images, classes)."""


def take_step(
    trainer: Trainer, batch: Batch, recipe: Recipe, at: tuple[int, int], steps_per_epoch: int
) -> Any:
    """One optimizer step at the rate that the schedule has for it, in a run and in a proof.

    Args:
        at: Epoch, and step in it.

    Returns:
        A handle of the loss.
    """
    epoch, index = at
    step, steps = epoch * steps_per_epoch + index, recipe.epochs * steps_per_epoch
    return trainer.train_step(trainer.to_device(batch), learning_rate(recipe, step, steps))


class Run:
    """The fit of one spec and its measurement."""

    def __init__(
        self,
        spec: RunSpec,
        network: Network | None,
        plan: TrainingPlan,
        packed: Packed,
        trainer: Trainer,
        report: Report,
        features: Features | None = None,
    ) -> None:
        """
        Args:
            spec: What is run.
            network: Without its numbers; None in native mode.
            plan: What is trained.
            packed: Images.
            trainer: The network as a framework built it.
            report: Takes events.
            features: Values that stand for the images of train and val, with a trainer that can
                begin there.
        """
        self._features = features
        self._recipe = spec.recipe
        self._device = spec.device
        self._network = network
        self._plan = plan
        self._packed = packed
        self._trainer = trainer
        self._report = report
        self._make_batches = partial(
            TrainingBatches,
            packed.train,
            spec.recipe,
            plan.dropouts,
            spec.seed,
            features.train if features else None,
            input_threads(spec.device),
        )
        self._batches = self._make_batches()
        self._val = features.val if features else packed.val.images
        self._windows = Windows(trainer.synchronise)
        self._step_s: list[float] = []
        self._first_step_s: float | None = None
        self._train_s = 0.0
        self._compute_step_s: list[float] = []
        self._first_batch: Batch | None = None
        self._said = 0.0

    def __call__(self, started: float) -> Outcome:
        """Fit, evaluate, measure.

        Args:
            started: ``time.perf_counter()`` when the worker began with this run.

        Raises:
            FrozenChanged: Freezing did not hold.
        """
        outcome = Outcome()
        result = outcome.fields
        before = self._trainer.tensors()
        result["initial_state_sha256"] = hash_tensors(before)
        result["frozen_state_sha256"] = self._frozen_hash(before)
        del before
        counts = self._trainer.counts()
        result.update(vars(counts))
        result["frozen_parameters"] = counts.total_parameters - counts.trainable_parameters
        result.update(self._work())
        spent_s = self._features.spent_s if self._features else 0.0
        result["setup_s"] = time.perf_counter() - started - spent_s
        if self._recipe.learning_rate_grid:
            self._tune(result)
        diverged = self._fit(result)
        result["batches_sha256"] = self._batches.sha256()
        if self._frozen_hash(self._trainer.tensors()) != result["frozen_state_sha256"]:
            raise FrozenChanged("frozen tensors changed during training; the run is void")
        if not diverged:
            outcome.logits = self._test(result)
            if not np.isfinite(outcome.logits).all():
                message = "logits of test images are not finite"
                result["failure"] = Failure(kind="diverged", message=message)
                outcome.logits = result["test_top1"] = result["test_loss"] = None
        self._measure(result)
        return outcome

    def _work(self) -> dict[str, Any]:
        """What a step costs by arithmetic; nothing is known of native networks."""
        if self._network is None:
            return {}
        return costs_of(self._network.blueprint, self._plan)

    def _frozen_hash(self, tensors: dict[str, Array]) -> str:
        return hash_tensors({name: tensors[name] for name in self._plan.frozen})

    def _tune(self, result: dict[str, Any]) -> None:
        """Choose the learning rate that the fit takes."""
        validation = self._val, self._packed.val.labels
        tuned = tune(self._trainer, self._recipe, self._make_batches, validation, self._report)
        self._recipe = self._recipe.model_copy(update={"learning_rate": tuned.chosen})
        result["tuning"], result["tune_s"] = list(tuned.trials), tuned.seconds
        result["learning_rate"] = tuned.chosen

    def _fit(self, result: dict[str, Any]) -> bool:
        """Train and validate; returns whether the loss left the finite numbers."""
        losses: list[float | None] = []
        accuracies: list[float | None] = []
        result["train_loss_by_epoch"], result["val_top1_by_epoch"] = losses, accuracies
        began = time.perf_counter() - (self._features.seconds if self._features else 0.0)
        for epoch in range(self._recipe.epochs):
            loss = self._train_epoch(epoch)
            losses.append(loss if math.isfinite(loss) else None)
            result["fit_s"] = time.perf_counter() - began
            if not math.isfinite(loss):
                result["failure"] = Failure(
                    kind="diverged",
                    message=f"the training loss is {loss} in epoch {epoch + 1}; a smaller "
                    f"learning_rate may help (the peak was {self._recipe.learning_rate:g})",
                )
                return True
            logits = self._logits(self._val)
            result["fit_s"] = time.perf_counter() - began
            if not np.isfinite(logits).all():
                accuracies.append(None)
                result["failure"] = Failure(
                    kind="diverged",
                    message=f"logits in inference are not finite after epoch {epoch + 1}",
                )
                return True
            top1, _ = score(logits, self._packed.val.labels)
            accuracies.append(top1)
            self._report(
                {
                    "event": "epoch",
                    "epoch": epoch + 1,
                    "epochs": self._recipe.epochs,
                    "train_loss": loss,
                    "val_top1": top1,
                }
            )
        return False

    def _train_epoch(self, epoch: int) -> float:
        """One pass; returns the mean loss over its images."""
        began = time.perf_counter()
        handles, weights = [], []
        steps = self._batches.steps_per_epoch
        batches = self._batches.epoch(epoch)
        self._windows.open()
        for index in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked
            handles.append(take_step(self._trainer, batch, self._recipe, (epoch, index), steps))
            weights.append(len(batch.labels))
            if self._first_step_s is None:
                self._first_batch = batch
                self._trainer.synchronise()
                self._first_step_s = time.perf_counter() - asked
            elif len(batch.labels) == self._recipe.batch_size:
                self._step_s.append(time.perf_counter() - asked)
            self._windows.step(len(batch.labels), waited)
            self._say_step(epoch, (index + 1) / steps)
        batches.close()
        losses = self._trainer.losses(handles)
        self._windows.close()
        self._train_s += time.perf_counter() - began
        return float(np.average(losses, weights=weights))

    def _say_step(self, epoch: int, share: float) -> None:
        if time.perf_counter() - self._said >= REPORT_S:
            self._said = time.perf_counter()
            done = (epoch + share) / self._recipe.epochs
            self._report({"event": "step", "share": done})

    def _logits(self, inputs: Array, windows: Windows | None = None) -> Array:
        """(N, classes) logits of images, or what stands for them, in inference form."""
        size = self._recipe.batch_size
        handles = []
        if windows:
            windows.open()
        for first in range(0, len(inputs), size):
            images = np.array(inputs[first : first + size])  # off the read-only map
            handles.append(self._trainer.infer(images))
            if windows:
                windows.step(len(images))
        logits = self._trainer.logits(handles)
        if windows:
            windows.close()
        return logits

    def _test(self, result: dict[str, Any]) -> Array:
        """The only use of the test split."""
        windows = Windows(self._trainer.synchronise, warmup_steps=1)
        logits = self._logits(self._packed.test.images, windows)
        result["test_top1"], result["test_loss"] = score(logits, self._packed.test.labels)
        result["infer_images_per_s"] = windows.median_per_s()
        return logits

    def _measure(self, result: dict[str, Any]) -> None:
        notes: list[str] = []
        if result.get("test_top1") is not None and result["infer_images_per_s"] is None:
            notes.append("the test split is too small for an inference throughput")
        result["peak_host_bytes"] = peak_host_bytes()
        result["peak_device_bytes"] = self._trainer.peak_device_bytes()
        if self._features is None:
            self._measure_throughput(result, notes)
        else:
            self._measure_effective(result, self._features, notes)
        # Both are no part of a Blueprint, on either side (DESIGN section 4); native trainers, which
        # may have them, say so.
        without = {"stochastic_depth": "off", "auxiliary_heads": "off"}
        left_out = list(self._network.blueprint.notes) if self._network else None
        known = {**dict.fromkeys(KNOBS), **without, "left_out": left_out}
        result["knobs"] = {**known, **self._trainer.knobs()}
        result |= utilisation(result, self._trainer, self._device, self._recipe.precision, notes)
        result["notes"] = notes

    def _measure_throughput(self, result: dict[str, Any], notes: list[str]) -> None:
        windows = self._windows
        result["train_images_per_s"] = windows.median_per_s()
        result["train_images_per_s_windows"] = windows.rates_per_s
        if result["train_images_per_s"] is None:
            found = len(windows.rates_per_s)
            notes.append(f"training was too short for a throughput: steady windows: {found}")
        if windows.seconds:
            result["input_wait_fraction"] = windows.waited_s / windows.seconds
        result["compute_images_per_s"] = self._compute_rate()
        # A GPU's steps are only queued while training; those of the compute phase are waited for.
        steps = self._step_s if self._device == "cpu" else self._compute_step_s
        if steps:
            result["step_s_p50"] = statistics.median(steps)
            result["step_s_p95"] = float(np.percentile(steps, 95))
            if self._first_step_s is not None:
                result["compile_s"] = max(self._first_step_s - result["step_s_p50"], 0.0)

    def _measure_effective(
        self, result: dict[str, Any], features: Features, notes: list[str]
    ) -> None:
        """Where most of the network ran once, steps do not tell what a step of it costs."""
        result["prefix_values"] = "reused" if features.is_reused else "computed"
        result["prefix_s"], result["prefix_form"] = features.seconds, features.form
        images = len(result["train_loss_by_epoch"]) * self._batches.images
        took_s = features.seconds + self._train_s
        if took_s >= LEAST_EFFECTIVE_S:
            result["effective_images_per_s"] = images / took_s
        else:
            notes.append(f"training was too short for a throughput: {took_s:.2g} s in all")
        notes += [features.note] if features.note else []

    def _compute_rate(self) -> float | None:
        """Images per second of steps on one full batch that lies on the device.

        Runs after everything else, for these steps train too.
        """
        if self._first_batch is None:
            return None
        size = len(self._first_batch.labels)
        prepared = self._trainer.to_device(self._first_batch)
        began = time.perf_counter()
        for index in range(COMPUTE_STEPS + 1):
            self._trainer.synchronise()
            start = time.perf_counter()
            self._trainer.train_step(prepared, 0.0)
            self._trainer.synchronise()
            if index > 0:  # the first one warms up
                self._compute_step_s.append(time.perf_counter() - start)
            if time.perf_counter() - began > COMPUTE_PATIENCE_S and len(self._compute_step_s) >= 2:
                break
        return size / statistics.median(self._compute_step_s)
