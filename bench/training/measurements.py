"""From the clocks of a run to the figures of its result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.network.blueprint import Blueprint, Network
from bench.network.cost import Work, saving, work_of
from bench.network.freezing import plan_training
from bench.network.phases import Phase
from bench.spec.result import PhaseResult
from bench.training.adapter import Trainer
from bench.training.fit import Fit

LEAST_EFFECTIVE_S = 1.0
"""Less than that is start-up and chance: fits of 0.5 s gave one framework twice the other's rate,
and the other way round for the next network."""
KNOBS = ("tf32", "xla", "compile", "layout", "deterministic", "threads", "onednn",
         "cudnn_benchmark")  # fmt: skip
"""That every result has; null where a framework has no such thing."""
COMPUTE_STEPS = 5
COMPUTE_PATIENCE_S = 1.0


def work_fields(blueprint: Blueprint, phases: Sequence[Phase]) -> dict[str, Any]:
    """What a step costs by arithmetic: of several phases the mean over the epochs, which have as
    many steps each, and the most of what is kept."""
    works = [(work_of(blueprint, plan_training(blueprint, p.policy)), p.epochs) for p in phases]
    whole = phases[0].policy.model_copy(update={"boundary": "all", "phases": ()})
    full = work_of(blueprint, plan_training(blueprint, whole))
    epochs = sum(length for _, length in works)
    backward = sum(work.backward_multiply_adds * length for work, length in works)
    mean = Work(
        works[0][0].forward_multiply_adds,
        round(backward / epochs),
        max(work.activation_bytes for work, _ in works),
    )
    return {
        "forward_multiply_adds": mean.forward_multiply_adds,
        "backward_multiply_adds": mean.backward_multiply_adds,
        "activation_bytes": mean.activation_bytes,
        "predicted_saving": saving(mean, full),
    }


def whole_steps(fit: Fit, device: str, notes: list[str]) -> dict[str, Any]:
    """Fields of a result that speak of steps of the whole network.

    Trains on: after everything else.

    Args:
        device: cpu or cuda:N.
        notes: Takes what a reader must know.
    """
    windows = fit.windows
    fields: dict[str, Any] = {
        "train_images_per_s": windows.median_per_s(),
        "train_images_per_s_windows": windows.rates_per_s,
    }
    if fields["train_images_per_s"] is None:
        found = len(windows.rates_per_s)
        notes.append(f"training was too short for a throughput: steady windows: {found}")
    if windows.seconds:
        fields["input_wait_fraction"] = windows.waited_s / windows.seconds
    compute_step_s = _compute_step_s(fit)
    if fit.first_batch is not None:
        images = len(fit.first_batch.labels)
        fields["compute_images_per_s"] = images / statistics.median(compute_step_s)
    # A GPU's steps are only queued while training; those of the compute phase are waited for.
    steps = fit.step_s if device == "cpu" else compute_step_s
    if steps:
        fields["step_s_p50"] = statistics.median(steps)
        fields["step_s_p95"] = float(np.percentile(steps, 95))
        fields["compile_s"] = compile_s(fit, steps)
    return fields


def compile_s(fit: Fit, steps: Sequence[float]) -> float | None:
    """What the first step took more than another.

    Args:
        steps: Durations of others; none: it is not known.
    """
    if not steps or fit.first_step_s is None:
        return None
    return max(fit.first_step_s - statistics.median(steps), 0.0)


def _compute_step_s(fit: Fit) -> list[float]:
    """Durations of steps on one full batch that lies on the device; these steps train too."""
    found: list[float] = []
    if fit.first_batch is None:
        return found
    trainer = fit.trainer
    prepared = trainer.to_device(fit.first_batch)
    began = time.perf_counter()
    for index in range(COMPUTE_STEPS + 1):
        trainer.synchronise()
        start = time.perf_counter()
        trainer.train_step(prepared, 0.0)
        trainer.synchronise()
        if index > 0:  # the first one warms up
            found.append(time.perf_counter() - start)
        if time.perf_counter() - began > COMPUTE_PATIENCE_S and len(found) >= 2:
            break
    return found


def effective_rate(images: int, took_s: float, notes: list[str]) -> float | None:
    """Images per second of all that a training took; steps do not tell where most of the network
    ran once, or different parts of it were trained.

    Args:
        images: Of all epochs.
        took_s: From ``steady_s``.
        notes: Takes what a reader must know.
    """
    if took_s >= LEAST_EFFECTIVE_S:
        return images / took_s
    notes.append(f"training was too short for a throughput: {took_s:.2g} s in all")
    return None


def steady_s(fit: Fit) -> float:
    """Computing the values of a frozen part, and training, compilation left out."""
    values_s = fit.features.seconds if fit.features else 0.0
    return values_s + fit.train_s - (compile_s(fit, fit.step_s) or 0.0)


def all_knobs(network: Network | None, trainer: Trainer) -> dict[str, Any]:
    """What was in force.

    Args:
        network: None in native mode, whose trainers speak for themselves.
        trainer: Reads them back.
    """
    # Both are no part of a Blueprint, on either side (DESIGN section 4).
    without = {"stochastic_depth": "off", "auxiliary_heads": "off"}
    left_out = list(network.blueprint.notes) if network else None
    return {**dict.fromkeys(KNOBS), **without, "left_out": left_out, **trainer.knobs()}


PREFIX_STATES = ("computed", "reused")
"""What a phase's values can be; of several phases, the first of these that one has is the run's."""


def prefix_fields(fit: Fit, is_reused: bool) -> dict[str, Any]:
    """Where the values of the frozen part came from, and what they cost.

    Args:
        is_reused: Whether another run had computed them, if there are any.
    """
    if fit.features is None:
        return {"prefix_values": None, "prefix_s": None, "prefix_form": None}
    return {
        "prefix_values": "reused" if is_reused else "computed",
        "prefix_s": fit.features.seconds,
        "prefix_form": fit.features.form,
    }


def sum_of_prefixes(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of several phases: 'computed' if any phase's values were computed in this run.

    Args:
        each: From ``prefix_fields``.
    """
    values = {fields["prefix_values"] for fields in each} - {None}
    seconds = [fields["prefix_s"] for fields in each if fields["prefix_s"] is not None]
    forms = dict.fromkeys(fields["prefix_form"] for fields in each if fields["prefix_form"])
    return {
        "prefix_values": next((state for state in PREFIX_STATES if state in values), None),
        "prefix_s": sum(seconds) if seconds else None,
        "prefix_form": ", ".join(forms) or None,
    }


def phase_result(
    fit: Fit, frozen_sha256: str, is_reused: bool, setup_s: float | None, fit_s: float
) -> PhaseResult:
    """What a phase gave, when it is over."""
    notes = [fit.note] if fit.note else []
    rate = effective = None
    if fit.features is None:
        rate = fit.windows.median_per_s()
    else:
        effective = effective_rate(fit.epochs * fit.batches.images, steady_s(fit), notes)
        notes += [fit.features.note] if fit.features.note else []
    return PhaseResult(
        boundary=fit.phase.policy.boundary,
        epochs=fit.epochs,
        trainable_parameters=fit.trainer.counts().trainable_parameters,
        frozen_state_sha256=frozen_sha256,
        **prefix_fields(fit, is_reused),
        train_images_per_s=rate,
        effective_images_per_s=effective,
        setup_s=setup_s,
        fit_s=fit_s,
        notes=notes,
    )
