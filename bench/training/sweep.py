"""Sweeps: many linear heads on the same values, trained at once, each as if it were alone.

A sweep is a set of runs that differ only in learning rate, weight decay or seed, with everything
before a linear head frozen. Its results have accuracies and no speed, as no time belongs to one of
the runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data import Packed, data_sha256, load_packed, packed_path
from bench.errors import Unavailable
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase
from bench.spec.result import Fingerprint, RunResult
from bench.spec.run import Recipe, RunSpec
from bench.training.adapter import Adapter, Heads, HeadsTrainer, MatchedTrainer
from bench.training.batches import TrainingBatches, input_threads, view_batches
from bench.training.fingerprint import finite
from bench.training.fit import FIRST_LOSSES, FrozenChanged, add_loss, add_test, add_validation
from bench.training.job import run_result
from bench.training.measurements import all_knobs, count_fields, prefix_fields, work_fields
from bench.training.predictions import save_predictions
from bench.training.prefix_cache import CachedPrefix, cached_prefix_of_run
from bench.training.schedule import learning_rate
from bench.workers.events import OnEvent, SweepEpoch
from bench.workers.tasks import RunTask


def sweep_key(spec: RunSpec) -> str | None:
    """Return a key equal for runs that are trained at once, None for a run trained alone."""
    if not spec.recipe.sweep:
        return None
    recipe = spec.recipe.model_copy(update={"learning_rate": 1.0, "weight_decay": 1.0})
    seed = spec.seed if spec.weights.kind == "random" else 0  # it decides the frozen part
    return spec.model_copy(update={"recipe": recipe, "seed": seed}).run_id


def may_sweep(policy_boundary: str, recipe: Recipe, mode: str) -> bool:
    """Return True if runs can be trained at once: linear heads over values that repeat, which those
    of a single epoch do not."""
    return (
        mode == "matched"
        and policy_boundary == "head"
        and recipe.head == "linear"
        and recipe.augmentation == "none"
        and recipe.prefix_cache == "auto"
        and recipe.precision in ("fp32", "fp64")
        and recipe.compile == "plain"
        and recipe.epochs > 1
        and not recipe.learning_rate_grid
    )


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
    """Return the heads of a sweep at their ``first`` weight (C, F) and bias (C,), one a seed."""
    shape = len(layout.seeds), layout.width
    rates, decays = np.zeros(shape), np.zeros(shape)
    for spec, place in zip(specs, layout.places, strict=True):
        rates[place], decays[place] = spec.recipe.learning_rate, spec.recipe.weight_decay
    weights, biases = (
        np.stack([np.stack([part] * layout.width) for part in parts])
        for parts in zip(*first, strict=True)
    )
    return Heads(weights, biases, rates, decays)


def run_sweep(task: RunTask, adapter: Adapter, emit: OnEvent) -> list[RunResult]:
    """Do the runs of a task, of equal ``sweep_key``, at once; write ``predictions.npz`` for each.

    Raise Unavailable if there is no room for the values that the heads read, and FrozenChanged if a
    frozen tensor changed.
    """
    began = time.perf_counter()
    specs, packed = task.specs, load_packed(packed_path(task.packed))
    assert task.blueprint is not None
    layout, recipe = layout_of(specs), specs[0].recipe
    trunk = Network.load(blueprint_path(task.blueprint), trunk_only=True)
    networks = [attach_head(trunk, recipe.head, len(packed.classes), s) for s in layout.seeds]
    network = networks[0]
    head = network.blueprint.operations[-1].tensors
    names = head["weight"], head["bias"]
    plan = plan_training(network.blueprint, specs[0].policy)
    trainer = adapter.build(network, plan, recipe, specs[0].device)
    before = trainer.tensors()
    frozen_sha256 = plan.frozen_sha256(before)
    cached, why = cached_prefix_of_run(
        specs[0], network, plan, plan.frozen_sha256(network.tensors), packed, adapter, trainer,
        task.environment_id, emit,
    )  # fmt: skip
    if cached is None:
        raise Unavailable(f"heads can be trained at once only on cached values; {why}")
    heads = heads_of(specs, layout, [(n.tensors[names[0]], n.tensors[names[1]]) for n in networks])
    heads_trainer = adapter.build_heads(heads, recipe, specs[0].device)
    found, logits = _train_heads(
        specs, layout, heads_trainer, cached, _test_values(trainer, packed, specs[0]), packed, emit
    )
    if plan.frozen_sha256(trainer.tensors()) != frozen_sha256:
        raise FrozenChanged
    seconds = time.perf_counter() - began - cached.spent_s + cached.seconds
    note = f"trained at once with {len(specs) - 1} others in {seconds:.2g} s: no speed is its own"
    common = {
        **count_fields(trainer),
        **work_fields(network.blueprint, [Phase(specs[0].policy, 0, recipe.epochs)]),
        "frozen_state_sha256": frozen_sha256,
        **prefix_fields(cached),
        "data_sha256": data_sha256(packed),
        "sweep_runs": len(specs),
        "sweep_s": seconds,
        "knobs": all_knobs(network, trainer),
        "notes": [note, *([cached.note] if cached.note else [])],
    }
    hashes = [_hashes(n, before, names) for n in networks]
    results = []
    for index, (spec, place) in enumerate(zip(specs, layout.places, strict=True)):
        if (answer := logits[index]) is not None:
            save_predictions(
                Path(task.folders[index]), answer, packed.test.labels, packed.test.groups
            )
        fields = {**common, **found[index], **hashes[place[0]]}
        results.append(run_result(spec, task.environment_id, fields))
    return results


def _train_heads(
    specs: Sequence[RunSpec], layout: SweepLayout, trainer: HeadsTrainer, values: CachedPrefix,
    test_values: Array, packed: Packed, emit: OnEvent,
) -> tuple[list[dict[str, Any]], list[Array | None]]:  # fmt: skip
    """Train all heads of a sweep, validate each after every epoch, and test each once.

    ``values`` and ``test_values`` take the place of the images: F features for each.

    Returns:
        For each run, the fields of ``RunResult`` that are not common to the sweep; and its test
        logits (N, C), None if it diverged.
    """
    recipe = specs[0].recipe.model_copy(update={"learning_rate": 1.0})
    indices = np.arange(len(packed.train.labels)).reshape(-1, 1)
    batches = [TrainingBatches(packed.train, recipe, (), s, values=indices) for s in layout.seeds]
    found: list[dict[str, Any]] = [
        {"train_loss_by_epoch": [], "val_top1_by_epoch": []} for _ in specs
    ]
    for epoch in range(recipe.epochs):
        steps = _train_epoch(epoch, recipe, batches, trainer, values.train)
        losses = steps.mean
        logits = trainer.logits(values.val)
        for spec, fields, place in zip(specs, found, layout.places, strict=True):
            rate = spec.recipe.learning_rate
            if epoch == 0:
                first = [float(step[place]) for step in steps.first]
                fields["fingerprint"] = Fingerprint(step_losses=finite(first))
            if "failure" not in fields and add_loss(fields, float(losses[place]), epoch, rate):
                add_validation(fields, logits[place], packed.val.labels, epoch)
        best = max((f["val_top1_by_epoch"] or [None])[-1] or 0.0 for f in found)
        emit(SweepEpoch(epoch=epoch + 1, epochs=recipe.epochs, val_top1=best))
    logits = trainer.logits(test_values)
    predictions: list[Array | None] = []
    for fields, place in zip(found, layout.places, strict=True):
        fields["batches_sha256"] = batches[place[0]].sha256()
        own = logits[place]
        is_good = "failure" not in fields and add_test(fields, own, packed.test.labels)
        predictions.append(own if is_good else None)
    return found, predictions


class _EpochLosses(NamedTuple):
    """Losses of the heads of a sweep in one epoch."""

    mean: Array
    """(S, R) mean losses over the images."""
    first: Array
    """(steps, S, R) losses of the first steps."""


def _train_epoch(
    epoch: int, recipe: Recipe, batches: Sequence[TrainingBatches], trainer: HeadsTrainer,
    values: Array,
) -> _EpochLosses:  # fmt: skip
    """Train an epoch on values (N, F)."""
    steps = batches[0].steps_per_epoch
    handles, weights = [], []
    orders = zip(*(b.epoch(epoch) for b in batches), strict=True)
    for index, parts in enumerate(orders):
        chosen = np.stack([part.images[:, 0] for part in parts])
        labels = np.stack([part.labels for part in parts])
        factor = learning_rate(recipe, epoch * steps + index, recipe.epochs * steps)
        handles.append(trainer.step(values[chosen], labels, factor))
        weights.append(chosen.shape[1])
    losses = trainer.losses(handles)
    return _EpochLosses(np.average(losses, axis=0, weights=weights), losses[:FIRST_LOSSES])


def _test_values(trainer: MatchedTrainer, packed: Packed, spec: RunSpec) -> Array:
    """Compute (N, F) values of the test images, the only use of that split.

    The plain network computes them, so that a run by itself would give the same logits.
    """
    threads = input_threads(spec.device)
    batches = view_batches(packed.test, spec.recipe, spec.seed, False, threads, trainer.host_array)
    return trainer.values([trainer.prefix(images) for images in batches])


def _hashes(network: Network, state: dict[str, Array], head: tuple[str, str]) -> dict[str, str]:
    """Hash a seed's network, and all its tensors at the start in the precision of training."""
    own = {name: network.tensors[name].astype(state[name].dtype) for name in head}
    initial = hash_tensors({**state, **own})
    return {"initial_state_sha256": initial, "blueprint_sha256": network.sha256()}
