"""Many linear heads on the same values: trained at once, each as if it were alone.

A sweep is the runs that differ in learning rate, weight decay or seed alone, with everything before
a linear head frozen. Its rows have accuracies and no speed: no time in it belongs to one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.backend import Heads, HeadsTrainer
from bench.blueprint import Array
from bench.data import Packed
from bench.data.batches import TrainingBatches
from bench.result import Failure
from bench.schedule import learning_rate
from bench.scores import score
from bench.spec import Recipe, RunSpec

Report = Callable[[dict[str, Any]], None]
IGNORED = {"learning_rate", "weight_decay"}
"""Of a recipe, in which the runs of a sweep differ."""


def sweep_key(spec: RunSpec) -> tuple[Any, ...] | None:
    """What runs that can be trained at once have in common; None: it is trained by itself."""
    if not spec.recipe.sweep:
        return None
    seed = spec.seed if spec.weights.kind == "random" else None  # it makes the frozen part
    common = spec.model_copy(
        update={
            "recipe": spec.recipe.model_copy(update=dict.fromkeys(IGNORED, 1.0)),
            "seed": seed if seed is not None else 0,
        }
    )
    return (common.run_id,)


def may_sweep(policy_boundary: str, recipe: Recipe, mode: str) -> bool:
    """Whether runs of a recipe can be trained at once: linear heads over values that repeat."""
    return (
        mode == "matched"
        and policy_boundary == "head"
        and recipe.head == "linear"
        and recipe.augmentation == "none"
        and recipe.prefix_cache == "auto"
        and recipe.precision in ("fp32", "fp64")
        and not recipe.learning_rate_grid
    )


@dataclass(frozen=True)
class Values:
    """What the frozen part gives for a data set."""

    train: Array
    """(N, F)."""
    val: Array
    """(N, F)."""
    test: Array
    """(N, F)."""


@dataclass(frozen=True)
class Layout:
    """Where each run's head lies among S seeds of R heads."""

    seeds: tuple[int, ...]
    """In ascending order."""
    places: tuple[tuple[int, int], ...]
    """(seed's index, head's index) of each run."""
    width: int
    """R: most runs of a seed; where there are fewer, the rest are heads that nobody asked for."""


def layout_of(specs: Sequence[RunSpec]) -> Layout:
    """Lay out the runs of a sweep."""
    seeds = tuple(sorted({spec.seed for spec in specs}))
    taken = dict.fromkeys(seeds, 0)
    places = []
    for spec in specs:
        places.append((seeds.index(spec.seed), taken[spec.seed]))
        taken[spec.seed] += 1
    return Layout(seeds, tuple(places), max(taken.values()))


def heads_of(
    specs: Sequence[RunSpec], layout: Layout, first: Sequence[tuple[Array, Array]]
) -> Heads:
    """The heads of a sweep at their start.

    Args:
        specs: Its runs.
        layout: Of them.
        first: For each seed weight (C, F) and bias (C,).
    """
    shape = len(layout.seeds), layout.width
    rates, decays = np.zeros(shape), np.zeros(shape)
    for spec, place in zip(specs, layout.places, strict=True):
        rates[place], decays[place] = spec.recipe.learning_rate, spec.recipe.weight_decay
    weights, biases = (
        np.stack([np.stack([part] * layout.width) for part in parts])
        for parts in zip(*first, strict=True)
    )
    return Heads(weights, biases, rates, decays)


def train_heads(
    specs: Sequence[RunSpec],
    layout: Layout,
    trainer: HeadsTrainer,
    values: Values,
    packed: Packed,
    report: Report,
) -> tuple[list[dict[str, Any]], list[Array | None]]:
    """Train all heads of a sweep, validate each after every epoch, and test each once.

    Args:
        specs: Its runs.
        layout: Of them.
        trainer: With the heads at their start.
        values: That stand for the images.
        packed: With the labels.
        report: Takes progress events.

    Returns:
        For each run the fields of ``RunResult`` that are its own; and its test logits (N, C), None
        where it diverged.
    """
    recipe = specs[0].recipe.model_copy(update={"learning_rate": 1.0})
    indices = np.arange(len(packed.train.labels)).reshape(-1, 1)
    batches = [
        TrainingBatches(packed.train, recipe, (), seed, features=indices) for seed in layout.seeds
    ]
    found: list[dict[str, Any]] = [
        {"train_loss_by_epoch": [], "val_top1_by_epoch": []} for _ in specs
    ]
    for epoch in range(recipe.epochs):
        losses = _train_epoch(epoch, recipe, batches, trainer, values, packed)
        logits = trainer.logits(values.val)
        for fields, place in zip(found, layout.places, strict=True):
            if "failure" not in fields:
                _note_epoch(fields, epoch, float(losses[place]), logits[place], packed)
        best = max((f["val_top1_by_epoch"] or [None])[-1] or 0.0 for f in found)
        report({"event": "sweep", "epoch": epoch + 1, "epochs": recipe.epochs, "val_top1": best})
    logits = trainer.logits(values.test)
    answers: list[Array | None] = []
    for fields, place in zip(found, layout.places, strict=True):
        fields["batches_sha256"] = batches[place[0]].sha256()
        answers.append(_note_test(fields, logits[place], packed))
    return found, answers


def _train_epoch(
    epoch: int,
    recipe: Recipe,
    batches: Sequence[TrainingBatches],
    trainer: HeadsTrainer,
    values: Values,
    packed: Packed,
) -> Array:
    """(S, R) mean losses over the images."""
    steps = batches[0].steps_per_epoch
    handles, weights = [], []
    orders = zip(*(b.epoch(epoch) for b in batches), strict=True)
    for index, parts in enumerate(orders):
        chosen = np.stack([part.images[:, 0] for part in parts])
        labels = np.stack([part.labels for part in parts])
        factor = learning_rate(recipe, epoch * steps + index, recipe.epochs * steps)
        handles.append(trainer.step(values.train[chosen], labels, factor))
        weights.append(chosen.shape[1])
    averaged: Array = np.average(trainer.losses(handles), axis=0, weights=weights)
    return averaged


def _note_epoch(
    fields: dict[str, Any], epoch: int, loss: float, logits: Array, packed: Packed
) -> None:
    fields["train_loss_by_epoch"].append(loss if math.isfinite(loss) else None)
    if not math.isfinite(loss):
        message = (
            f"the training loss is {loss} in epoch {epoch + 1}; a smaller learning_rate may help"
        )
    elif not np.isfinite(logits).all():
        fields["val_top1_by_epoch"].append(None)
        message = f"logits in inference are not finite after epoch {epoch + 1}"
    else:
        fields["val_top1_by_epoch"].append(score(logits, packed.val.labels)[0])
        return
    fields["failure"] = Failure(kind="diverged", message=message)


def _note_test(fields: dict[str, Any], logits: Array, packed: Packed) -> Array | None:
    if "failure" not in fields and not np.isfinite(logits).all():
        message = "logits of test images are not finite"
        fields["failure"] = Failure(kind="diverged", message=message)
    if "failure" in fields:
        return None
    fields["test_top1"], fields["test_loss"] = score(logits, packed.test.labels)
    return logits
