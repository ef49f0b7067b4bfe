"""A sweep inside a worker: from the job's files to the fields of its results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from backends.runs import Emit, Job, save_predictions
from bench.backend import Adapter, ResumingTrainer
from bench.blueprint import Array, Network, hash_tensors
from bench.data import Packed, load_packed
from bench.data.batches import view_batches
from bench.errors import Unavailable
from bench.features import Features, features_of_run
from bench.figures import all_knobs, work_fields
from bench.fit import FrozenChanged
from bench.head import attach_head
from bench.phases import Phase
from bench.plan import TrainingPlan, plan_training
from bench.result import RunResult
from bench.spec import RunSpec
from bench.sweep import Values, heads_of, layout_of, train_heads


def run_sweep(
    specs: Sequence[RunSpec], job: Job, adapter: Adapter, emit: Emit
) -> list[dict[str, Any]]:
    """Do the runs of a sweep at once.

    Args:
        specs: Runs with one ``bench.sweep.sweep_key``.
        job: Where their Blueprint, images and folders lie.
        adapter: Of their framework.
        emit: Takes progress events.

    Returns:
        The fields of ``RunResult`` of each; ``predictions.npz`` lies in its folder.

    Raises:
        Unavailable: There is no room for the values that the heads read.
        FrozenChanged: Freezing did not hold.
    """
    began = time.perf_counter()
    packed = load_packed(Path(job["packed"]))
    layout, recipe = layout_of(specs), specs[0].recipe
    trunk = Network.load(Path(job["blueprint"]), trunk_only=True)
    networks = [attach_head(trunk, recipe.head, len(packed.classes), s) for s in layout.seeds]
    network, names = networks[0], _head_names(networks[0])
    plan = plan_training(network.blueprint, specs[0].policy)
    trainer = cast(ResumingTrainer, adapter.build(network, plan, recipe, specs[0].device))
    before = trainer.tensors()
    frozen_sha256 = _frozen_hash(before, plan)
    features, why = features_of_run(
        specs[0], network, plan, _frozen_hash(network.tensors, plan), packed, adapter, trainer,
        Path(job["cache"]), job["environment_id"], emit,
    )  # fmt: skip
    if features is None:
        raise Unavailable(f"heads can be trained at once on kept values only; {why}")
    heads = heads_of(specs, layout, [tuple(n.tensors[t] for t in names) for n in networks])
    heads_trainer = adapter.build_heads(heads, recipe, specs[0].device)
    values = Values(features.train, features.val, _test_values(trainer, packed, specs[0]))
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
            save_predictions(Path(job["folders"][index]), answer, packed)
        results.append(_result(spec, job["environment_id"], fields))
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


def _result(spec: RunSpec, environment_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    failure = fields.get("failure")
    result = RunResult(
        run_id=spec.run_id,
        environment_id=environment_id,
        status="ok" if failure is None else failure.kind,
        **fields,
    )
    return result.model_dump(mode="json")
