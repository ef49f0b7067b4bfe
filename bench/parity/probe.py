"""One backend measured for a proof, inside its worker."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Split
from bench.network.blueprint import HEAD, INPUT, Array, Blueprint, Network
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.head import attach_head
from bench.network.phases import phases_of
from bench.parity.compare import gap, operation_of
from bench.parity.exchange import RecordedValues, read, write, write_facts
from bench.parity.inputs import Nudged
from bench.parity.model import Part
from bench.parity.tolerances import (
    BLUNT,
    CLASSES,
    FLOOR_FACTOR,
    FLOORED,
    LEARNING_RATES,
    LEAST_FALL,
    LEVELS,
    SEED,
    STEPS,
)
from bench.spec.run import Policy, Precision, Recipe
from bench.training.adapter import Adapter, Inspectable
from bench.training.batches import TrainingBatches
from bench.training.fit import build_phase, take_step
from bench.training.metrics import cross_entropy, top1
from bench.workers.tasks import ProbeItem

AGAIN = "the first step's batch after all steps"
ATTEMPT = "rate-"
"""Beginning of the folder of an attempt at a learning rate."""
RECORDED_IMAGES = 2
"""Images whose every activation is kept."""
Take = Callable[[str, RecordedValues], None]
"""What is done with a level's values as soon as they are there: only then they need not all be in
memory at once, and VGG19's are a gigabyte a level."""
Build = Callable[[Policy, dict[str, Array]], Inspectable]
Batches = Callable[[Split, Recipe, TrainingPlan], TrainingBatches]


def make_batches(split: Split, recipe: Recipe, plan: TrainingPlan) -> TrainingBatches:
    """The batches of a proof: those of a run."""
    return TrainingBatches(split, recipe, plan.dropouts, SEED)


@dataclass
class Probe:
    """A network built by one backend, and what is asked of it."""

    trainer: Inspectable
    """Of the backend; in steps, of the phase that they are in."""
    blueprint: Blueprint
    """With its head."""
    item: ProbeItem
    """What is measured."""
    split: Split
    """Training images."""
    build: Build
    """Builds the network of a phase."""
    batches: Batches = make_batches
    """Where the batches come from."""

    def __post_init__(self) -> None:
        self._policy = self.item.policy
        self.plan = plan_training(self.blueprint, self._policy)
        self._before: dict[str, Array] = {}
        self._changed: list[float] = []

    def measure(self, parts: tuple[Part, ...], learning_rate: float, take: Take) -> None:
        """Values of every level of ``parts``, from the trainer as it stands."""
        for part in parts:
            if part == "steps":
                self.steps(learning_rate, take)
            else:
                {"forward": self.forward, "gradients": self.gradients}[part](take)

    def forward(self, take: Take) -> None:
        """What does not depend on the optimizer or on what trains."""
        trainer = self.trainer
        head = {t for o, _, t in self.blueprint.named_tensors() if o.stage == HEAD}
        images = self._first_batch().images
        recorded = trainer.activations(images[:RECORDED_IMAGES])
        take("pixels", {"pixels": recorded.pop(INPUT)})
        take("activations", recorded)
        take("initial_head", {n: t for n, t in trainer.tensors().items() if n in head})
        take("logits", {"logits": trainer.logits([trainer.infer(images)])})
        take("metrics", {"metrics": self._metrics()})

    def gradients(self, take: Take) -> None:
        """Of the first batch, in training form."""
        prepared = self.trainer.to_device(self._first_batch())
        _, found = self.trainer.gradients(prepared)
        take("gradients", found)

    def steps(self, learning_rate: float, take: Take) -> None:
        """Ten steps on one fixed batch, with dropout and a schedule by the step; then epochs as a
        run has them: order, augmentation, a last batch of fewer images.

        Phases divide the steps, and the epochs, as they do a run's epochs.
        """
        size = self.item.recipe.batch_size
        one_batch = Split(self.split.images[:size], self.split.labels[:size])
        recipe = self.item.recipe.model_copy(
            update={"learning_rate": learning_rate, "epochs": STEPS, "augmentation": "none"}
        )
        self._changed.clear()
        self._watch()
        losses: dict[str, Array] = {}
        for number, loss in enumerate(self._train(one_batch, recipe), start=1):
            losses[f"step {number}"] = np.array([loss])
            if number == 1:
                take("state_after_one_step", self._state())
        logits = self.trainer.logits([self.trainer.infer(np.array(self.split.images))])
        # The first step's batch and masks once more: other masks alone would move the loss.
        losses[AGAIN] = np.array([next(self._train(one_batch, recipe))])
        recipe = self.item.recipe.model_copy(update={"learning_rate": learning_rate})
        epochs = enumerate(self._train(self.split, recipe), start=1)
        epoch_losses = {f"step {number}": np.array([loss]) for number, loss in epochs}
        take("losses", losses)
        take("logits_after_steps", {"logits": logits})
        take("epoch_losses", epoch_losses)
        self._compare()
        take("frozen", {"changed": np.array(self._changed)})

    def _watch(self) -> None:
        """Remember what must not change from now on."""
        self._before = self._frozen()

    def _compare(self) -> None:
        """Note what has changed of it."""
        after = self._frozen()
        before = sorted(self._before.items())
        self._changed += [float(not np.array_equal(after[n], t)) for n, t in before]

    def _enter(self, policy: Policy) -> None:
        """Go on under a phase's policy, as a run does: with the network built anew from the
        tensors as they are."""
        if policy == self._policy:
            return
        self._compare()
        tensors = self.trainer.tensors()
        del self.trainer  # so that there is memory for the next one
        self._before.clear()
        gc.collect()
        self.trainer = self.build(policy, tensors)
        self._policy, self.plan = policy, plan_training(self.blueprint, policy)
        self._watch()

    def _frozen(self) -> dict[str, Array]:
        """The tensors that must not change."""
        return {n: t for n, t in self.trainer.tensors().items() if n in self.plan.frozen}

    def _state(self) -> dict[str, Array]:
        """The tensors that may."""
        return {n: t for n, t in self.trainer.tensors().items() if n not in self.plan.frozen}

    def _train(self, split: Split, recipe: Recipe) -> Iterator[float]:
        """The loss of each step."""
        for phase in phases_of(self.blueprint, self.item.policy, recipe.epochs):
            self._enter(phase.policy)
            own = phase.recipe(recipe)
            batches = self.batches(split, recipe, self.plan)
            for epoch in phase.numbers:
                for index, batch in enumerate(batches.epoch(epoch)):
                    at = epoch - phase.first_epoch, index
                    handle = take_step(self.trainer, batch, own, at, batches.steps_per_epoch)
                    yield from self.trainer.losses([handle])

    def _first_batch(self) -> Any:
        batches = self.batches(self.split, self.item.recipe, self.plan).epoch(0)
        try:
            return next(batches)
        finally:
            batches.close()

    def _metrics(self) -> Array:
        """Top-1 and loss of given logits by the loop, and the loss by the framework's function."""
        random = np.random.default_rng(SEED)
        logits = random.normal(0.0, 3.0, (64, CLASSES))
        labels = random.integers(0, CLASSES, 64)
        ours = top1(logits, labels), cross_entropy(logits, labels)
        return np.array([*ours, self.trainer.cross_entropy(logits, labels)])


def probe(
    adapter: Adapter,
    item: ProbeItem,
    split: Split,
    device: str,
    out: Path,
    floors: bool,
    batches: Batches = make_batches,
) -> dict[str, Any]:
    """Measure one item and leave the files of its levels in ``out``.

    Args:
        adapter: The backend.
        item: What to measure.
        split: Training images: one and a half batches.
        device: To compute on.
        out: Folder for the files.
        floors: Whether to measure how far this backend moves by itself, and to search for a
            learning rate at which the steps prove something.
        batches: Where the batches come from; tests plant defects here.

    Returns:
        learning_rate, loss_fall and floors, as written into ``facts.json``.
    """
    network = attach_head(
        Network.load(blueprint_path(item.blueprint)), item.recipe.head, CLASSES, SEED
    )
    blueprint = network.blueprint

    def build(policy: Policy, tensors: dict[str, Array]) -> Inspectable:
        return build_phase(adapter, blueprint, tensors, policy, item.recipe, device)[0]

    first = build(item.policy, network.tensors)
    del network  # the framework has its own copy
    subject = Probe(first, blueprint, item, split, build, batches)
    del first
    start = subject.trainer.tensors()
    facts: dict[str, Any] = {"floors": {}, "learning_rate": item.learning_rate}
    still = tuple(p for p in item.parts if p != "steps")
    subject.measure(still, item.recipe.learning_rate, into(out))
    if floors and still:
        facts["floors"] |= _floors(subject, start, out, still, item.recipe.learning_rate)
    if "steps" in item.parts:
        subject.trainer.restore(start)
        if floors:
            found = _search(subject, start, out)
            rate = found.rate
            facts["floors"] |= found.floors
            found.settle(out)
        else:
            rate = item.learning_rate or item.recipe.learning_rate
            subject.steps(rate, into(out))
        facts |= {"learning_rate": rate, "loss_fall": loss_fall(out)}
    write_facts(out, facts)
    return facts


def into(folder: Path) -> Take:
    """Writes each level's file."""
    return lambda level, values: write(folder, level, values)


def loss_fall(folder: Path) -> float:
    """By which fraction the first batch's loss, with the same dropout masks, is lower after the
    steps than before them; NaN where it is not finite.

    Args:
        folder: With the file of the level ``losses``.
    """
    losses = read(folder, "losses")
    return float(1.0 - losses[AGAIN][0] / losses["step 1"][0])


def _floors(
    subject: Probe,
    start: dict[str, Array],
    measured: Path,
    parts: tuple[Part, ...],
    learning_rate: float,
    good_enough: Callable[[dict[str, float]], bool] = lambda floors: True,
) -> dict[str, float]:
    """Level → how far the same measurement moves, the worst of the nudges.

    Stops early where ``good_enough`` says no.

    Args:
        measured: Folder with what was measured without a nudge.
    """
    worst: dict[str, float] = {}
    group = operation_of(subject.blueprint)

    def compare(level: str, values: RecordedValues) -> None:
        if LEVELS[level]["fp64"] > 0.0 and level != "metrics":
            by_operation = level in ("gradients", "state_after_one_step")
            found = gap(read(measured, level), values, group if by_operation else str).value
            worst[level] = max(worst.get(level, 0.0), found)

    for number in range(subject.item.nudges):
        subject.trainer.restore(Nudged(start, number))
        subject.measure(parts, learning_rate, compare)
        if not good_enough(worst):
            break
    subject.trainer.restore(start)
    return worst


@dataclass
class _Attempt:
    """Ten steps at one learning rate."""

    rate: float
    folder: Path
    fall: float
    floors: dict[str, float]
    precision: Precision

    def settle(self, out: Path) -> None:
        """Put the files of this attempt into ``out`` and remove those of the others."""
        for path in self.folder.iterdir():
            path.replace(out / path.name)
        for folder in out.glob(f"{ATTEMPT}*"):
            shutil.rmtree(folder)

    @property
    def moved(self) -> bool:
        """Whether the loss fell far enough to prove something."""
        return self.fall >= LEAST_FALL

    @property
    def lost(self) -> bool:
        """Whether the loss left the finite numbers or rose by half: the rate is far too high."""
        return not math.isfinite(self.fall) or self.fall < -0.5

    @property
    def good(self) -> bool:
        """Whether it moved and no floor spoils a figure."""
        return self.moved and counts(self.floors, self.precision)


def counts(floors: dict[str, float], precision: Precision) -> bool:
    """Whether every loss is sharp: its floor below a tenth of its tolerance."""
    return all(
        FLOOR_FACTOR * value < LEVELS[level][precision]
        for level, value in floors.items()
        if level in FLOORED and level not in BLUNT[precision]
    )


def _attempt(subject: Probe, start: dict[str, Array], out: Path, rate: float) -> _Attempt:
    recipe = subject.item.recipe
    folder = out / f"{ATTEMPT}{rate:g}"
    subject.trainer.restore(start)
    subject.steps(rate, into(folder))
    attempt = _Attempt(rate, folder, loss_fall(folder), {}, recipe.precision)
    if attempt.moved:
        sharp = partial(counts, precision=recipe.precision)
        attempt.floors = _floors(subject, start, folder, ("steps",), rate, sharp)
    return attempt


def _search(subject: Probe, start: dict[str, Array], out: Path) -> _Attempt:
    """The steps at a learning rate that lowers the loss and is not chaotic; if there is none, those
    where the search began.

    Goes down the catalogue's rates where the first one is chaotic, and up where nothing moves.
    """
    recipe = subject.item.recipe
    rates = sorted({*LEARNING_RATES[recipe.optimizer], recipe.learning_rate}, reverse=True)
    at = rates.index(recipe.learning_rate)
    first = _attempt(subject, start, out, rates[at])
    if first.good:
        return first
    up, down = rates[:at][::-1], rates[at + 1 :]
    for upwards in (False, True) if first.moved or first.lost else (True, False):
        for rate in up if upwards else down:
            attempt = _attempt(subject, start, out, rate)
            if attempt.good:
                return attempt
            too_high = attempt.moved or attempt.lost
            if upwards == too_high:
                break
    if not first.floors:
        first.floors = _floors(subject, start, first.folder, ("steps",), first.rate)
    return first
