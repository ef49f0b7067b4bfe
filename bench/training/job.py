"""One run inside a worker, from its task to its result."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data import Packed, load_packed, packed_path
from bench.network.blueprint import Array, Network, hash_tensors
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase, phases_of
from bench.spec.result import RunResult
from bench.spec.run import Policy, Recipe, RunSpec
from bench.storage.cache import cache_root
from bench.training.adapter import Adapter, NativeRequest
from bench.training.fit import Ready, build_phase
from bench.training.predictions import FILE, per_image
from bench.training.prefix_cache import cached_prefix_of_run
from bench.training.run import Phased, Run
from bench.workers.tasks import NativeNetwork, RunTask

Emit = Callable[[dict[str, Any]], None]


def do_run(task: RunTask, adapter: Adapter, emit: Emit) -> RunResult:
    """Do the run of a task and write its ``predictions.npz``.

    Args:
        task: A task with one spec.
        emit: Takes progress events.
    """
    started = time.perf_counter()
    (spec,) = task.specs
    packed = load_packed(packed_path(task.packed))
    job = _Job(spec, task, adapter, packed, emit)
    make = _native if spec.mode == "native" else _matched
    run, note, blueprint_sha256 = make(job)
    outcome = run(started)
    outcome.fields["notes"] += [note] if note else []
    failure = outcome.fields.get("failure")
    if outcome.logits is not None:
        save_predictions(Path(task.folders[0]), outcome.logits, packed)
    return RunResult(
        run_id=spec.run_id,
        environment_id=task.environment_id,
        status="ok" if failure is None else failure.kind,
        blueprint_sha256=blueprint_sha256,
        **outcome.fields,
    )


def save_predictions(folder: Path, logits: Array, packed: Packed) -> None:
    """Write the predictions for N test images: logits (N, classes), labels, correctness and
    probability of the true class, each (N,)."""
    correct, probability = per_image(logits, packed.test.labels)
    np.savez_compressed(
        folder / FILE,
        logits=logits.astype(np.float32),
        labels=packed.test.labels,
        correct=correct,
        true_probability=probability,
    )


class _Job(NamedTuple):
    """A run with the task, adapter and images that it needs."""

    spec: RunSpec
    task: RunTask
    adapter: Adapter
    packed: Packed
    emit: Emit


_Made = tuple[Run, str | None, str | None]
"""The run, a note for its result, and the hash of its Blueprint."""


def _native(job: _Job) -> _Made:
    spec, packed = job.spec, job.packed
    assert job.task.native is not None
    request = native_request(
        job.task.native,
        spec.backbone,
        len(packed.classes),
        spec.policy,
        spec.recipe,
        spec.device,
        spec.seed,
    )
    trainer, plan = job.adapter.build_native(request)
    return Run(spec, None, plan, packed, trainer, job.emit), None, None


def _matched(job: _Job) -> _Made:
    """Build the first phase's network, and a builder of the other phases that holds no trainer."""
    spec, packed = job.spec, job.packed
    assert job.task.blueprint is not None
    is_whole = spec.recipe.head == "original"
    network = Network.load(blueprint_path(job.task.blueprint), trunk_only=not is_whole)
    network = attach_head(network, spec.recipe.head, len(packed.classes), spec.seed)
    phases = phases_of(network.blueprint, spec.policy, spec.recipe.epochs)
    blueprint_sha256 = network.sha256()
    build = _Builder(job, network, phases)
    first = build(phases[0], network.tensors)
    phased = Phased(phases, build, first.note) if len(phases) > 1 else None
    run = Run(spec, network, first.plan, packed, first.trainer, job.emit, first.cached, phased)
    return run, None if phased else first.note, blueprint_sha256


class _Builder:
    """Builder of the phases of a run, in their order."""

    def __init__(self, job: _Job, network: Network, phases: tuple[Phase, ...]) -> None:
        """
        Args:
            network: The network before training; no phase trains a tensor that a later phase
                freezes.
        """
        self._job = job
        self._network = network
        self._frozen_sha256 = {p: self._hash_frozen(p) for p in phases}

    def _hash_frozen(self, phase: Phase) -> str:
        frozen = plan_training(self._network.blueprint, phase.policy).frozen
        return hash_tensors({name: self._network.tensors[name] for name in frozen})

    def __call__(self, phase: Phase, tensors: Mapping[str, Array]) -> Ready:
        """Free the phase before, and build this one."""
        job, network = self._job, self._network
        recipe = phase.recipe(job.spec.recipe)
        if phase.first_epoch > 0:
            gc.collect()  # a model and its graphs point at each other
            job.adapter.release()
        trainer, plan = build_phase(
            job.adapter, network.blueprint, tensors, phase.policy, recipe, job.spec.device
        )
        network.tensors.clear()  # the framework has a copy; VGG19 takes 0.5 GB
        cached, note = cached_prefix_of_run(
            job.spec.model_copy(update={"recipe": recipe}),
            network,
            plan,
            self._frozen_sha256[phase],
            job.packed,
            job.adapter,
            trainer,
            cache_root(),
            job.task.environment_id,
            job.emit,
        )
        return Ready(phase, plan, trainer, cached, note)


def native_request(
    native: NativeNetwork,
    backbone: str,
    classes: int,
    policy: Policy,
    recipe: Recipe,
    device: str,
    seed: int,
) -> NativeRequest:
    """Build the adapter's request for a native network."""
    return NativeRequest(
        backbone=backbone,
        entry=native.entry,
        random=native.random,
        weights=None if native.weights is None else Path(native.weights),
        reader=native.reader,
        preprocessing=native.preprocessing,
        classes=classes,
        policy=policy,
        recipe=recipe,
        device=device,
        seed=seed,
    )
