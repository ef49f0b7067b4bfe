"""Results as rows: one dictionary a run, with the fields that others rely on (DESIGN section 7)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.parity.proofs import Shown
from bench.report.savings import mark_savings
from bench.report.steady import mark_unsteady
from bench.report.twins import Row, mark_parity
from bench.store import StoredRun

MEASURED = (
    "test_top1",
    "test_loss",
    "test_balanced_accuracy",
    "test_macro_f1",
    "test_calibration_error",
    "train_images_per_s",
    "compute_images_per_s",
    "effective_images_per_s",
    "infer_images_per_s",
    "total_parameters",
    "trainable_parameters",
    "frozen_parameters",
    "state_values",
    "forward_multiply_adds",
    "backward_multiply_adds",
    "activation_bytes",
    "predicted_saving",
    "device_peak_flops_per_s",
    "model_flop_utilisation",
    "fit_s",
    "test_s",
    "start_s",
    "tune_s",
    "setup_s",
    "prefix_s",
    "prefix_values",
    "prefix_form",
    "sweep_runs",
    "sweep_s",
    "compile_s",
    "step_s_p50",
    "step_s_p95",
    "input_wait_fraction",
    "peak_host_bytes",
    "peak_device_bytes",
    "initial_state_sha256",
    "batches_sha256",
    "blueprint_sha256",
)
"""Fields of ``RunResult`` that a row repeats."""
DIFFERING = frozenset(
    {
        "run_id",
        "environment_id",
        "backend",
        "status",
        "failure",
        "parity",
        "achieved_saving",
        "learning_rate_chosen",
        "phases",
        "unsteady",
        "unreadable_images",
    }
    | set(MEASURED)
)
"""Fields in which rows of the same experiment may differ."""


def row_of(run: StoredRun) -> Row:
    """A run as a flat row."""
    spec, result, recipe = run.spec, run.result, run.spec.recipe
    data = spec.case.dataset
    return {
        "run_id": result.run_id,
        "environment_id": result.environment_id,
        "case": spec.case.number,
        "size": spec.case.size,
        "train_images": data.train_images,
        "val_images": data.val_images,
        "test_images": data.test_images,
        "similarity": spec.case.similarity,
        "dataset": data.name,
        "dataset_label": data.label,
        "dataset_hash": data.content_hash,
        "backbone": spec.backbone,
        "code_sha256": spec.code_sha256,
        "policy": spec.policy.name,
        "boundary": spec.policy.boundary,
        "mode": spec.mode,
        "head": recipe.head,
        "weights": _weights(run),
        "precision": recipe.precision,
        "px": recipe.px,
        "batch_size": recipe.batch_size,
        "epochs": recipe.epochs,
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.learning_rate,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "schedule": recipe.schedule,
        "warmup_fraction": recipe.warmup_fraction,
        "augmentation": recipe.augmentation,
        "views": recipe.views,
        "tune": "lr" if recipe.learning_rate_grid else None,
        "learning_rate_chosen": result.learning_rate,
        "prefix_cache": recipe.prefix_cache,
        "sweep": "at once" if recipe.sweep else "alone",
        "backend": spec.backend,
        "device": spec.device,
        "device_model": run.environment.device_model,
        "seed": spec.seed,
        "status": result.status,
        "failure": result.failure.model_dump() if result.failure else None,
        "parity": None,
        "achieved_saving": None,
        "unsteady": False,
        "unreadable_images": unreadable(result.notes),
        "phases": [phase.model_dump(mode="json") for phase in result.phases],
        **{name: getattr(result, name) for name in MEASURED},
    }


def unreadable(notes: Sequence[str]) -> int | None:
    """Images that --skip-unreadable left out, as the runner notes it; None: none."""
    found = (re.fullmatch(r"(\d+) unreadable images were left out", note) for note in notes)
    return next((int(match[1]) for match in found if match), None)


def _weights(run: StoredRun) -> str:
    ref = run.spec.weights
    return ref.kind if ref.kind != "file" else f"file {ref.source} {(ref.sha256 or '')[:8]}"


def rows_of(runs: Iterable[StoredRun], shown: Collection[Shown] = ()) -> list[Row]:
    """Rows in the order of a reader: case, data, backbone, policy, what differs, backend.

    Args:
        runs: From a store.
        shown: What has been proved, for 'parity'.
    """
    policies, backends = list(POLICIES), list(BACKENDS)

    def order(row: Row) -> tuple[Any, ...]:
        return (
            row["case"] or 9,
            row["dataset"],
            row["train_images"],
            row["backbone"],
            _position(policies, row["policy"]),
            row["head"],
            row["weights"],
            row["mode"],
            row["px"],
            row["precision"],
            row["batch_size"],
            row["epochs"],
            row["views"] or 0,
            row["prefix_cache"],
            row["tune"] or "",
            row["learning_rate"],
            row["weight_decay"],
            row["sweep"],
            row["seed"],
            row["device"],
            _position(backends, row["backend"]),
            row["environment_id"],
            row["run_id"],
        )

    rows = sorted((row_of(run) for run in runs), key=order)
    mark_parity(rows, DIFFERING, shown)
    mark_savings(rows)
    mark_unsteady(rows)
    return rows


def _position(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
