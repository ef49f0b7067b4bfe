"""Runs beside which the machine did other work, so that their speeds say nothing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from bench.report.twins import Row

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
        quickest[_key(row)] = max(rate, quickest.get(_key(row), 0.0))
    for row in rows:
        rate = row["infer_images_per_s"]
        is_slow = bool(rate) and UNSTEADY * rate < quickest[_key(row)]
        row["unsteady"] = is_slow or _has_slow_steps(row)


def _has_slow_steps(row: Row) -> bool:
    p50, p95 = row["step_s_p50"], row["step_s_p95"]
    return bool(p50 and p95 and p95 > UNSTEADY * p50)


def _key(row: Row) -> tuple[Hashable, ...]:
    return tuple(row[field] for field in ONE_NETWORK)
