"""What tells cells apart that would look alike."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.cells import Cell, contestant

APART = (
    "px", "epochs", "batch_size", "precision", "mode", "head", "optimizer", "learning_rate",
    "momentum", "schedule", "warmup_fraction",
    "weight_decay", "augmentation", "views", "tune", "prefix_cache", "sweep", "weights",
    "dataset_hash", "val_images", "test_images", "code_sha256", "device", "device_model",
    "environment_id",
)  # fmt: skip
"""Fields of rows, the first of them that differ are named."""
HASH_DIGITS = 8


def settings(cells: Sequence[Cell], by_policy: bool = True) -> list[str]:
    """For each cell, what sets it apart from those of the same data, network, policy and backend;
    nothing where there is no other.

    Args:
        cells: Of a table or plot.
        by_policy: Whether the policy is told beside; if not, cells of all policies are alike.
    """
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_looks(cell, by_policy), []).append(cell)
    differing = {looks: _differing(alike) for looks, alike in groups.items()}
    return [
        ", ".join(told(field, cell.row[field]) for field in differing[_looks(cell, by_policy)])
        for cell in cells
    ]


def _looks(cell: Cell, by_policy: bool) -> tuple[str, ...]:
    row = cell.row
    return (
        row["dataset_label"],
        str(row["train_images"]),
        row["backbone"],
        contestant(cell) if by_policy else "",
        row["backend"],
    )


def _differing(alike: Sequence[Cell]) -> list[str]:
    """Fields in which cells that look alike differ."""
    return [f for f in APART if len({str(cell.row[f]) for cell in alike}) > 1]


def told(field: str, value: object) -> str:
    """A field of a row with its value, in words."""
    name = field.removesuffix("_id").removesuffix("_sha256").removesuffix("_hash")
    name = name.replace("_", " ")
    is_hash = name != field.replace("_", " ")
    return f"{name} {str(value)[:HASH_DIGITS] if is_hash else value}"
