"""One run inside a worker: from the job's files to the fields of a result."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data import Packed, load_packed
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase, phases_of
from bench.spec.backbone import BackboneEntry
from bench.spec.preprocessing import Preprocessing
from bench.spec.result import RunResult
from bench.spec.run import Policy, Recipe, RunSpec
from bench.training.adapter import Adapter, NativeRequest
from bench.training.fit import Ready, build_phase
from bench.training.metrics import of_each_image
from bench.training.prefix_cache import features_of_run
from bench.training.run import Phased, Run

Job = dict[str, Any]
Emit = Callable[[dict[str, Any]], None]


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
    asked = _Asked(spec, job, adapter, packed, emit)
    make = _native if spec.mode == "native" else _matched
    run, note, blueprint_sha256 = make(asked)
    outcome = run(started)
    outcome.fields["notes"] += [note] if note else []
    failure = outcome.fields.get("failure")
    if outcome.logits is not None:
        save_predictions(Path(job["folder"]), outcome.logits, packed)
    result = RunResult(
        run_id=spec.run_id,
        environment_id=job["environment_id"],
        status="ok" if failure is None else failure.kind,
        blueprint_sha256=blueprint_sha256,
        **outcome.fields,
    )
    return result.model_dump(mode="json")


def save_predictions(folder: Path, logits: Array, packed: Packed) -> None:
    """Keep what a run says of the test images: logits (N, classes), labels (N,), whether each is
    right (N,), and the true class's probability (N,)."""
    right, probability = of_each_image(logits, packed.test.labels)
    np.savez_compressed(
        folder / "predictions.npz",
        logits=logits.astype(np.float32),
        labels=packed.test.labels,
        correct=right,
        true_probability=probability,
    )


class _Asked(NamedTuple):
    """A run, and what it is done with."""

    spec: RunSpec
    job: Job
    adapter: Adapter
    packed: Packed
    emit: Emit


_Made = tuple[Run, str | None, str | None]
"""The run, what a reader of its result must know, and the hash of its network."""


def _native(asked: _Asked) -> _Made:
    spec, packed = asked.spec, asked.packed
    request = native_request(
        asked.job,
        spec.backbone,
        len(packed.classes),
        spec.policy,
        spec.recipe,
        spec.device,
        spec.seed,
    )
    trainer, plan = asked.adapter.build_native(request)
    return Run(spec, None, plan, packed, trainer, asked.emit), None, None


def _matched(asked: _Asked) -> _Made:
    """Build the network of the first phase; what builds the others holds no trainer."""
    spec, packed = asked.spec, asked.packed
    path, whole = Path(asked.job["blueprint"]), spec.recipe.head == "original"
    network = Network.load(path, trunk_only=not whole)
    network = attach_head(network, spec.recipe.head, len(packed.classes), spec.seed)
    phases = phases_of(network.blueprint, spec.policy, spec.recipe.epochs)
    blueprint_sha256 = network.sha256()
    build = _Builder(asked, network, phases)
    first = build(phases[0], network.tensors)
    phased = Phased(phases, build, first.note) if len(phases) > 1 else None
    run = Run(spec, network, first.plan, packed, first.trainer, asked.emit, first.features, phased)
    return run, None if phased else first.note, blueprint_sha256


class _Builder:
    """Builds the phases of a run, from the first one on."""

    def __init__(self, asked: _Asked, network: Network, phases: tuple[Phase, ...]) -> None:
        """
        Args:
            network: As it is before training: what a phase freezes, no phase before it has
                trained.
            phases: Of the run.
        """
        self._asked = asked
        self._network = network
        self._frozen_sha256 = {p: self._hash_frozen(p) for p in phases}

    def _hash_frozen(self, phase: Phase) -> str:
        frozen = plan_training(self._network.blueprint, phase.policy).frozen
        return hash_tensors({name: self._network.tensors[name] for name in frozen})

    def __call__(self, phase: Phase, tensors: Mapping[str, Array]) -> Ready:
        """Build one, once what the one before it left behind is gone."""
        asked, network = self._asked, self._network
        recipe = phase.recipe(asked.spec.recipe)
        if phase.first_epoch > 0:
            gc.collect()  # a model and its graphs point at each other
            asked.adapter.release()
        trainer, plan = build_phase(
            asked.adapter, network.blueprint, tensors, phase.policy, recipe, asked.spec.device
        )
        network.tensors.clear()  # the framework has its own copy; VGG19's cost half a gigabyte
        features, note = features_of_run(
            asked.spec.model_copy(update={"recipe": recipe}),
            network,
            plan,
            self._frozen_sha256[phase],
            asked.packed,
            asked.adapter,
            trainer,
            Path(asked.job["cache"]),
            asked.job["environment_id"],
            asked.emit,
        )
        return Ready(phase, plan, trainer, features, note)


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
