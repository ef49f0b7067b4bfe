"""Sweeps: many linear heads on the same values, trained at once, each as if it were alone.

A sweep is a set of runs that differ only in learning rate, weight decay or seed, with everything
before a linear head frozen. Its results have accuracies and no speed, as no time belongs to one of
the runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Packed, load_packed, packed_path
from bench.errors import Unavailable
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase
from bench.spec.result import RunResult
from bench.spec.run import Recipe, RunSpec
from bench.storage.cache import cache_root
from bench.training.adapter import Adapter, Heads, HeadsTrainer, ResumingTrainer
from bench.training.batches import TrainingBatches, view_batches
from bench.training.fit import FrozenChanged, logits_failure, loss_failure
from bench.training.job import Emit, save_predictions
from bench.training.measurements import all_knobs, count_fields, prefix_fields, work_fields
from bench.training.metrics import evaluate
from bench.training.prefix_cache import CachedPrefix, cached_prefix_of_run
from bench.training.schedule import learning_rate
from bench.workers.tasks import RunTask

IGNORED = {"learning_rate", "weight_decay"}
"""Fields of the recipe in which the runs of a sweep may differ."""


def sweep_key(spec: RunSpec) -> tuple[Any, ...] | None:
    """Return a key equal for runs that are trained at once, None for a run trained alone."""
    if not spec.recipe.sweep:
        return None
    seed = spec.seed if spec.weights.kind == "random" else None  # it decides the frozen part
    common = spec.model_copy(
        update={
            "recipe": spec.recipe.model_copy(update=dict.fromkeys(IGNORED, 1.0)),
            "seed": seed if seed is not None else 0,
        }
    )
    return (common.run_id,)


def may_sweep(policy_boundary: str, recipe: Recipe, mode: str) -> bool:
    """Return True if runs can be trained at once: linear heads over values that repeat."""
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
class HeadInputs:
    """The values of the frozen prefix for a data set, F features for each image."""

    train: Array
    """(N, F)."""
    val: Array
    """(N, F)."""
    test: Array
    """(N, F)."""


@dataclass(frozen=True)
class SweepLayout:
    """The place of each run's head among S seeds of R heads."""

    seeds: tuple[int, ...]
    """Seeds in ascending order."""
    places: tuple[tuple[int, int], ...]
    """(index of the seed, index of the head) of each run."""
    width: int
    """R: the largest number of runs of a seed; other seeds are filled up with unused heads."""


def layout_of(specs: Sequence[RunSpec]) -> SweepLayout:
    """Lay out the runs of a sweep."""
    seeds = tuple(sorted({spec.seed for spec in specs}))
    taken = dict.fromkeys(seeds, 0)
    places = []
    for spec in specs:
        places.append((seeds.index(spec.seed), taken[spec.seed]))
        taken[spec.seed] += 1
    return SweepLayout(seeds, tuple(places), max(taken.values()))


def heads_of(
    specs: Sequence[RunSpec], layout: SweepLayout, first: Sequence[tuple[Array, Array]]
) -> Heads:
    """Return the heads of a sweep at their start.

    Args:
        first: Weight (C, F) and bias (C,) for each seed.
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
    layout: SweepLayout,
    trainer: HeadsTrainer,
    values: HeadInputs,
    packed: Packed,
    emit: Emit,
) -> tuple[list[dict[str, Any]], list[Array | None]]:
    """Train all heads of a sweep, validate each after every epoch, and test each once.

    Args:
        trainer: Holds the heads at their start.
        values: Read in place of the images.
        packed: Provides the labels.
        emit: Takes progress events.

    Returns:
        For each run, the fields of ``RunResult`` that are not common to the sweep; and its test
        logits (N, C), None if it diverged.
    """
    recipe = specs[0].recipe.model_copy(update={"learning_rate": 1.0})
    indices = np.arange(len(packed.train.labels)).reshape(-1, 1)
    batches = [
        TrainingBatches(packed.train, recipe, (), seed, values=indices) for seed in layout.seeds
    ]
    found: list[dict[str, Any]] = [
        {"train_loss_by_epoch": [], "val_top1_by_epoch": []} for _ in specs
    ]
    for epoch in range(recipe.epochs):
        losses = _train_epoch(epoch, recipe, batches, trainer, values)
        logits = trainer.logits(values.val)
        for spec, fields, place in zip(specs, found, layout.places, strict=True):
            if "failure" not in fields:
                _add_epoch(spec, fields, epoch, float(losses[place]), logits[place], packed)
        best = max((f["val_top1_by_epoch"] or [None])[-1] or 0.0 for f in found)
        emit({"event": "sweep", "epoch": epoch + 1, "epochs": recipe.epochs, "val_top1": best})
    logits = trainer.logits(values.test)
    predictions: list[Array | None] = []
    for fields, place in zip(found, layout.places, strict=True):
        fields["batches_sha256"] = batches[place[0]].sha256()
        predictions.append(_add_test(fields, logits[place], packed))
    return found, predictions


def _train_epoch(
    epoch: int,
    recipe: Recipe,
    batches: Sequence[TrainingBatches],
    trainer: HeadsTrainer,
    values: HeadInputs,
) -> Array:
    """Train an epoch; return the (S, R) mean losses over the images."""
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


def _add_epoch(
    spec: RunSpec, fields: dict[str, Any], epoch: int, loss: float, logits: Array, packed: Packed
) -> None:
    fields["train_loss_by_epoch"].append(loss if math.isfinite(loss) else None)
    failure = loss_failure(loss, epoch, spec.recipe.learning_rate)
    if failure is None:
        failure = logits_failure(logits, epoch)
        top1 = None if failure else evaluate("val", logits, packed.val.labels)["val_top1"]
        fields["val_top1_by_epoch"].append(top1)
    if failure:
        fields["failure"] = failure


def _add_test(fields: dict[str, Any], logits: Array, packed: Packed) -> Array | None:
    if "failure" not in fields and (failure := logits_failure(logits)):
        fields["failure"] = failure
    if "failure" in fields:
        return None
    fields.update(evaluate("test", logits, packed.test.labels))
    return logits


def run_sweep(task: RunTask, adapter: Adapter, emit: Emit) -> list[RunResult]:
    """Do the runs of a sweep at once, and write ``predictions.npz`` for each.

    Args:
        task: Its specs have the same ``sweep_key``.
        emit: Takes progress events.

    Raises:
        Unavailable: There is no room for the values that the heads read.
        FrozenChanged: A frozen tensor changed.
    """
    began = time.perf_counter()
    specs, packed = task.specs, load_packed(packed_path(task.packed))
    assert task.blueprint is not None
    layout, recipe = layout_of(specs), specs[0].recipe
    trunk = Network.load(blueprint_path(task.blueprint), trunk_only=True)
    networks = [attach_head(trunk, recipe.head, len(packed.classes), s) for s in layout.seeds]
    network, names = networks[0], _head_names(networks[0])
    plan = plan_training(network.blueprint, specs[0].policy)
    trainer = adapter.build(network, plan, recipe, specs[0].device)
    before = trainer.tensors()
    frozen_sha256 = plan.frozen_sha256(before)
    cached, why = cached_prefix_of_run(
        specs[0], network, plan, plan.frozen_sha256(network.tensors), packed, adapter, trainer,
        cache_root(), task.environment_id, emit,
    )  # fmt: skip
    if cached is None:
        raise Unavailable(f"heads can be trained at once only on cached values; {why}")
    heads = heads_of(specs, layout, [(n.tensors[names[0]], n.tensors[names[1]]) for n in networks])
    heads_trainer = adapter.build_heads(heads, recipe, specs[0].device)
    values = HeadInputs(cached.train, cached.val, _test_values(trainer, packed, specs[0]))
    found, logits = train_heads(specs, layout, heads_trainer, values, packed, emit)
    if plan.frozen_sha256(trainer.tensors()) != frozen_sha256:
        raise FrozenChanged
    seconds = time.perf_counter() - began - cached.spent_s + cached.seconds
    phase = Phase(specs[0].policy, 0, recipe.epochs)
    common = _common(network, phase, trainer, cached, frozen_sha256, len(specs), seconds)
    hashes = [_hashes(n, before, names) for n in networks]
    results = []
    for index, spec in enumerate(specs):
        fields = {**common, **found[index], **hashes[layout.places[index][0]]}
        answer = logits[index]
        if answer is not None:
            save_predictions(Path(task.folders[index]), answer, packed)
        results.append(_result(spec, task.environment_id, fields))
    return results


def _head_names(network: Network) -> tuple[str, str]:
    """Return the tensor names of a linear head's weight and bias."""
    (tensors,) = (o.tensors for o in network.blueprint.operations[-1:])
    return tensors["weight"], tensors["bias"]


def _test_values(trainer: ResumingTrainer, packed: Packed, spec: RunSpec) -> Array:
    """Compute (N, F) values of the test images, the only use of that split.

    The plain network computes them, so that a run by itself would give the same logits.
    """
    batches = view_batches(packed.test, spec.recipe, spec.seed, augmented=False)
    return np.concatenate([trainer.values([trainer.prefix(images)]) for images in batches])


def _common(
    network: Network,
    phase: Phase,
    trainer: ResumingTrainer,
    cached: CachedPrefix,
    frozen_sha256: str,
    runs: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the fields that are equal for all runs of a sweep."""
    note = f"trained at once with {runs - 1} others in {seconds:.2g} s: no speed is its own"
    return {
        **count_fields(trainer),
        **work_fields(network.blueprint, [phase]),
        "frozen_state_sha256": frozen_sha256,
        **prefix_fields(cached, cached.is_reused),
        "sweep_runs": runs,
        "sweep_s": seconds,
        "knobs": all_knobs(network, trainer),
        "notes": [note, *([cached.note] if cached.note else [])],
    }


def _hashes(network: Network, state: dict[str, Array], head: tuple[str, str]) -> dict[str, str]:
    """Hash a seed's network, and all its tensors at the start in the precision of training."""
    own = {name: network.tensors[name].astype(state[name].dtype) for name in head}
    return {
        "initial_state_sha256": hash_tensors({**state, **own}),
        "blueprint_sha256": network.sha256(),
    }


def _result(spec: RunSpec, environment_id: str, fields: dict[str, Any]) -> RunResult:
    failure = fields.get("failure")
    return RunResult(
        run_id=spec.run_id,
        environment_id=environment_id,
        status="ok" if failure is None else failure.kind,
        **fields,
    )
