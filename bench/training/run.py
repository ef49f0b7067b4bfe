"""One run, against a ``Trainer``: owns the clock, the schedule and the order of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.data import Packed
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.freezing import TrainingPlan
from bench.network.phases import Phase
from bench.spec.base import canonical_hash
from bench.spec.result import Failure
from bench.spec.run import RunSpec
from bench.training.adapter import Trainer
from bench.training.clocks import Stopwatch, Windows, peak_host_bytes
from bench.training.fit import Fit, Ready, Report
from bench.training.flop_utilisation import utilisation
from bench.training.measurements import (
    all_knobs,
    compile_s,
    effective_rate,
    phase_result,
    prefix_fields,
    steady_s,
    sum_of_prefixes,
    whole_steps,
    work_fields,
)
from bench.training.metrics import score
from bench.training.prefix_cache import Features
from bench.training.tuning import tune, tune_phases


@dataclass
class Outcome:
    """What the loop found: fields of ``RunResult``, and the predictions."""

    fields: dict[str, Any] = field(default_factory=dict)
    """By the names of ``RunResult``."""
    logits: Array | None = None
    """(test images, classes)."""


@dataclass(frozen=True)
class Phased:
    """What a run of several phases needs besides what every run has."""

    phases: tuple[Phase, ...]
    """All of them, the first one too."""
    build: Callable[[Phase, Mapping[str, Array]], Ready]
    """Builds one from the tensors that another left; nobody holds that one's trainer then."""
    note: str | None = None
    """Why the first phase has no values in place of images, where a reader would expect them."""


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
        phased: Phased | None = None,
    ) -> None:
        """
        Args:
            spec: What is run.
            network: Without its numbers; None in native mode.
            plan: What is trained; of several phases, in the first one.
            packed: Images.
            trainer: The network as a framework built it; of several phases, for the first one.
            report: Takes events.
            features: Values that stand for the images of train and val, with a trainer that can
                begin there.
            phased: Of a policy with several phases.
        """
        self._spec = spec
        self._network = network
        self._packed = packed
        self._report = report
        self._phased = phased
        self._phases = phased.phases if phased else (Phase(spec.policy, 0, spec.recipe.epochs),)
        self._computed: set[Phase] = set()
        self._peaks: list[int | None] = []
        self._take(Ready(self._phases[0], plan, trainer, features, phased.note if phased else None))
        self._batches_sha256: list[str] = []
        self._prefixes: list[dict[str, Any]] = []
        self._took_s = 0.0

    def _take(self, ready: Ready) -> None:
        self.fit = Fit(self._spec, self._packed, ready, self._report)
        if ready.features and not ready.features.is_reused:
            self._computed.add(ready.phase)

    def __call__(self, started: float) -> Outcome:
        """Fit, evaluate, measure.

        Args:
            started: ``time.perf_counter()`` when the worker began with this run.

        Raises:
            FrozenChanged: Freezing did not hold.
        """
        outcome = Outcome()
        result = outcome.fields
        before = self.fit.trainer.tensors()
        result["initial_state_sha256"] = hash_tensors(before)
        result["frozen_state_sha256"] = self.fit.frozen_sha256(before)
        del before
        self._count(result)
        if self._network is not None:  # nothing is known of native networks
            result.update(work_fields(self._network.blueprint, self._phases))
        spent_s = self.fit.features.spent_s if self.fit.features else 0.0
        result["setup_s"] = time.perf_counter() - started - spent_s
        if self._spec.recipe.learning_rate_grid:
            self._tune(result)
        diverged = self._train(result)
        if not diverged:
            outcome.logits = self._test(result)
            if not np.isfinite(outcome.logits).all():
                message = "logits of test images are not finite"
                result["failure"] = Failure(kind="diverged", message=message)
                outcome.logits = result["test_top1"] = result["test_loss"] = None
        self._measure(result)
        return outcome

    def _count(self, result: dict[str, Any]) -> None:
        """Parameters of the network as it stands."""
        counts = self.fit.trainer.counts()
        result.update(vars(counts))
        result["frozen_parameters"] = counts.total_parameters - counts.trainable_parameters

    def _tune(self, result: dict[str, Any]) -> None:
        """Choose the learning rate that the fit takes."""
        recipe, labels = self._spec.recipe, self._packed.val.labels
        if self._phased:
            tuned = tune_phases(self._phases, self._enter, recipe, labels, self._report)
        else:
            fit = self.fit
            validation = fit.val, labels
            tuned = tune(fit.trainer, recipe, fit.make_batches, validation, self._report)
        recipe = recipe.model_copy(update={"learning_rate": tuned.chosen})
        self._spec = self._spec.model_copy(update={"recipe": recipe})
        self.fit.recipe = self.fit.phase.recipe(recipe)
        result["tuning"], result["tune_s"] = list(tuned.trials), tuned.seconds
        result["learning_rate"] = tuned.chosen

    def _enter(self, phase: Phase, tensors: Mapping[str, Array] | None = None) -> Fit:
        """The fit of a phase, built where it is another than the one that is there.

        Args:
            tensors: To build it from; None: those that the one that is there has left.
        """
        if self._phased and phase != self.fit.phase:
            self._peaks.append(self.fit.trainer.peak_device_bytes())
            tensors = self.fit.trainer.tensors() if tensors is None else tensors
            del self.fit  # so that there is memory for the next one
            self._take(self._phased.build(phase, tensors))
        return self.fit

    def _train(self, result: dict[str, Any]) -> bool:
        """Train and validate all phases; returns whether the loss left the finite numbers."""
        result["train_loss_by_epoch"], result["val_top1_by_epoch"] = [], []
        result["phases"] = []
        clock, diverged = Stopwatch(), False
        for phase in self._phases:
            diverged = diverged or self._train_phase(phase, result, clock)
        hashes = self._batches_sha256
        result["batches_sha256"] = hashes[0] if len(self._phases) == 1 else canonical_hash(hashes)
        return diverged

    def _train_phase(self, phase: Phase, result: dict[str, Any], clock: Stopwatch) -> bool:
        """Train one of them, and hold it to what it freezes.

        Args:
            clock: Of the fit: it stands still while the harness checks, and what the values of a
                frozen part cost counts whoever computed them.
        """
        at_s, setup_s, is_first = clock.seconds, None, phase == self.fit.phase
        clock.go()
        fit = self._enter(phase)
        features = fit.features
        if not is_first:
            setup_s = clock.seconds - at_s - (features.spent_s if features else 0.0)
        clock.stop()
        if features:
            clock.add(features.seconds - (0.0 if is_first else features.spent_s))
        frozen_sha256 = result["frozen_state_sha256"]
        if not is_first:
            frozen_sha256 = result["frozen_state_sha256"] = fit.frozen_sha256()
        clock.go()
        diverged = self._train_epochs(fit, result, clock)
        clock.stop()
        self._batches_sha256.append(fit.batches.sha256())
        fit.check_frozen(frozen_sha256)
        is_reused = phase not in self._computed
        self._prefixes.append(prefix_fields(fit, is_reused))
        self._took_s += steady_s(fit)
        if self._phased:
            fit_s = result["fit_s"] - at_s
            result["phases"].append(phase_result(fit, frozen_sha256, is_reused, setup_s, fit_s))
            self._count(result)
        return diverged

    def _train_epochs(self, fit: Fit, result: dict[str, Any], clock: Stopwatch) -> bool:
        """The epochs of a phase; returns whether the loss left the finite numbers."""
        for epoch in fit.phase.numbers:
            loss = fit.train_epoch(epoch)
            result["train_loss_by_epoch"].append(loss if math.isfinite(loss) else None)
            result["fit_s"] = clock.seconds
            if not math.isfinite(loss):
                result["failure"] = Failure(
                    kind="diverged",
                    message=f"the training loss is {loss} in epoch {epoch + 1}; a smaller "
                    f"learning_rate may help (the peak was {fit.recipe.learning_rate:g})",
                )
                return True
            logits = fit.logits(fit.val)
            result["fit_s"] = clock.seconds
            if not np.isfinite(logits).all():
                result["val_top1_by_epoch"].append(None)
                result["failure"] = Failure(
                    kind="diverged",
                    message=f"logits in inference are not finite after epoch {epoch + 1}",
                )
                return True
            top1, _ = score(logits, self._packed.val.labels)
            result["val_top1_by_epoch"].append(top1)
            self._report(
                {
                    "event": "epoch",
                    "epoch": epoch + 1,
                    "epochs": self._spec.recipe.epochs,
                    "train_loss": loss,
                    "val_top1": top1,
                }
            )
        return False

    def _test(self, result: dict[str, Any]) -> Array:
        """The only use of the test split."""
        began = time.perf_counter()
        windows = Windows(self.fit.trainer.synchronise, warmup_steps=1)
        logits = self.fit.logits(self._packed.test.images, windows)
        result["test_s"] = time.perf_counter() - began
        result["test_top1"], result["test_loss"] = score(logits, self._packed.test.labels)
        result["infer_images_per_s"] = windows.median_per_s()
        return logits

    def _measure(self, result: dict[str, Any]) -> None:
        notes: list[str] = []
        fit = self.fit
        if result.get("test_top1") is not None and result["infer_images_per_s"] is None:
            notes.append("the test split is too small for an inference throughput")
        result["peak_host_bytes"] = peak_host_bytes()
        peaks = [*self._peaks, fit.trainer.peak_device_bytes()]
        known = [peak for peak in peaks if peak is not None]
        result["peak_device_bytes"] = max(known) if len(known) == len(peaks) else None
        if self._phased is None and fit.features is None:
            result.update(whole_steps(fit, self._spec.device, notes))
        else:
            result.update(sum_of_prefixes(self._prefixes))
            images = len(result["train_loss_by_epoch"]) * fit.batches.images
            result["effective_images_per_s"] = effective_rate(images, self._took_s, notes)
            result["compile_s"] = None if self._phased else compile_s(fit, fit.step_s)
        if self._spec.recipe.learning_rate_grid:
            result["compile_s"] = None  # the trials paid for it
        if self._phased:
            notes.append(
                "the policy trains in phases: a rate of whole steps, where there is one, stands "
                "with each of them"
            )
        elif fit.features and fit.features.note:
            notes.append(fit.features.note)
        result["knobs"] = all_knobs(self._network, fit.trainer)
        result |= utilisation(
            result, fit.trainer, self._spec.device, self._spec.recipe.precision, notes
        )
        result["notes"] = notes
