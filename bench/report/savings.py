"""What freezing saved, measured: beside rows of the same network that train all of it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench.report.twins import Row

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
            full[_key(row)].append(row["train_images_per_s"])
    for row in rows:
        rate, rates = row["train_images_per_s"], full.get(_key(row))
        row["achieved_saving"] = 1.0 - statistics.median(rates) / rate if rates and rate else None


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[field] for field in SAME)
