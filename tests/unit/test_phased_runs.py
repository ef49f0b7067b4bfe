"""A run of several phases against a trainer in NumPy."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from bench.catalog.policies import POLICIES
from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.phases import Phase, phases_of
from bench.spec.run import RunSpec
from bench.training.adapter import Batch
from bench.training.batches import TrainingBatches
from bench.training.fit import FrozenChanged, Ready
from bench.training.measurements import sum_prefix_fields
from bench.training.metrics import cross_entropy, top1
from bench.training.prefix_cache import CachedPrefix
from bench.training.run import Run
from bench.training.schedule import learning_rate
from bench.workers.events import Epoch, Progress, RateTrial
from bench.workers.tasks import ParameterCounts
from tests.unit.test_phases import GRADUAL, PROBE
from tests.unit.test_training_run import CLASSES, PIXELS, NumpyTrainer, network, packed, spec


class Thawing(NumpyTrainer):
    """Two dense layers, trained by gradient descent with momentum as far as the plan says."""

    living: ClassVar[weakref.WeakSet[Thawing]] = weakref.WeakSet()

    def __init__(self, net: Network, plan: TrainingPlan) -> None:
        super().__init__(net)
        self.plan = plan
        self.moments = {name: np.zeros_like(self.weights[name]) for name in plan.trained}
        self.living.add(self)

    def _pixels(self, images: Array) -> Array:
        """Return the pixels, which may already be preprocessed."""
        return super()._pixels(images) if images.dtype == np.uint8 else images

    def _hidden(self, images: Array) -> Array:
        hidden: Array = self._pixels(images) @ self.weights["frozen.weight"].T
        return hidden

    def train_step(self, prepared: Batch, learning_rate: float) -> float:
        self.rates.append(learning_rate)
        x = self._pixels(prepared.images)
        hidden, head = self._hidden(prepared.images), self.weights["logits.weight"]
        logits = hidden @ head.T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        n = len(x)
        loss = float(-np.mean(np.log(p[np.arange(n), prepared.labels])))
        p[np.arange(n), prepared.labels] -= 1
        p /= n
        gradients = {"logits.weight": p.T @ hidden, "frozen.weight": (p @ head).T @ x}
        for name, treatment in self.plan.trained.items():
            self.moments[name] = 0.9 * self.moments[name] + gradients[name]
            rate = learning_rate * treatment.learning_rate_scale
            self.weights[name] = self.weights[name] - rate * self.moments[name]
        if self.breaks_frozen and self.plan.frozen:
            self.weights["frozen.weight"][0, 0] += 1e-9
        return self.loss_after.get(len(self.rates), loss)

    def infer(self, images: npt.NDArray[np.uint8]) -> Array:
        self.inferred += len(images)
        logits: Array = self._hidden(images) @ self.weights["logits.weight"].T
        return logits

    def restore(self, tensors: Mapping[str, Array]) -> None:
        self.weights = {name: np.array(tensor) for name, tensor in tensors.items()}
        self.moments = {name: np.zeros_like(self.weights[name]) for name in self.plan.trained}

    def counts(self) -> ParameterCounts:
        trained = sum(self.weights[name].size for name in self.plan.trained)
        return ParameterCounts(
            total_parameters=PIXELS * (PIXELS + CLASSES), trainable_parameters=trained,
            state_values=0,
        )  # fmt: skip


class Bench:
    """Builds the phases of a run, and records each trainer's learning rates."""

    def __init__(self, what: RunSpec, change: Callable[[Thawing], None] = lambda t: None) -> None:
        self.what = what
        self.net = network()
        self.phases = phases_of(self.net.blueprint, what.policy, what.recipe.epochs)
        self.change = change
        self.rates: list[list[float]] = []
        self.most_alive = 0
        self.events: list[Progress] = []

    def build(self, phase: Phase, tensors: Mapping[str, Array]) -> Ready:
        gc.collect()
        plan = plan_training(self.net.blueprint, phase.policy)
        trainer = Thawing(Network(self.net.blueprint, dict(tensors)), plan)
        self.change(trainer)
        self.rates.append(trainer.rates)
        self.most_alive = max(self.most_alive, len(Thawing.living))
        return Ready(phase, plan, trainer, self.cached(plan), "no view twice")

    def cached(self, plan: TrainingPlan) -> CachedPrefix | None:
        return None

    def run(self) -> dict[str, Any]:
        Thawing.living.clear()
        loop = self._loop()
        return loop(time.perf_counter()).fields

    def _loop(self) -> Run:
        first = self.build(self.phases[0], self.net.tensors)
        return Run(self.what, self.net, packed(), first, self.events.append, self.phases,
                   self.build)  # fmt: skip


def phased_spec(name: str = PROBE, epochs: int = 5, **recipe: Any) -> RunSpec:
    what = spec(epochs)
    policy = POLICIES[name]
    return what.model_copy(
        update={"policy": policy, "recipe": what.recipe.model_copy(update=recipe)}
    )


def train_directly(what: RunSpec) -> tuple[list[float], dict[str, Array]]:
    """Train the head for two epochs, then everything, without ``Run``.

    Returns:
        The loss of each epoch, and the final tensors.
    """
    data, tensors, losses = packed(), network().tensors, []
    for name, epochs in (("freeze_all", range(2)), ("fine_tune_all", range(2, 5))):
        plan = plan_training(network().blueprint, POLICIES[name])
        trainer = Thawing(Network(network().blueprint, tensors), plan)
        batches = TrainingBatches(data.train, what.recipe, plan.dropouts, what.seed)
        recipe = what.recipe.model_copy(update={"epochs": len(epochs)})
        steps, step = batches.steps_per_epoch, 0
        for epoch in epochs:
            found, sizes = [], []
            for batch in batches.epoch(epoch):
                rate = learning_rate(recipe, step, steps * len(epochs))
                found.append(trainer.train_step(batch, rate))
                sizes.append(len(batch.labels))
                step += 1
            losses.append(float(np.average(found, weights=sizes)))
        tensors = trainer.tensors()
    return losses, tensors


def test_two_phases_are_two_trainings_one_after_the_other() -> None:
    bench = Bench(phased_spec())
    fields = bench.run()
    losses, _ = train_directly(phased_spec())
    assert fields["train_loss_by_epoch"] == losses
    assert losses[2] < losses[1] < losses[0]
    assert len(fields["val_top1_by_epoch"]) == 5
    assert [e.epoch for e in bench.events if isinstance(e, Epoch)] == [1, 2, 3, 4, 5]
    assert bench.most_alive == 1, "the previous network is dropped first"
    for rates, epochs in zip(bench.rates, (2, 3), strict=True):
        steps = 7 * epochs
        recipe = phased_spec(epochs=epochs).recipe
        assert rates == [learning_rate(recipe, step, steps) for step in range(steps)]


def test_what_each_phase_gave_stands_by_itself() -> None:
    fields = Bench(phased_spec()).run()
    head, everything = fields["phases"]
    assert [(p.boundary, p.epochs) for p in fields["phases"]] == [("head", 2), ("all", 3)]
    assert [p.trainable_parameters for p in fields["phases"]] == [
        PIXELS * CLASSES, PIXELS * (PIXELS + CLASSES),
    ]  # fmt: skip
    assert fields["trainable_parameters"] == everything.trainable_parameters
    assert fields["frozen_parameters"] == 0
    assert head.frozen_state_sha256 != everything.frozen_state_sha256
    assert fields["frozen_state_sha256"] == everything.frozen_state_sha256
    assert head.setup_s is None
    assert 0 < everything.setup_s < everything.fit_s
    assert head.fit_s + everything.fit_s == pytest.approx(fields["fit_s"], abs=0.01)
    assert head.notes == everything.notes == ("no view twice",)
    # Steps of different phases have no common rate.
    for field in ("train_images_per_s", "compute_images_per_s", "step_s_p50", "compile_s",
                  "input_wait_fraction"):  # fmt: skip
        assert fields.get(field) is None
    assert any("phases" in note for note in fields["notes"])


def test_the_batches_are_those_of_any_run_up_to_the_masks_of_the_phases() -> None:
    one, again, other = (
        Bench(phased_spec()).run(),
        Bench(phased_spec()).run(),
        Bench(phased_spec(GRADUAL)).run(),
    )
    assert one["batches_sha256"] == again["batches_sha256"]
    assert one["batches_sha256"] != other["batches_sha256"]
    assert one["initial_state_sha256"] == other["initial_state_sha256"]


def test_the_work_is_the_mean_of_the_epochs() -> None:
    fields = Bench(phased_spec()).run()
    head, full = CLASSES * PIXELS, PIXELS * PIXELS + 2 * CLASSES * PIXELS
    forward = PIXELS * PIXELS + CLASSES * PIXELS
    assert fields["forward_multiply_adds"] == forward
    assert fields["backward_multiply_adds"] == round((2 * head + 3 * full) / 5)
    mean = (2 * (forward + head) + 3 * (forward + full)) / 5
    assert fields["predicted_saving"] == pytest.approx(1 - mean / (forward + full), abs=1e-4)


class Cached(Bench):
    """A run that takes preprocessed pixels in place of images where something is frozen."""

    def cached(self, plan: TrainingPlan) -> CachedPrefix | None:
        if not plan.frozen:
            return None
        data, pixels = packed(), NumpyTrainer(self.net)._pixels
        return CachedPrefix(pixels(data.train.images), pixels(data.val.images),
                        seconds=50.0, spent_s=0.0, is_reused=len(self.rates) > 1,
                        form="folded")  # fmt: skip


def test_values_of_a_frozen_part_count_in_their_phase() -> None:
    fields, whole = Cached(phased_spec()).run(), Bench(phased_spec()).run()
    assert fields["train_loss_by_epoch"] == whole["train_loss_by_epoch"]
    assert fields["batches_sha256"] == whole["batches_sha256"]
    assert 50.0 < fields["fit_s"] < 55.0
    head, everything = fields["phases"]
    assert (head.prefix_values, head.prefix_s) == ("computed", 50.0)
    assert (everything.prefix_values, everything.prefix_s) == (None, None)
    assert (fields["prefix_values"], fields["prefix_s"]) == ("computed", 50.0)
    assert fields["prefix_form"] == head.prefix_form == "folded"
    assert 2 * 50 / 52 < head.effective_images_per_s < 2 * 50 / 50
    assert 5 * 50 / 55 < fields["effective_images_per_s"] < 5 * 50 / 50
    assert everything.effective_images_per_s is None
    assert head.train_images_per_s is None


class CachedTwice(Cached):
    """A run with cached values in both phases; reading those of the second took 20 s."""

    def cached(self, plan: TrainingPlan) -> CachedPrefix | None:
        frozen = super().cached(replace(plan, frozen=("frozen.weight",)))
        assert frozen is not None
        return frozen if plan.frozen else replace(frozen, spent_s=20.0)


def test_what_others_paid_for_values_counts_and_what_it_took_to_read_them_does_not() -> None:
    fields = CachedTwice(phased_spec()).run()
    assert 80.0 < fields["fit_s"] < 85.0  # no time was really spent
    assert fields["prefix_s"] == 100.0
    assert fields["prefix_values"] == "computed"
    assert [p.prefix_values for p in fields["phases"]] == ["computed", "reused"]


def test_values_that_tuning_computed_were_computed_in_this_run() -> None:
    fields = Cached(phased_spec(learning_rate_grid=(0.01, 0.1))).run()
    assert fields["prefix_values"] == fields["phases"][0].prefix_values == "computed"


def test_a_frozen_tensor_that_moves_in_the_first_phase_voids_the_run() -> None:
    bench = Bench(phased_spec(), lambda trainer: setattr(trainer, "breaks_frozen", True))
    with pytest.raises(FrozenChanged):
        bench.run()
    assert len(bench.rates) == 1, "the second phase was not begun"


def test_a_loss_that_is_not_finite_ends_the_run_in_its_phase() -> None:
    def break_second(trainer: Thawing) -> None:
        trainer.loss_after = {} if trainer.plan.frozen else {10: np.nan}

    fields = Bench(phased_spec(), break_second).run()
    assert fields["failure"].kind == "diverged"
    assert "epoch 4" in fields["failure"].message
    assert fields["train_loss_by_epoch"][3] is None
    assert len(fields["train_loss_by_epoch"]) == 4
    assert [p.epochs for p in fields["phases"]] == [2, 2]
    first = Bench(phased_spec(), lambda t: t.loss_after.update({3: np.inf})).run()
    assert len(first["phases"]) == len(first["train_loss_by_epoch"]) == 1


def test_every_rate_goes_through_all_phases_before_one_is_chosen() -> None:
    grid = (1e-4, 0.03, 0.1)
    bench = Bench(phased_spec(learning_rate_grid=grid))
    fields = bench.run()
    assert bench.most_alive == 1
    further = [trial.learning_rate for trial in fields["tuning"][3:]]
    assert 1 <= len(further) <= 2, "the best of the grid is its highest rate"
    assert len(bench.rates) == 4 + 2 * len(further), (
        "two phases for the grid, two for each further rate, two for the chosen one"
    )
    heard = [(e.phase, e.number) for e in bench.events if isinstance(e, RateTrial)]
    assert heard[:6] == [(phase, number) for phase in (1, 2) for number in (1, 2, 3)]
    assert heard[6:8] == [(1, 4), (2, 4)]
    for trial, rate in zip(fields["tuning"], (*grid, *further), strict=True):
        _, tensors = train_directly(phased_spec(learning_rate=rate))
        plan = plan_training(network().blueprint, POLICIES["fine_tune_all"])
        alone = Thawing(Network(network().blueprint, tensors), plan)
        val = packed().val
        assert trial.learning_rate == rate
        logits = alone.infer(val.images)
        assert trial.val_top1 == top1(logits, val.labels)
        assert trial.val_loss == cross_entropy(logits, val.labels)
    chosen = fields["learning_rate"]
    assert chosen != 1e-4
    alone = Bench(phased_spec(learning_rate=chosen)).run()
    for field in ("train_loss_by_epoch", "test_loss", "batches_sha256", "initial_state_sha256"):
        assert fields[field] == alone[field], field
    assert fields["tune_s"] > 0


def test_a_rate_that_diverged_in_one_phase_is_not_tried_in_the_next() -> None:
    with np.errstate(all="ignore"):
        fields = Bench(phased_spec(learning_rate_grid=(1e308, 0.1))).run()
    assert (fields["tuning"][0].val_top1, fields["tuning"][0].val_loss) == (None, None)
    assert fields["learning_rate"] == 0.1


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["reused", "computed"], "computed"),
        (["computed", None], "computed"),
        ([None, "reused"], "reused"),
        ([None], None),
    ],
)
def test_a_run_computed_its_values_if_any_phase_did(
    states: list[str | None], expected: str | None
) -> None:
    each = [
        {"prefix_values": state, "prefix_s": state and 1.0, "prefix_form": state and "plain"}
        for state in states
    ]
    assert sum_prefix_fields(each)["prefix_values"] == expected
