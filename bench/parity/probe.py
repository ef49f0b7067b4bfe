"""Measurement of one backend for a proof, inside its worker."""

from __future__ import annotations

import gc
import math
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Split
from bench.network.blueprint import HEAD, INPUT, Array, Network
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import Boundary, boundary_of
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.parity import tolerances
from bench.parity.compare import grouping, max_relative_difference
from bench.parity.exchange import RecordedValues, read, write, write_facts
from bench.parity.inputs import Perturbed
from bench.parity.model import Part
from bench.parity.tolerances import CLASSES, LEVELS, SEED, STEPS
from bench.spec.run import Policy, Precision, Recipe
from bench.training.adapter import Adapter, Batch, MatchedTrainer
from bench.training.batches import TrainingBatches
from bench.training.fit import build_phase, take_step
from bench.training.metrics import cross_entropy, top1
from bench.training.prefix_cache import Form, build_prefix
from bench.workers.tasks import ProbeItem

FIRST_BATCH_AGAIN = "the first step's batch after all steps"
ATTEMPT = "rate-"
"""Prefix of the folder of an attempt at a learning rate."""
WITHOUT_FLOOR = frozenset({"metrics", "restored_losses", "resumed"})
"""Levels whose noise floor is not measured: they are not about the perturbed tensors."""
RECORDED_IMAGES = 2
"""Number of images whose activations are recorded."""
Record = Callable[[str, RecordedValues], None]
"""Takes the values of a level as soon as they are computed, so that levels need not be in memory
together: VGG19's are a gigabyte each."""
Batches = Callable[[Split, Recipe, TrainingPlan], TrainingBatches]


def make_batches(split: Split, recipe: Recipe, plan: TrainingPlan) -> TrainingBatches:
    """Return the batches of a proof, which are made like those of a run."""
    return TrainingBatches(split, recipe, plan.dropouts, SEED)


def probe(
    adapter: Adapter, item: ProbeItem, split: Split, device: str, out: Path, floors: bool,
    batches: Batches = make_batches,
) -> dict[str, Any]:  # fmt: skip
    """Measure one item, and write a file for each of its levels into the folder ``out``.

    Args:
        split: Training images: one and almost two batches.
        floors: True to measure noise floors, and to search for a learning rate at which the steps
            are conclusive.
        batches: Makes the batches; tests plant defects here.

    Returns:
        learning_rate, loss_fall and floors, as written into ``facts.json``.
    """
    subject = Probe(adapter, item, split, device, batches)
    facts: dict[str, Any] = {"floors": {}, "learning_rate": item.learning_rate}
    without_steps = tuple(p for p in item.parts if p != "steps")
    rate = item.recipe.learning_rate
    subject.measure(without_steps, rate, partial(write, out))
    if floors and without_steps:
        facts["floors"] |= _noise_floors(subject, out, without_steps, rate)
    if "steps" in item.parts:
        if floors:
            found = _find_learning_rate(subject, out)
            rate = found.rate
            facts["floors"] |= found.floors
            found.keep(out)
        else:
            rate = item.learning_rate or rate
            subject.trainer.restore(subject.start)
            subject.steps(rate, partial(write, out))
        facts |= {"learning_rate": rate, "loss_fall": loss_fall(out)}
    write_facts(out, facts)
    return facts


class Probe:
    """A network built by one backend, with the measurements to make on it."""

    def __init__(
        self, adapter: Adapter, item: ProbeItem, split: Split, device: str, batches: Batches
    ) -> None:
        network = Network.load(blueprint_path(item.blueprint))
        network = attach_head(network, item.recipe.head, CLASSES, SEED)
        self.item, self.split = item, split
        self.blueprint = network.blueprint
        self.trainer: MatchedTrainer
        """The network in the framework; during steps that of the current phase."""
        self._adapter, self._device, self._batches = adapter, device, batches
        self._changed: list[float] = []
        self._frozen_before: dict[str, Array] = {}
        self._build(item.policy, network.tensors)
        del network  # the framework has its own copy
        self.start = self.trainer.tensors()

    def _build(self, policy: Policy, tensors: dict[str, Array]) -> None:
        self._policy = policy
        self.trainer, self._plan = build_phase(
            self._adapter, self.blueprint, tensors, policy, self.item.recipe, self._device
        )

    def measure(self, parts: tuple[Part, ...], learning_rate: float, record: Record) -> None:
        """Record every level of ``parts``, starting from the trainer's current tensors."""
        if "forward" in parts:
            self._forward(record)
        if "gradients" in parts:
            _, found = self.trainer.gradients(self.trainer.to_device(self._first_batch()))
            record("gradients", found)
        if "steps" in parts:
            self.steps(learning_rate, record)

    def _forward(self, record: Record) -> None:
        """Record the levels that depend neither on the optimizer nor on what is trained."""
        trainer = self.trainer
        head = {t for o, _, t in self.blueprint.named_tensors() if o.stage == HEAD}
        first = self._first_batch()
        images = first.images
        recorded = trainer.activations(images[:RECORDED_IMAGES])
        pixels = {"inference": recorded.pop(INPUT)}
        record("activations", recorded)
        tensors = trainer.tensors()
        record("initial_head", {n: t for n, t in tensors.items() if n in head})
        record("logits", {"logits": trainer.logits([trainer.infer(images)])})
        record("metrics", {"metrics": self._metrics()})
        pixels["training"] = trainer.training_pixels(trainer.to_device(self._few(first)))
        trainer.restore(tensors)  # BatchNorm's statistics may have moved
        record("pixels", pixels)

    def _few(self, batch: Batch) -> Batch:
        """Return the images of a batch whose activations are recorded."""
        few = slice(RECORDED_IMAGES)
        return Batch(batch.images[few], batch.labels[few], tuple(m[few] for m in batch.masks))

    def steps(self, learning_rate: float, record: Record) -> None:
        """Record ten steps on one fixed batch, with dropout and a schedule by step; then epochs as
        in a run, with shuffling, augmentation and a smaller last batch. Phases divide the steps,
        and the epochs, as they divide the epochs of a run."""
        recipe = self.item.recipe.model_copy(update={"learning_rate": learning_rate})
        one_batch = Split(
            self.split.images[: recipe.batch_size], self.split.labels[: recipe.batch_size]
        )
        ten_steps = recipe.model_copy(update={"epochs": STEPS, "augmentation": "none"})
        self._changed.clear()
        self._frozen_before = self._tensors(frozen=True)
        losses: dict[str, Array] = {}
        for number, loss in enumerate(self._train(one_batch, ten_steps), start=1):
            losses[f"step {number}"] = np.array([loss])
            if number == 1:
                record("state_after_one_step", self._tensors(frozen=False))
        logits = self.trainer.logits([self.trainer.infer(np.array(self.split.images))])
        # The first step's batch and masks once more: other masks alone would move the loss.
        losses[FIRST_BATCH_AGAIN] = np.array([next(self._train(one_batch, ten_steps))])
        epochs = enumerate(self._train(self.split, recipe), start=1)
        epoch_losses = {f"step {number}": np.array([loss]) for number, loss in epochs}
        record("losses", losses)
        record("logits_after_steps", {"logits": logits})
        record("epoch_losses", epoch_losses)
        after = self.trainer.logits([self.trainer.infer(np.array(self.split.images))])
        record("logits_after_epochs", {"logits": after})
        self._note_changes()
        record("restored_losses", self._from_start(one_batch, ten_steps, self._images))
        record("resumed", self._resumed(one_batch, ten_steps))
        record("frozen", {"changed": np.array(self._changed)})

    def _images(self, batch: Batch) -> Array:
        return batch.images

    def _from_start(
        self, split: Split, recipe: Recipe, inputs: Callable[[Batch], Array]
    ) -> RecordedValues:
        """Go back to the start, as a search for a learning rate does, and record the losses of two
        steps on ``inputs`` of the first batches."""
        self.trainer.restore(self.start)
        batches = self._batches(split, recipe, self._plan)
        found: dict[str, Array] = {}
        for number in range(2):
            with closing(batches.epoch(number)) as epoch:
                batch = next(epoch)
            batch = batch._replace(images=inputs(batch))
            at = number, 0
            handle = take_step(self.trainer, batch, recipe, at, batches.steps_per_epoch)
            found[f"step {number + 1}"] = np.array(self.trainer.losses([handle]))
        return found

    def _resumed(self, split: Split, recipe: Recipe) -> RecordedValues:
        """Record the value at the boundary as each form of the frozen prefix computes it and as the
        whole network does, and the losses of two steps that start from it; nothing where nothing
        is frozen."""
        boundary = boundary_of(self.blueprint, self._plan)
        if boundary is None:
            return {}
        self.trainer.restore(self.start)
        try:
            return self._resumed_at(boundary, split, recipe)
        except Exception:  # that one backend cannot do it is a difference
            traceback.print_exc()
            return {"plain": np.array([np.nan])}

    def _resumed_at(self, boundary: Boundary, split: Split, recipe: Recipe) -> RecordedValues:
        found: dict[str, Array] = {}
        images = np.array(split.images)
        forms: tuple[Form, ...] = ("plain", "folded")
        for form in forms:
            prefix = build_prefix(
                form, self._adapter, self.trainer, self.blueprint, boundary, recipe, self._device
            )
            found[form] = prefix.values([prefix.prefix(images)])
            prefix.synchronise()
        recorded = self.trainer.activations(images[:RECORDED_IMAGES])[boundary.value]
        found["activation"] = np.moveaxis(recorded, 1, -1) if recorded.ndim == 4 else recorded
        return {**found, **self._from_start(split, recipe, self._values)}

    def _values(self, batch: Batch) -> Array:
        return self.trainer.values([self.trainer.prefix(batch.images)])

    def _note_changes(self) -> None:
        """Note for each tensor that was to stay frozen whether it changed."""
        after = self._tensors(frozen=True)
        before = sorted(self._frozen_before.items())
        self._changed += [float(not np.array_equal(after[n], t)) for n, t in before]

    def _enter(self, policy: Policy) -> None:
        """Continue under a phase's policy with a rebuilt network and the current tensors, as a run
        does."""
        if policy == self._policy:
            return
        self._note_changes()
        tensors = self.trainer.tensors()
        del self.trainer  # frees memory for the next one
        self._frozen_before.clear()
        gc.collect()
        self._build(policy, tensors)
        self._frozen_before = self._tensors(frozen=True)

    def _tensors(self, frozen: bool) -> dict[str, Array]:
        """Return the frozen tensors, or all others."""
        tensors = self.trainer.tensors().items()
        return {n: t for n, t in tensors if (n in self._plan.frozen) == frozen}

    def _train(self, split: Split, recipe: Recipe) -> Iterator[float]:
        """Train and yield the loss of each step."""
        for phase in phases_of(self.blueprint, self.item.policy, recipe.epochs):
            self._enter(phase.policy)
            own = phase.recipe(recipe)
            batches = self._batches(split, recipe, self._plan)
            for epoch in phase.numbers:
                for index, batch in enumerate(batches.epoch(epoch)):
                    at = epoch - phase.first_epoch, index
                    handle = take_step(self.trainer, batch, own, at, batches.steps_per_epoch)
                    yield from self.trainer.losses([handle])

    def _first_batch(self) -> Batch:
        with closing(self._batches(self.split, self.item.recipe, self._plan).epoch(0)) as batches:
            return next(batches)

    def _metrics(self) -> Array:
        """Return top-1 and loss of random logits by the training loop, and the framework's loss."""
        random = np.random.default_rng(SEED)
        logits = random.normal(0.0, 3.0, (64, CLASSES))
        labels = random.integers(0, CLASSES, 64)
        ours = top1(logits, labels), cross_entropy(logits, labels)
        return np.array([*ours, self.trainer.cross_entropy(logits, labels)])


def loss_fall(folder: Path) -> float:
    """Return the fraction by which the steps lowered the loss of the first batch under the same
    dropout masks, from the file of the level ``losses``; NaN if the loss is not finite."""
    losses = read(folder, "losses")
    return float(1.0 - losses[FIRST_BATCH_AGAIN][0] / losses["step 1"][0])


def _noise_floors(
    subject: Probe, measured: Path, parts: tuple[Part, ...], learning_rate: float,
    good_enough: Callable[[dict[str, float]], bool] = lambda floors: True,
) -> dict[str, float]:  # fmt: skip
    """Return level → noise floor: the largest relative difference from what was ``measured`` when
    all tensors are perturbed by a last bit, the worst of several perturbations. Further
    perturbations are skipped where the floors so far are not good enough."""
    worst: dict[str, float] = {}

    def compare(level: str, values: RecordedValues) -> None:
        if LEVELS[level]["fp64"] > 0.0 and level not in WITHOUT_FLOOR:
            group_of = grouping(level, subject.blueprint)
            found = max_relative_difference(read(measured, level), values, group_of).value
            worst[level] = max(worst.get(level, 0.0), found)

    for number in range(subject.item.perturbations):
        subject.trainer.restore(Perturbed(subject.start, number))
        subject.measure(parts, learning_rate, compare)
        if not good_enough(worst):
            break
    subject.trainer.restore(subject.start)
    return worst


def losses_are_quiet(floors: dict[str, float], precision: Precision) -> bool:
    """Return True if the noise floor of the losses is below a tenth of their tolerance."""
    needed = set(tolerances.NEED_LOW_FLOOR) - set(tolerances.MAY_BE_NOISY[precision])
    return all(
        tolerances.FLOOR_MARGIN * value < LEVELS[level][precision]
        for level, value in floors.items()
        if level in needed
    )


@dataclass
class _Attempt:
    """Ten steps at one learning rate."""

    rate: float
    folder: Path
    floors: dict[str, float]
    """Empty if the loss hardly fell."""
    conclusive: bool
    """True if the loss fell and noise hides no difference."""
    may_be_high: bool
    """True if the loss fell, rose by half or is not finite: no higher rate is needed."""

    def keep(self, out: Path) -> None:
        """Move the files of this attempt into ``out`` and remove those of other attempts."""
        for path in self.folder.iterdir():
            path.replace(out / path.name)
        for folder in out.glob(f"{ATTEMPT}*"):
            shutil.rmtree(folder)


def _attempt(subject: Probe, out: Path, rate: float) -> _Attempt:
    folder = out / f"{ATTEMPT}{rate:g}"
    subject.trainer.restore(subject.start)
    subject.steps(rate, partial(write, folder))
    fall = loss_fall(folder)
    learned = fall >= tolerances.MIN_LOSS_FALL
    quiet = partial(losses_are_quiet, precision=subject.item.recipe.precision)
    floors = _noise_floors(subject, folder, ("steps",), rate, quiet) if learned else {}
    may_be_high = learned or not math.isfinite(fall) or fall < -0.5
    return _Attempt(rate, folder, floors, learned and quiet(floors), may_be_high)


def _find_learning_rate(subject: Probe, out: Path) -> _Attempt:
    """Return the steps at a learning rate that lowers the loss without chaos; if there is none, the
    steps at the first rate. The search goes down ``LEARNING_RATES`` if the first rate is chaotic,
    and up if the loss hardly falls."""
    recipe = subject.item.recipe
    known = tolerances.LEARNING_RATES[recipe.optimizer]
    rates = sorted({*known, recipe.learning_rate}, reverse=True)
    at = rates.index(recipe.learning_rate)
    first = _attempt(subject, out, rates[at])
    if first.conclusive:
        return first
    up, down = rates[:at][::-1], rates[at + 1 :]
    for upwards in (False, True) if first.may_be_high else (True, False):
        for rate in up if upwards else down:
            attempt = _attempt(subject, out, rate)
            if attempt.conclusive:
                return attempt
            if upwards == attempt.may_be_high:
                break
    if not first.floors:
        first.floors = _noise_floors(subject, first.folder, ("steps",), first.rate)
    return first
