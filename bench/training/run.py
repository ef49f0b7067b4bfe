"""Training, testing and measuring one run: the clock, the schedule, the order of the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from bench.data import Packed
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.phases import Phase
from bench.spec.base import canonical_hash
from bench.spec.result import Fingerprint
from bench.spec.run import RunSpec
from bench.system import OtherWork
from bench.training import measurements
from bench.training.adapter import MatchedTrainer
from bench.training.clocks import Stopwatch, Windows
from bench.training.fingerprint import fingerprint, finite
from bench.training.fit import Fit, Ready, add_loss, add_test, add_validation, infer
from bench.training.flop_utilisation import utilisation
from bench.training.memory import peak_host_bytes
from bench.training.tuning import choose_rate, tune
from bench.workers.events import Epoch, OnEvent

MOST_REPEATS = 2
"""Further passes over the test images where other work disturbed their speed."""


class Outcome(NamedTuple):
    """The outcome of a run: fields of its result, and its predictions."""

    fields: dict[str, Any]
    """Values by the names of ``RunResult``."""
    logits: Array | None
    """(test images, classes); None if the run diverged."""


Build = Callable[[Phase, Mapping[str, Array]], Ready]
"""Builds a phase from the tensors that another one left, whose trainer is gone by then."""


class Run:
    """One run on a framework's trainer: call it to train, test and measure."""

    def __init__(
        self, spec: RunSpec, network: Network | None, packed: Packed, first: Ready, report: OnEvent,
        phases: Sequence[Phase] = (), build: Build | None = None,
        at_start: Callable[[], Network] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            network: Without its numbers; None in native mode.
            first: The built network; of several phases, the first one.
            phases: All phases, the first one included; empty: that one alone.
            build: Builds the other phases.
            at_start: Returns the network with the numbers that the run began with, for its
                fingerprint; None in native mode.
        """
        self._spec, self._network, self._packed, self._report = spec, network, packed, report
        self._phases, self._build = phases or (first.phase,), build
        self._at_start = at_start
        self._is_phased = len(self._phases) > 1
        self._computed: set[Phase] = set()
        """Phases whose prefix values this run computed."""
        self._memory: list[dict[str, int | None]] = []
        """Memory of the phases before the current one on the device, by the names of fields."""
        self._other_work: list[OtherWork] = []
        """Use of the machine's cores in each epoch."""
        self._use(first)
        self._batches_sha256: list[str] = []
        self._prefixes: list[dict[str, Any]] = []
        self._took_s = 0.0
        self._first_losses: list[float] = []
        self._was_disturbed = False

    def _use(self, ready: Ready) -> None:
        self.fit = Fit(self._spec, self._packed, ready, self._report)
        if cached := ready.cached:
            if not cached.is_reused:
                self._computed.add(ready.phase)
            self.fit.cached = replace(cached, is_reused=ready.phase not in self._computed)

    def __call__(self, started: float) -> Outcome:
        """Train, test and measure the run, begun at ``started`` by ``time.perf_counter()``; raise
        FrozenChanged if a frozen tensor changed."""
        before = self.fit.trainer.tensors()
        result: dict[str, Any] = {
            "initial_state_sha256": hash_tensors(before),
            "frozen_state_sha256": self.fit.plan.frozen_sha256(before),
        }
        del before
        result.update(measurements.count_fields(self.fit.trainer))
        if self._network is not None:  # the operations of native networks are not known
            result.update(measurements.work_fields(self._network.blueprint, self._phases))
        spent_s = self.fit.cached.spent_s if self.fit.cached else 0.0
        result["setup_s"] = time.perf_counter() - started - spent_s
        if self._spec.recipe.learning_rate_grid:
            self._tune(result)
        logits = self._test(result) if self._train(result) else None
        self._measure(result)
        result["fingerprint"] = self._fingerprint()
        return Outcome(result, logits)

    def _fingerprint(self) -> Fingerprint | None:
        """Return numbers of the first steps, which are repeated unless the policy has phases."""
        if self._at_start is None:
            return None
        if self._is_phased:
            return Fingerprint(step_losses=finite(self._first_losses))
        trainer = cast(MatchedTrainer, self.fit.trainer)
        start = self._at_start().tensors
        return fingerprint(self.fit, trainer, start, self._packed.val.images)

    def _tune(self, result: dict[str, Any]) -> None:
        """Choose the learning rate to train with."""
        recipe, labels = self._spec.recipe, self._packed.val.labels
        began = time.perf_counter()
        trials = tune(self._phases, self._enter, recipe, labels, self._report)
        seconds, chosen = time.perf_counter() - began, choose_rate(trials)
        recipe = recipe.model_copy(update={"learning_rate": chosen})
        self._spec = self._spec.model_copy(update={"recipe": recipe})
        self.fit.recipe = self.fit.phase.recipe(recipe)
        result |= {"tuning": trials, "tune_s": seconds, "learning_rate": chosen}

    def _enter(self, phase: Phase, tensors: Mapping[str, Array] | None = None) -> Fit:
        """Return the fit of a phase; if it is not the current one, build it from ``tensors``, by
        default as the current phase left them."""
        if phase != self.fit.phase:
            assert self._build is not None
            self._memory.append(measurements.memory_fields(self.fit))
            tensors = self.fit.trainer.tensors() if tensors is None else tensors
            del self.fit  # frees memory for the next one
            self._use(self._build(phase, tensors))
        return self.fit

    def _train(self, result: dict[str, Any]) -> bool:
        """Train and validate all phases; return False if the run diverged."""
        result |= {"train_loss_by_epoch": [], "val_top1_by_epoch": [], "phases": []}
        clock, is_finite = Stopwatch(), True
        for phase in self._phases:
            is_finite = is_finite and self._train_phase(phase, result, clock)
        hashes = self._batches_sha256
        result["batches_sha256"] = hashes[0] if len(self._phases) == 1 else canonical_hash(hashes)
        return is_finite

    def _train_phase(self, phase: Phase, result: dict[str, Any], clock: Stopwatch) -> bool:
        """Train a phase and check what it freezes; return False if the run diverged.

        ``clock`` measures ``fit_s``: it pauses during checks, and counts the cost of the frozen
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
        if not is_first:
            result["frozen_state_sha256"] = fit.plan.frozen_sha256(fit.trainer.tensors())
        frozen_sha256 = result["frozen_state_sha256"]
        clock.start()
        is_finite = self._train_epochs(fit, result, clock)
        clock.stop()
        fit.batches.close()
        self._batches_sha256.append(fit.batches.sha256())
        self._other_work += fit.other_work
        fit.check_frozen(frozen_sha256)
        self._prefixes.append(measurements.prefix_fields(cached))
        self._took_s += measurements.steady_s(fit)
        self._first_losses = self._first_losses or fit.first_losses
        if self._is_phased:
            fit_s = result["fit_s"] - at_s
            result["phases"].append(measurements.phase_result(fit, frozen_sha256, setup_s, fit_s))
            result.update(measurements.count_fields(fit.trainer))
        return is_finite

    def _train_epochs(self, fit: Fit, result: dict[str, Any], clock: Stopwatch) -> bool:
        """Train and validate the epochs of a phase; return False if the run diverged."""
        for epoch in fit.phase.numbers:
            loss = fit.train_epoch(epoch)
            result["fit_s"] = clock.seconds
            if not add_loss(result, loss, epoch, fit.recipe.learning_rate):
                return False
            logits = infer(
                fit.trainer, fit.val, fit.recipe.batch_size, fit.threads, calls=fit.calls
            )
            result["fit_s"] = clock.seconds
            if not add_validation(result, logits, self._packed.val.labels, epoch):
                return False
            top1 = result["val_top1_by_epoch"][-1]
            epochs = self._spec.recipe.epochs
            self._report(Epoch(epoch=epoch + 1, epochs=epochs, train_loss=loss, val_top1=top1))
        return True

    def _test(self, result: dict[str, Any]) -> Array | None:
        """Evaluate the test images, the only use of that split; return their logits if finite."""
        began, fit, test = time.perf_counter(), self.fit, self._packed.test
        device, size = self._spec.device, fit.recipe.batch_size
        windows = Windows(fit.trainer.synchronise, device, warmup_steps=1)
        logits = infer(fit.trainer, test.images, size, fit.threads, windows)
        result["test_s"] = time.perf_counter() - began
        for _ in range(MOST_REPEATS):
            if windows.is_steady:
                break
            windows = Windows(fit.trainer.synchronise, device, warmup_steps=1)
            infer(fit.trainer, test.images, size, fit.threads, windows)
        self._was_disturbed = not windows.is_steady
        result["infer_images_per_s"] = windows.median_per_s() if windows.is_steady else None
        return logits if add_test(result, logits, test.labels) else None

    def _measure(self, result: dict[str, Any]) -> None:
        """Add rates, memory, settings and notes; must come last, as it trains on."""
        notes: list[str] = []
        fit = self.fit
        if result.get("test_top1") is not None and result["infer_images_per_s"] is None:
            notes.append("the test split is too small for an inference throughput")
            if self._was_disturbed:
                notes[-1] = f"inference was disturbed {1 + MOST_REPEATS} times: other work?"
        result["peak_host_bytes"] = peak_host_bytes()
        result.update(measurements.largest([*self._memory, measurements.memory_fields(fit)]))
        result.update(measurements.other_work_fields(self._other_work, notes))
        if not self._is_phased and fit.cached is None:
            result.update(measurements.whole_step_fields(fit, self._spec.device, notes))
        else:
            result.update(measurements.sum_prefix_fields(self._prefixes))
            images = len(result["train_loss_by_epoch"]) * fit.batches.images
            rate = measurements.effective_rate(images, self._took_s, notes)
            compile_s = None if self._is_phased else fit.calls.compile_s()
            result |= {"effective_images_per_s": rate, "compile_s": compile_s}
        if self._spec.recipe.learning_rate_grid:
            result["compile_s"] = None  # the trials compiled already
        if self._is_phased:
            notes.append(
                "the policy trains in phases: a rate of whole steps, where there is one, stands "
                "with each of them"
            )
        elif fit.cached and fit.cached.note:
            notes.append(fit.cached.note)
        result["knobs"] = measurements.all_knobs(self._network, fit.trainer)
        precision = self._spec.recipe.precision
        result |= utilisation(result, fit.trainer, self._spec.device, precision, notes)
        if fit.note and not self._is_phased:
            notes.append(fit.note)
        if fit.plan.needs_two_images and fit.batches.images % self._spec.recipe.batch_size == 1:
            notes.append(
                "the last image of each epoch was joined to the batch before it: BatchNorm needs "
                "two images where a map has a single position"
            )
        result["notes"] = notes
