"""One run inside a worker, from its task to its result."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data import Packed, data_sha256, load_packed, packed_path
from bench.network.blueprint import Array, Network
from bench.network.blueprint_files import blueprint_path
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.network.phases import Phase, phases_of
from bench.spec.result import RunResult
from bench.spec.run import RunSpec
from bench.training.adapter import Adapter
from bench.training.fit import Ready, build_phase
from bench.training.predictions import save_predictions
from bench.training.prefix_cache import cached_prefix_of_run
from bench.training.run import Run
from bench.workers.events import OnEvent
from bench.workers.tasks import NativeRequest, RunTask


def do_run(task: RunTask, adapter: Adapter, emit: OnEvent) -> RunResult:
    """Do the run of a task with one spec, and write its ``predictions.npz``."""
    started = time.perf_counter()
    (spec,) = task.specs
    packed = load_packed(packed_path(task.packed))
    make = _native_run if spec.mode == "native" else _matched_run
    run, blueprint_sha256 = make(spec, task, adapter, packed, emit)
    outcome = run(started)
    if outcome.logits is not None:
        save_predictions(
            Path(task.folders[0]), outcome.logits, packed.test.labels, packed.test.groups
        )
    fields = {
        "blueprint_sha256": blueprint_sha256, "data_sha256": data_sha256(packed),
        **outcome.fields,
    }  # fmt: skip
    return run_result(spec, task.environment_id, fields)


def run_result(spec: RunSpec, environment_id: str, fields: dict[str, Any]) -> RunResult:
    """Build a result from its ``fields``; one of them is ``failure`` if the run failed."""
    failure = fields.get("failure")
    status = "ok" if failure is None else failure.kind
    return RunResult(run_id=spec.run_id, environment_id=environment_id, status=status, **fields)


def _native_run(
    spec: RunSpec, task: RunTask, adapter: Adapter, packed: Packed, emit: OnEvent
) -> tuple[Run, None]:
    assert task.native is not None
    request = NativeRequest(
        backbone=spec.backbone, network=task.native, classes=len(packed.classes),
        policy=spec.policy, recipe=spec.recipe, device=spec.device, seed=spec.seed,
    )  # fmt: skip
    trainer, plan = adapter.build_native(request)
    ready = Ready(Phase(spec.policy, 0, spec.recipe.epochs), plan, trainer)
    return Run(spec, None, packed, ready, emit), None


def _matched_run(
    spec: RunSpec, task: RunTask, adapter: Adapter, packed: Packed, emit: OnEvent
) -> tuple[Run, str]:
    """Build the first phase's network; return the run and the hash of its Blueprint."""
    assert task.blueprint is not None
    recipe = spec.recipe

    def at_start() -> Network:
        """Return the network as it is before training."""
        assert task.blueprint is not None
        folder, is_whole = blueprint_path(task.blueprint), recipe.head == "original"
        loaded = Network.load(folder, trunk_only=not is_whole)
        return attach_head(loaded, recipe.head, len(packed.classes), spec.seed)

    network = at_start()
    blueprint, blueprint_sha256 = network.blueprint, network.sha256()
    phases = phases_of(blueprint, spec.policy, recipe.epochs)
    # No phase trains a tensor that a later phase freezes.
    frozen_sha256 = {
        p: plan_training(blueprint, p.policy).frozen_sha256(network.tensors) for p in phases
    }

    def build(phase: Phase, tensors: Mapping[str, Array]) -> Ready:
        """Free the phase before, to which nothing here refers, and build this one."""
        own = phase.recipe(recipe)
        if phase.first_epoch > 0:
            gc.collect()  # a model and its graphs point at each other
            adapter.release()
        trainer, plan = build_phase(adapter, blueprint, tensors, phase.policy, own, spec.device)
        network.tensors.clear()  # the framework has a copy; VGG19 takes 0.5 GB
        cached, note = cached_prefix_of_run(
            spec.model_copy(update={"recipe": own}), network, plan, frozen_sha256[phase], packed,
            adapter, trainer, task.environment_id, emit,
        )  # fmt: skip
        return Ready(phase, plan, trainer, cached, note)

    first = build(phases[0], network.tensors)
    return Run(spec, network, packed, first, emit, phases, build, at_start), blueprint_sha256
