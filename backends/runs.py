"""One run inside a worker: from the job's files to the fields of a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from bench.backend import Adapter, NativeRequest, ResumingTrainer, Trainer
from bench.blueprint import Array, Network, Preprocessing, hash_tensors
from bench.catalog.backbones import BackboneEntry
from bench.data import Packed, load_packed
from bench.features import Features, features_of_run
from bench.head import attach_head
from bench.loop import Run
from bench.plan import TrainingPlan, plan_training
from bench.spec import Policy, Recipe, RunResult, RunSpec

Job = dict[str, Any]
Emit = Callable[[dict[str, Any]], None]


class _Built(NamedTuple):
    """What a run is done with."""

    trainer: Trainer
    plan: TrainingPlan
    network: Network | None
    """None in native mode."""
    blueprint_sha256: str | None
    frozen_sha256: str | None
    """Of the frozen tensors before the framework had them; None in native mode."""


def run_spec(spec: RunSpec, job: Job, adapter: Adapter, emit: Emit) -> dict[str, Any]:
    """Do a run.

    Args:
        spec: The run.
        job: Where its Blueprint, images and folder lie.
        adapter: Of its framework.
        emit: Takes progress events.

    Returns:
        The fields of ``RunResult``; ``predictions.npz`` lies in the run's folder.
    """
    started = time.perf_counter()
    packed = load_packed(Path(job["packed"]))
    built = _build(spec, job, adapter, len(packed.classes))
    features, note = _features(spec, job, adapter, built, packed, emit)
    run = Run(spec, built.network, built.plan, packed, built.trainer, emit, features)
    outcome = run(started)
    outcome.fields["notes"] += [note] if note else []
    failure = outcome.fields.get("failure")
    if outcome.logits is not None:
        save_predictions(Path(job["folder"]), outcome.logits, packed)
    result = RunResult(
        run_id=spec.run_id,
        environment_id=job["environment_id"],
        status="ok" if failure is None else failure.kind,
        blueprint_sha256=built.blueprint_sha256,
        **outcome.fields,
    )
    return result.model_dump(mode="json")


def save_predictions(folder: Path, logits: Array, packed: Packed) -> None:
    """Keep the test logits (N, classes) of a run."""
    np.savez_compressed(
        folder / "predictions.npz", logits=logits.astype(np.float32), labels=packed.test.labels
    )


def _features(
    spec: RunSpec, job: Job, adapter: Adapter, built: _Built, packed: Packed, emit: Emit
) -> tuple[Features | None, str | None]:
    """What stands for the images, where the part before it is frozen; and why nothing does."""
    if built.network is None or built.frozen_sha256 is None:
        return None, None
    return features_of_run(
        spec,
        built.network,
        built.plan,
        built.frozen_sha256,
        packed,
        adapter,
        cast(ResumingTrainer, built.trainer),
        Path(job["cache"]),
        job["environment_id"],
        emit,
    )


def _build(spec: RunSpec, job: Job, adapter: Adapter, classes: int) -> _Built:
    if spec.mode == "native":
        trainer, plan = adapter.build_native(
            native_request(
                job, spec.backbone, classes, spec.policy, spec.recipe, spec.device, spec.seed
            )
        )
        return _Built(trainer, plan, None, None, None)
    network = Network.load(Path(job["blueprint"]), trunk_only=spec.recipe.head != "original")
    network = attach_head(network, spec.recipe.head, classes, spec.seed)
    plan = plan_training(network.blueprint, spec.policy)
    blueprint_sha256 = network.sha256()
    frozen_sha256 = hash_tensors({name: network.tensors[name] for name in plan.frozen})
    trainer = adapter.build(network, plan, spec.recipe, spec.device)
    network.tensors.clear()  # the framework has its own copy; VGG19's would cost half a gigabyte
    return _Built(trainer, plan, network, blueprint_sha256, frozen_sha256)


def native_request(
    job: Job, backbone: str, classes: int, policy: Policy, recipe: Recipe, device: str, seed: int
) -> NativeRequest:
    """What native mode asks, from a job's arguments."""
    native = job["native"]
    return NativeRequest(
        backbone=backbone,
        entry=BackboneEntry.model_validate(native["entry"]),
        random=native["random"],
        weights=Path(native["weights"]) if native["weights"] else None,
        reader=native["reader"],
        preprocessing=Preprocessing.model_validate(native["preprocessing"]),
        classes=classes,
        policy=policy,
        recipe=recipe,
        device=device,
        seed=seed,
    )
