"""Training, testing and measuring one run: the clock, the schedule, the order of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.data import Packed
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.freezing import TrainingPlan
from bench.network.phases import Phase
from bench.spec.base import canonical_hash
from bench.spec.run import RunSpec
from bench.training.adapter import Trainer
from bench.training.clocks import Stopwatch, Windows, peak_host_bytes
from bench.training.fit import Fit, Ready, Report, logits_failure, loss_failure
from bench.training.flop_utilisation import utilisation
from bench.training.measurements import (
    all_knobs,
    compile_s,
    count_fields,
    effective_rate,
    phase_result,
    prefix_fields,
    steady_s,
    sum_prefix_fields,
    whole_step_fields,
    work_fields,
)
from bench.training.metrics import evaluate
from bench.training.prefix_cache import CachedPrefix
from bench.training.tuning import tune, tune_phases


@dataclass
class Outcome:
    """The outcome of a run: fields of its result, and its predictions."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Values by the names of ``RunResult``."""
    logits: Array | None = None
    """(test images, classes); None if the run diverged."""


@dataclass(frozen=True)
class Phased:
    """Additional arguments of a run with several phases."""

    phases: tuple[Phase, ...]
    """All phases, the first one included."""
    build: Callable[[Phase, Mapping[str, Array]], Ready]
    """Builds a phase from the tensors that another one left, whose trainer is gone by then."""
    note: str | None = None
    """Reason why the first phase has no cached values, where a reader would expect them."""


class Run:
    """One run on a framework's trainer: call it to train, test and measure."""

    def __init__(
        self,
        spec: RunSpec,
        network: Network | None,
        plan: TrainingPlan,
        packed: Packed,
        trainer: Trainer,
        report: Report,
        cached: CachedPrefix | None = None,
        phased: Phased | None = None,
    ) -> None:
        """
        Args:
            network: Without its numbers; None in native mode.
            plan: What trains; of several phases, in the first one.
            packed: Images.
            trainer: The built network; of several phases, for the first one.
            report: Takes progress events.
            cached: Values of the frozen prefix, which the trainer takes in place of images.
            phased: Only for a policy with several phases.
        """
        self._spec = spec
        self._network = network
        self._packed = packed
        self._report = report
        self._phased = phased
        self._phases = phased.phases if phased else (Phase(spec.policy, 0, spec.recipe.epochs),)
        self._computed: set[Phase] = set()
        """Phases whose prefix values this run computed."""
        self._peaks: list[int | None] = []
        self._use(Ready(self._phases[0], plan, trainer, cached, phased.note if phased else None))
        self._batches_sha256: list[str] = []
        self._prefixes: list[dict[str, Any]] = []
        self._took_s = 0.0

    def _use(self, ready: Ready) -> None:
        self.fit = Fit(self._spec, self._packed, ready, self._report)
        if ready.cached and not ready.cached.is_reused:
            self._computed.add(ready.phase)

    def __call__(self, started: float) -> Outcome:
        """Train, test and measure.

        Args:
            started: ``time.perf_counter()`` when the worker began with this run.

        Raises:
            FrozenChanged: A frozen tensor changed.
        """
        outcome = Outcome()
        result = outcome.fields
        before = self.fit.trainer.tensors()
        result["initial_state_sha256"] = hash_tensors(before)
        result["frozen_state_sha256"] = self.fit.frozen_sha256(before)
        del before
        result.update(count_fields(self.fit.trainer))
        if self._network is not None:  # the operations of native networks are not known
            result.update(work_fields(self._network.blueprint, self._phases))
        spent_s = self.fit.cached.spent_s if self.fit.cached else 0.0
        result["setup_s"] = time.perf_counter() - started - spent_s
        if self._spec.recipe.learning_rate_grid:
            self._tune(result)
        if self._train(result):
            outcome.logits = self._test(result)
            if failure := logits_failure(outcome.logits):
                result["failure"] = failure
                outcome.logits = result["test_top1"] = result["test_loss"] = None
        self._measure(result)
        return outcome

    def _tune(self, result: dict[str, Any]) -> None:
        """Choose the learning rate to train with."""
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
        """Return the fit of a phase, and build it if it is not the current one.

        Args:
            tensors: Its start; None: the tensors as the current phase left them.
        """
        if self._phased and phase != self.fit.phase:
            self._peaks.append(self.fit.trainer.peak_device_bytes())
            tensors = self.fit.trainer.tensors() if tensors is None else tensors
            del self.fit  # frees memory for the next one
            self._use(self._phased.build(phase, tensors))
        return self.fit

    def _train(self, result: dict[str, Any]) -> bool:
        """Train and validate all phases; return False if the run diverged."""
        result["train_loss_by_epoch"], result["val_top1_by_epoch"] = [], []
        result["phases"] = []
        clock, is_finite = Stopwatch(), True
        for phase in self._phases:
            is_finite = is_finite and self._train_phase(phase, result, clock)
        hashes = self._batches_sha256
        result["batches_sha256"] = hashes[0] if len(self._phases) == 1 else canonical_hash(hashes)
        return is_finite

    def _train_phase(self, phase: Phase, result: dict[str, Any], clock: Stopwatch) -> bool:
        """Train a phase and check what it freezes; return False if the run diverged.

        Args:
            clock: Measures ``fit_s``: it pauses during checks, and counts the cost of the frozen
                prefix's values even if another run paid for them.
        """
        at_s, setup_s, is_first = clock.seconds, None, phase == self.fit.phase
        clock.start()
        fit = self._enter(phase)
        cached = fit.cached
        if not is_first:
            setup_s = clock.seconds - at_s - (cached.spent_s if cached else 0.0)
        clock.stop()
        if cached:
            clock.add(cached.seconds - (0.0 if is_first else cached.spent_s))
        frozen_sha256 = result["frozen_state_sha256"]
        if not is_first:
            frozen_sha256 = result["frozen_state_sha256"] = fit.frozen_sha256()
        clock.start()
        is_finite = self._train_epochs(fit, result, clock)
        clock.stop()
        self._batches_sha256.append(fit.batches.sha256())
        fit.check_frozen(frozen_sha256)
        is_reused = phase not in self._computed
        self._prefixes.append(prefix_fields(cached, is_reused))
        self._took_s += steady_s(fit)
        if self._phased:
            fit_s = result["fit_s"] - at_s
            result["phases"].append(phase_result(fit, frozen_sha256, is_reused, setup_s, fit_s))
            result.update(count_fields(fit.trainer))
        return is_finite

    def _train_epochs(self, fit: Fit, result: dict[str, Any], clock: Stopwatch) -> bool:
        """Train and validate the epochs of a phase; return False if the run diverged."""
        for epoch in fit.phase.numbers:
            loss = fit.train_epoch(epoch)
            result["train_loss_by_epoch"].append(loss if math.isfinite(loss) else None)
            result["fit_s"] = clock.seconds
            if failure := loss_failure(loss, epoch, fit.recipe.learning_rate):
                result["failure"] = failure
                return False
            logits = fit.logits(fit.val)
            result["fit_s"] = clock.seconds
            if failure := logits_failure(logits, epoch):
                result["val_top1_by_epoch"].append(None)
                result["failure"] = failure
                return False
            top1 = evaluate("val", logits, self._packed.val.labels)["val_top1"]
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
        return True

    def _test(self, result: dict[str, Any]) -> Array:
        """Evaluate the test images: the only use of that split."""
        began = time.perf_counter()
        windows = Windows(self.fit.trainer.synchronise, warmup_steps=1)
        logits = self.fit.logits(self._packed.test.images, windows)
        result["test_s"] = time.perf_counter() - began
        result.update(evaluate("test", logits, self._packed.test.labels))
        result["infer_images_per_s"] = windows.median_per_s()
        return logits

    def _measure(self, result: dict[str, Any]) -> None:
        """Add rates, memory, settings and notes; must come last, as it trains on."""
        notes: list[str] = []
        fit = self.fit
        if result.get("test_top1") is not None and result["infer_images_per_s"] is None:
            notes.append("the test split is too small for an inference throughput")
        result["peak_host_bytes"] = peak_host_bytes()
        peaks = [*self._peaks, fit.trainer.peak_device_bytes()]
        known = [peak for peak in peaks if peak is not None]
        result["peak_device_bytes"] = max(known) if len(known) == len(peaks) else None
        if self._phased is None and fit.cached is None:
            result.update(whole_step_fields(fit, self._spec.device, notes))
        else:
            result.update(sum_prefix_fields(self._prefixes))
            images = len(result["train_loss_by_epoch"]) * fit.batches.images
            result["effective_images_per_s"] = effective_rate(images, self._took_s, notes)
            result["compile_s"] = None if self._phased else compile_s(fit, fit.step_s)
        if self._spec.recipe.learning_rate_grid:
            result["compile_s"] = None  # the trials compiled already
        if self._phased:
            notes.append(
                "the policy trains in phases: a rate of whole steps, where there is one, stands "
                "with each of them"
            )
        elif fit.cached and fit.cached.note:
            notes.append(fit.cached.note)
        result["knobs"] = all_knobs(self._network, fit.trainer)
        result |= utilisation(
            result, fit.trainer, self._spec.device, self._spec.recipe.precision, notes
        )
        result["notes"] = notes
