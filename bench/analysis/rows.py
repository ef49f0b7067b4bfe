"""Results as rows: one dictionary a run, with the fields that others rely on (DESIGN section 7).

What freezing saved, measured: beside rows of the same network that train all of it.

Runs beside which the machine did other work, so that their speeds say nothing.

Rows that differ only in the backend, and whether their parity has been shown."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.parity.proofs import ProvedSubject
from bench.storage.results import StoredRun

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


def rows_of(runs: Iterable[StoredRun], shown: Collection[ProvedSubject] = ()) -> list[Row]:
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


SAME = (
    "dataset_hash", "backbone", "code_sha256", "mode", "head", "precision", "px", "batch_size",
    "optimizer", "augmentation", "views",
    "backend", "device", "device_model", "environment_id",
)  # fmt: skip
"""Fields that decide what a training step costs, besides what it trains."""


def mark_savings(rows: Sequence[Row]) -> None:
    """Fill 'achieved_saving': the share of a step's time that a policy spares beside training all.

    Of whole steps only, from ``train_images_per_s``; None where no row trains all of the network,
    and for rows whose frozen part was computed once.
    """
    full: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["boundary"] == "all" and row["status"] == "ok" and row["train_images_per_s"]:
            full[_saving_key(row)].append(row["train_images_per_s"])
    for row in rows:
        rate, rates = row["train_images_per_s"], full.get(_saving_key(row))
        row["achieved_saving"] = 1.0 - statistics.median(rates) / rate if rates and rate else None


def _saving_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[field] for field in SAME)


UNSTEADY = 3.0
"""Quiet machines here gave p95 / p50 of the training steps of 1.1 to 1.7; a shared one 15."""
ONE_NETWORK = ("backbone", "code_sha256", "mode", "head", "precision", "px", "batch_size",
               "dataset_hash", "backend", "device", "environment_id")  # fmt: skip
"""Fields in which runs are alike whose inference does the same, whatever was trained."""


def mark_unsteady(rows: Sequence[Row]) -> None:
    """Set 'unsteady': whether slow steps took over ``UNSTEADY`` times the median one, or inference
    over so many times as long as in another run of the same network; this also tells of runs that
    have no step times, where the values of a frozen part were computed once."""
    quickest: dict[tuple[Hashable, ...], float] = {}
    for row in rows:
        rate = row["infer_images_per_s"] or 0.0
        quickest[_network_key(row)] = max(rate, quickest.get(_network_key(row), 0.0))
    for row in rows:
        rate = row["infer_images_per_s"]
        is_slow = bool(rate) and UNSTEADY * rate < quickest[_network_key(row)]
        row["unsteady"] = is_slow or _has_slow_steps(row)


def _has_slow_steps(row: Row) -> bool:
    p50, p95 = row["step_s_p50"], row["step_s_p95"]
    return bool(p50 and p95 and p95 > UNSTEADY * p50)


def _network_key(row: Row) -> tuple[Hashable, ...]:
    return tuple(row[field] for field in ONE_NETWORK)


Row = dict[str, Any]


def twins(rows: Sequence[Row], differing: Collection[str]) -> list[list[Row]]:
    """Rows that are ok and alike in everything but ``differing``, in the order of the rows."""
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(identity(row, differing), []).append(row)
    return list(groups.values())


def identity(row: Row, without: Collection[str]) -> tuple[Hashable, ...]:
    """What a row says in all fields but some."""
    key: tuple[Hashable, ...] = _picking(tuple(row), frozenset(without))(row)
    return key


@cache
def _picking(fields: tuple[str, ...], without: frozenset[str]) -> itemgetter[Any]:
    return itemgetter(*(field for field in fields if field not in without))


def mark_parity(
    rows: Sequence[Row], differing: Collection[str], shown: Collection[ProvedSubject]
) -> None:
    """Set 'parity' of every row in matched mode that has a twin: shown where each other backend has
    a twin, in whatever environment, for which it is; ``is_proved`` speaks of two rows.

    Args:
        rows: Changed in place; 'parity' stays null for a row without a twin.
        differing: Fields in which twins may differ.
        shown: What has been proved.
    """
    for group in twins(rows, differing):
        for row in group:
            others = {r["backend"] for r in group} - {row["backend"]}
            if not others or row["mode"] != "matched":
                continue
            alike = _proved_alike(row, shown)
            proved = {r["backend"] for r in group if r["environment_id"] in alike}
            row["parity"] = "shown" if others <= proved else "not_shown"


def is_proved(a: Row, b: Row, shown: Collection[ProvedSubject]) -> bool:
    """Whether two rows of one experiment compute the same, each in its own environment."""
    return b["environment_id"] in _proved_alike(a, shown)


def _proved_alike(row: Row, shown: Collection[ProvedSubject]) -> set[str]:
    """Environments that compute a row's experiment as its own does: directly, or by way of one that
    both were compared with."""
    about = (row["backbone"], row["policy"], row["boundary"], row["optimizer"], row["code_sha256"])
    pairs = [
        s.environments
        for s in shown
        if (s.backbone, s.policy, s.boundary, s.optimizer, s.code_sha256) == about
    ]
    alike = {row["environment_id"]}
    while new := {e for pair in pairs if pair & alike for e in pair} - alike:
        alike |= new
    return alike - {row["environment_id"]}


def _nameable(backbone: str) -> str:
    """A backbone as the command line takes it; rows do not know the folder of a user's file."""
    own = backbone.removeprefix("module:")
    return backbone if own == backbone else f"module:FOLDER/{own}"


def unproved(rows: Sequence[Row]) -> str | None:
    """What to do about rows whose parity was not shown; None if there are none."""
    open_rows = [row for row in rows if row["parity"] == "not_shown"]
    if not open_rows:
        return None

    def names(field: str) -> list[str]:
        return list(dict.fromkeys(str(row[field]) for row in open_rows))

    own = [b for b in names("boundary") if b not in {p.boundary for p in POLICIES.values()}]
    boundary = f" --boundary {own[0]}" if own else ""
    command = (
        f"python run_bench.py parity {' '.join(map(_nameable, names('backbone')))} "
        f"--policy {','.join(names('policy'))} --optimizer {','.join(names('optimizer'))} "
        f"--backends {','.join(names('backend'))}{boundary}"
    )
    count = len(open_rows)
    return (
        f"parity not shown for {count} row{'s' if count > 1 else ''}: that the backends compute "
        f"the same has not been proved on this machine; to prove it: {command}"
    )
