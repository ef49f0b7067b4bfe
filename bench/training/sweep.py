"""Many linear heads on the same values: trained at once, each as if it were alone.

A sweep is the runs that differ in learning rate, weight decay or seed alone, with everything before
a linear head frozen. Its rows have accuracies and no speed: no time in it belongs to one of them.


A sweep inside a worker: from the job's files to the fields of its results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Packed, load_packed, packed_path
from bench.errors import Unavailable
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase
from bench.spec.result import Failure, RunResult
from bench.spec.run import Recipe, RunSpec
from bench.storage.cache import cache_root
from bench.training.adapter import Adapter, Heads, HeadsTrainer, ResumingTrainer
from bench.training.batches import TrainingBatches, view_batches
from bench.training.fit import FrozenChanged
from bench.training.job import Emit, save_predictions
from bench.training.measurements import all_knobs, work_fields
from bench.training.metrics import score
from bench.training.prefix_cache import Features, features_of_run
from bench.training.schedule import learning_rate
from bench.workers.tasks import RunTask

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
class FeatureValues:
    """What the frozen part gives for a data set."""

    train: Array
    """(N, F)."""
    val: Array
    """(N, F)."""
    test: Array
    """(N, F)."""


@dataclass(frozen=True)
class SweepLayout:
    """Where each run's head lies among S seeds of R heads."""

    seeds: tuple[int, ...]
    """In ascending order."""
    places: tuple[tuple[int, int], ...]
    """(seed's index, head's index) of each run."""
    width: int
    """R: most runs of a seed; where there are fewer, the rest are heads that nobody asked for."""


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
    layout: SweepLayout,
    trainer: HeadsTrainer,
    values: FeatureValues,
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
    values: FeatureValues,
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


def run_sweep(task: RunTask, adapter: Adapter, emit: Emit) -> list[RunResult]:
    """Do the runs of a sweep at once and write ``predictions.npz`` for each.

    Args:
        task: Its specs have one ``sweep_key``.
        adapter: The adapter of their framework.
        emit: Takes progress events.

    Raises:
        Unavailable: There is no room for the values that the heads read.
        FrozenChanged: Freezing did not hold.
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
    frozen_sha256 = _frozen_hash(before, plan)
    features, why = features_of_run(
        specs[0], network, plan, _frozen_hash(network.tensors, plan), packed, adapter, trainer,
        cache_root(), task.environment_id, emit,
    )  # fmt: skip
    if features is None:
        raise Unavailable(f"heads can be trained at once on kept values only; {why}")
    heads = heads_of(specs, layout, [(n.tensors[names[0]], n.tensors[names[1]]) for n in networks])
    heads_trainer = adapter.build_heads(heads, recipe, specs[0].device)
    values = FeatureValues(features.train, features.val, _test_values(trainer, packed, specs[0]))
    found, logits = train_heads(specs, layout, heads_trainer, values, packed, emit)
    if _frozen_hash(trainer.tensors(), plan) != frozen_sha256:
        raise FrozenChanged("frozen tensors changed during training; the run is void")
    seconds = time.perf_counter() - began - features.spent_s + features.seconds
    phase = Phase(specs[0].policy, 0, recipe.epochs)
    common = _common(network, phase, trainer, features, frozen_sha256, len(specs), seconds)
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
    """Of a linear head's weight and bias."""
    (tensors,) = (o.tensors for o in network.blueprint.operations[-1:])
    return tensors["weight"], tensors["bias"]


def _frozen_hash(tensors: dict[str, Array], plan: TrainingPlan) -> str:
    return hash_tensors({name: tensors[name] for name in plan.frozen})


def _test_values(trainer: ResumingTrainer, packed: Packed, spec: RunSpec) -> Array:
    """(N, F): the only use of the test split's images; as the network stands, so that a run of its
    own would give the same logits."""
    batches = view_batches(packed.test, spec.recipe, spec.seed, augmented=False)
    return np.concatenate([trainer.values([trainer.prefix(images)]) for images in batches])


def _common(
    network: Network,
    phase: Phase,
    trainer: ResumingTrainer,
    features: Features,
    frozen_sha256: str,
    runs: int,
    seconds: float,
) -> dict[str, Any]:
    """Fields in which the results of a sweep are alike."""
    counts = trainer.counts()
    note = f"trained at once with {runs - 1} others in {seconds:.2g} s: no speed is its own"
    return {
        **vars(counts),
        "frozen_parameters": counts.total_parameters - counts.trainable_parameters,
        **work_fields(network.blueprint, [phase]),
        "frozen_state_sha256": frozen_sha256,
        "prefix_values": "reused" if features.is_reused else "computed",
        "prefix_s": features.seconds,
        "prefix_form": features.form,
        "sweep_runs": runs,
        "sweep_s": seconds,
        "knobs": all_knobs(network, trainer),
        "notes": [note, *([features.note] if features.note else [])],
    }


def _hashes(network: Network, state: dict[str, Array], head: tuple[str, str]) -> dict[str, str]:
    """Of a seed's network and of all its tensors at the start, in the precision of training."""
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
