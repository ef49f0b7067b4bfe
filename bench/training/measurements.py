"""The fields of a result that are computed from a run's clocks, counts and Blueprint."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from bench.network.blueprint import Blueprint, Network
from bench.network.cost import Work, saving, work_of
from bench.network.freezing import plan_training
from bench.network.phases import Phase
from bench.spec.result import PhaseResult
from bench.system import ALL_BUSY, OtherWork
from bench.training.adapter import Trainer
from bench.training.clocks import queue_s, step_durations, stretch
from bench.training.fit import TRAINING, Fit
from bench.training.prefix_cache import CachedPrefix

LEAST_EFFECTIVE_S = 1.0
"""Shortest training, in seconds, that gives an effective rate. Fits of 0.5 s gave one framework
twice the rate of the other, and the reverse for the next network."""
KNOBS = ("tf32", "xla", "compile", "layout", "deterministic", "threads", "onednn",
         "cudnn_benchmark")  # fmt: skip
"""Settings that every result has; null where a framework has no such setting."""
COMPUTE_STEPS = 5
COMPUTE_PATIENCE_S = 1.0
"""Time on a CPU after which two timed steps are enough."""
GPU_STEPS = 20
HOST_BOUND = 0.8
"""Share of a step from which on queueing it is what takes the time."""


def count_fields(trainer: Trainer) -> dict[str, int]:
    """Return the numbers of parameters of the network as it stands."""
    counts = trainer.counts()
    frozen = counts.total_parameters - counts.trainable_parameters
    return {**counts.model_dump(), "frozen_parameters": frozen}


def work_fields(blueprint: Blueprint, phases: Sequence[Phase]) -> dict[str, Any]:
    """Return what a training step costs by arithmetic: the mean over all epochs, which have as many
    steps each, and the largest number of kept bytes."""
    works = [(work_of(blueprint, plan_training(blueprint, p.policy)), p.epochs) for p in phases]
    whole = phases[0].policy.model_copy(update={"boundary": "all", "phases": ()})
    full = work_of(blueprint, plan_training(blueprint, whole))
    epochs = sum(length for _, length in works)
    backward = sum(work.backward_multiply_adds * length for work, length in works)
    kept_bytes = max(work.activation_bytes for work, _ in works)
    mean = Work(works[0][0].forward_multiply_adds, round(backward / epochs), kept_bytes)
    return {**vars(mean), "predicted_saving": saving(mean, full)}


def whole_step_fields(fit: Fit, device: str, notes: list[str]) -> dict[str, Any]:
    """Return the fields about steps of the whole network, and add to ``notes`` what a reader must
    know. Call it after everything else: it trains on."""
    windows = fit.windows
    rate, rates = windows.median_per_s(), windows.rates_per_s
    fields: dict[str, Any] = {"train_images_per_s": rate, "train_images_per_s_windows": rates}
    if rate is None:
        notes.append(f"training was too short for a throughput: steady windows: {len(rates)}")
    if windows.seconds:
        fields["input_wait_fraction"] = windows.waited_s / windows.seconds
    if fit.first_batch is not None:
        timed = _steps_on_cpu if device == "cpu" else _steps_on_gpu
        fields |= timed(fit, fit.trainer.to_device(fit.first_batch), notes)
    compute = fields.get("compute_images_per_s")
    if device != "cpu" and rate and compute:
        # The host waits for input while a GPU still works on what is queued.
        fields["input_wait_fraction"] = max(1.0 - rate / compute, 0.0)
    fields["compile_s"] = fit.calls.compile_s()
    return fields


def _steps_on_cpu(fit: Fit, prepared: Any, notes: list[str]) -> dict[str, float]:
    """Time steps on one full batch that lies in memory; these steps train, at rate 0."""
    found: list[float] = []
    began = time.perf_counter()
    durations = step_durations(fit.trainer, prepared, learning_rate=0.0)
    next(durations)  # the first one warms up
    while len(found) < COMPUTE_STEPS:
        found.append(next(durations))
        if time.perf_counter() - began > COMPUTE_PATIENCE_S and len(found) >= 2:
            break
    images = len(fit.first_batch.labels) if fit.first_batch else 0
    return {
        "compute_images_per_s": images / statistics.median(found),
        **_percentiles(fit.step_s),
    }


def _steps_on_gpu(fit: Fit, prepared: Any, notes: list[str]) -> dict[str, float | None]:
    """Time steps on one full batch that lies on the device, queued without waiting; these steps
    train, at rate 0."""
    next(step_durations(fit.trainer, prepared, learning_rate=0.0))  # warms up
    host_s = queue_s(fit.trainer, prepared, 0.0)
    found = stretch(fit.trainer, prepared, 0.0, GPU_STEPS)
    each_s = found.device_step_s or list(
        islice(step_durations(fit.trainer, prepared, learning_rate=0.0), GPU_STEPS)
    )
    images = len(fit.first_batch.labels) if fit.first_batch else 0
    if host_s is not None and host_s > HOST_BOUND * found.step_s:
        notes.append(
            f"the host needs {host_s * 1e3:.1f} ms to queue a step of "
            f"{found.step_s * 1e3:.1f} ms: this is the speed of Python and of the framework's "
            "calls, not of the GPU; larger images or batches would show the GPU"
        )
    fields: dict[str, float | None] = {
        "compute_images_per_s": images / found.step_s,
        "queue_s": host_s,
        **_percentiles(each_s),
    }
    if found.device_step_s:
        fields["device_step_s"] = statistics.median(found.device_step_s)
    return fields


def _percentiles(steps: Sequence[float]) -> dict[str, float]:
    if not steps:
        return {}
    return {
        "step_s_p50": statistics.median(steps),
        "step_s_p95": float(np.percentile(steps, 95)),
    }


def other_work_fields(epochs: Sequence[OtherWork], notes: list[str]) -> dict[str, Any]:
    """Return the share of the cores that other processes took from the training, in the median
    epoch: 0 while there were idle cores. ``notes`` takes a sentence if that disturbed it."""
    if not epochs:
        return {"other_work_fraction": None}
    if sum(epoch.disturbs for epoch in epochs) * 2 > len(epochs):
        notes.append(
            "other work took cores from the training, so that its speed is too low; "
            "run it again on an idle machine (--fresh)"
        )
    taken = [epoch.others if epoch.busy > ALL_BUSY else 0.0 for epoch in epochs]
    return {"other_work_fraction": statistics.median(taken)}


def memory_fields(fit: Fit) -> dict[str, int | None]:
    """Return the memory of a phase on its device."""
    return {
        "peak_device_bytes": fit.peak_device_bytes(),
        "warmup_device_bytes": fit.warmup_device_bytes,
        "reserved_device_bytes": fit.trainer.reserved_device_bytes(),
    }


def largest(phases: Sequence[Mapping[str, int | None]]) -> dict[str, int | None]:
    """Return the largest of each figure over phases, None if it is not known for one of them."""
    found: dict[str, int | None] = {}
    for name in phases[0]:
        known = [phase[name] for phase in phases]
        found[name] = None if None in known else max(v for v in known if v is not None)
    return found


def effective_rate(images: int, took_s: float, notes: list[str]) -> float | None:
    """Return images per second over all epochs, None if their ``steady_s`` is too short.

    Steps do not give a rate where most of the network ran once, or where different parts of it were
    trained.
    """
    if took_s >= LEAST_EFFECTIVE_S:
        return images / took_s
    notes.append(f"training was too short for a throughput: {took_s:.2g} s in all")
    return None


def steady_s(fit: Fit) -> float:
    """Return the time of computing the frozen prefix and of training, without compilation."""
    values_s = fit.cached.seconds - fit.cached.compile_s if fit.cached else 0.0
    return values_s + fit.train_s - (fit.calls.compile_s(TRAINING) or 0.0)


def all_knobs(network: Network | None, trainer: Trainer) -> dict[str, Any]:
    """Return the settings in force; ``network`` is None in native mode, whose trainers report what
    they leave out."""
    # Blueprints have neither of the two (docs/design.md, Twins and Blueprints).
    without = {"stochastic_depth": "off", "auxiliary_heads": "off"}
    left_out = list(network.blueprint.notes) if network else None
    return {**dict.fromkeys(KNOBS), **without, "left_out": left_out, **trainer.knobs()}


def prefix_fields(cached: CachedPrefix | None) -> dict[str, Any]:
    """Return what the values of the frozen prefix cost, and if another run computed them."""
    if cached is None:
        return {"prefix_values": None, "prefix_s": None, "prefix_form": None}
    return {
        "prefix_values": "reused" if cached.is_reused else "computed",
        "prefix_s": cached.seconds,
        "prefix_form": cached.form,
    }


def sum_prefix_fields(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the ``prefix_fields`` of several phases: 'computed' if any phase's values were."""
    values = {fields["prefix_values"] for fields in each}
    seconds = [fields["prefix_s"] for fields in each if fields["prefix_s"] is not None]
    forms = dict.fromkeys(fields["prefix_form"] for fields in each if fields["prefix_form"])
    return {
        "prefix_values": next((s for s in ("computed", "reused") if s in values), None),
        "prefix_s": sum(seconds) if seconds else None,
        "prefix_form": ", ".join(forms) or None,
    }


def phase_result(fit: Fit, frozen_sha256: str, setup_s: float | None, fit_s: float) -> PhaseResult:
    """Build the result of a phase that is over."""
    notes = [fit.note] if fit.note else []
    rate = effective = None
    if fit.cached is None:
        rate = fit.windows.median_per_s()
    else:
        effective = effective_rate(fit.epochs * fit.batches.images, steady_s(fit), notes)
        notes += [fit.cached.note] if fit.cached.note else []
    return PhaseResult(
        boundary=fit.phase.policy.boundary,
        epochs=fit.epochs,
        trainable_parameters=fit.trainer.counts().trainable_parameters,
        frozen_state_sha256=frozen_sha256,
        **prefix_fields(fit.cached),
        train_images_per_s=rate,
        effective_images_per_s=effective,
        setup_s=setup_s,
        fit_s=fit_s,
        notes=tuple(notes),
    )
