"""A run's fingerprint finds what was planted; its figures are right by a clock that we set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bench.analysis.same_experiment import TOLERANCES
from bench.network.blueprint import Array
from bench.spec.result import Fingerprint
from bench.training.adapter import Batch
from bench.training.clocks import Windows
from bench.training.prefix_cache import CachedPrefix
from bench.training.run import Outcome, Run
from tests.unit.test_training_run import (
    CLASSES,
    PIXELS,
    NumpyTrainer,
    ResumingTrainer,
    network,
    only_phase,
    packed,
    spec,
)


class RestorableTrainer(ResumingTrainer):
    """Gradient descent with momentum, which ``restore`` must reset."""

    forgets_moments = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.velocity = np.zeros_like(self.weights["logits.weight"])

    def train_step(self, prepared: Batch, learning_rate: float) -> float:
        before = self.weights["logits.weight"].copy()
        loss = super().train_step(prepared, learning_rate)
        self.velocity = 0.9 * self.velocity + self.weights["logits.weight"] - before
        self.weights["logits.weight"] = before + self.velocity
        return loss

    def restore(self, tensors: Mapping[str, Array]) -> None:
        self.weights = {name: array.copy() for name, array in tensors.items()}
        if self.forgets_moments:
            self.velocity[:] = 0.0


def outcome_of(trainer: NumpyTrainer, cached: CachedPrefix | None = None, seed: int = 0) -> Outcome:
    what = spec().model_copy(update={"seed": seed})
    ready = only_phase(what, trainer, cached)
    loop = Run(what, trainer.net, packed(), ready, lambda event: None, at_start=network)
    return loop(time.perf_counter())


def fingerprint_of(trainer: NumpyTrainer, cached: CachedPrefix | None = None) -> Fingerprint:
    found = outcome_of(trainer, cached).fields["fingerprint"]
    assert isinstance(found, Fingerprint)
    return found


def test_first_steps_are_repeated_from_the_start() -> None:
    found = fingerprint_of(RestorableTrainer(network()))
    assert found.step_losses[0] == pytest.approx(np.log(3), rel=1e-12)
    assert found.repeated_losses == found.step_losses
    assert found.step_losses[1] != found.step_losses[0]
    assert len(found.logits_after_step) == 4 * 3
    assert any(found.logits_after_step)
    assert found.cached_difference is None


def test_moments_that_are_kept_are_seen() -> None:
    trainer = RestorableTrainer(network())
    trainer.forgets_moments = False
    found = fingerprint_of(trainer)
    first, again = found.step_losses[1], found.repeated_losses[1]
    assert first is not None
    assert again is not None
    assert abs(again - first) / first > TOLERANCES["fp32"]["repeated steps"]


@pytest.mark.parametrize(("factor", "least"), [(1.0, 0.0), (1.01, 1e-3)])
def test_cached_values_that_are_wrong_are_seen(factor: float, least: float) -> None:
    trainer, data = RestorableTrainer(network()), packed()

    values = CachedPrefix(
        trainer.prefix(data.train.images) * factor, trainer.prefix(data.val.images) * factor,
        seconds=1.0, spent_s=0.1, is_reused=True, form="folded",
    )  # fmt: skip
    what = spec()
    start = network()
    start.tensors["logits.weight"][:] = 1e-4 * np.arange(CLASSES * PIXELS).reshape(
        start.tensors["logits.weight"].shape
    )
    loop = Run(what, trainer.net, data, only_phase(what, trainer, values), lambda event: None,
               at_start=lambda: start)  # fmt: skip
    found = loop(time.perf_counter()).fields["fingerprint"].cached_difference
    assert found == pytest.approx(factor - 1.0, abs=1e-9)
    assert (found > TOLERANCES["fp32"]["cached values"]) is (least > 0)


def test_native_runs_have_none() -> None:
    trainer, what = NumpyTrainer(network()), spec()
    loop = Run(what, None, packed(), only_phase(what, trainer), lambda event: None)
    assert loop(time.perf_counter()).fields["fingerprint"] is None


def test_another_seed_has_other_batches() -> None:
    first, second = (outcome_of(RestorableTrainer(network()), seed=s).fields for s in (0, 1))
    assert first["batches_sha256"] != second["batches_sha256"]
    assert first["initial_state_sha256"] == second["initial_state_sha256"]


def test_the_accuracy_is_that_of_the_saved_logits() -> None:
    outcome = outcome_of(RestorableTrainer(network()))
    assert outcome.logits is not None
    right = outcome.logits.argmax(axis=1) == packed().test.labels
    assert outcome.fields["test_top1"] == right.mean()
    assert len(right) == 12, "every test image counts, also those of the last batch"


def test_windows_count_every_trained_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    count, left_out = Windows.step, [0]

    def step(self: Windows, images: int, waited_s: float = 0.0) -> None:
        counted.append(images)
        count(self, images, waited_s)

    def leave_out(self: Windows) -> None:
        left_out[0] += 1
        self.open()

    monkeypatch.setattr(Windows, "step", step)
    monkeypatch.setattr(Windows, "leave_out", leave_out)
    outcome_of(RestorableTrainer(network()))
    # Three epochs of 6 steps of 8 images and one of 2, and a test of 8 and 4 images; the first call
    # of each batch size is in no window.
    assert sum(counted) == 3 * 50 - 8 - 2
    assert left_out == [2 + 2]


class Clock:
    """Seconds that pass only where a trainer says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


class TimedTrainer(RestorableTrainer):
    """A step takes 1 s, the first one 5 s more; the inference of a batch takes 10 s."""

    clock: Clock

    def train_step(self, prepared: Batch, learning_rate: float) -> float:
        self.clock.now += 1.0 if self.rates else 6.0
        return super().train_step(prepared, learning_rate)

    def infer(self, images: Any) -> Array:
        self.clock.now += 10.0
        return super().infer(images)


def test_every_second_is_counted_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = TimedTrainer(network())
    trainer.clock = Clock(monkeypatch)
    fields = outcome_of(trainer).fields
    steps, batches = 3 * 7, 2
    assert fields["fit_s"] == 5 + steps * 1 + 3 * batches * 10
    assert fields["test_s"] == batches * 10
    assert fields["train_images_per_s"] == 8.0, "validation and warm-up are no training"
    assert (fields["step_s_p50"], fields["step_s_p95"], fields["compile_s"]) == (1.0, 1.0, 5.0)
    assert fields["compute_images_per_s"] == 8.0
    assert fields["input_wait_fraction"] == 0.0
    assert fields["setup_s"] + fields["fit_s"] + fields["test_s"] <= trainer.clock.now


def test_the_noise_of_a_run_is_what_a_last_bit_does() -> None:
    trainer, what, start = RestorableTrainer(network()), spec(), network()
    shape = start.tensors["logits.weight"].shape
    start.tensors["logits.weight"][:] = np.random.default_rng(0).normal(size=shape)
    loop = Run(what, trainer.net, packed(), only_phase(what, trainer), lambda event: None,
               at_start=lambda: start)  # fmt: skip
    noise = loop(time.perf_counter()).fields["fingerprint"].noise
    assert len(noise) == 3
    assert 0.0 < max(noise) < 1e-12  # of float64, without chaos
