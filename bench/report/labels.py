"""What a plot shows at a time: cells that may stand in it together, under a name of their own.

What tells cells apart that would look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from bench.analysis.groups import (
    COMPETING_FIELDS,
    OUTCOME_FIELDS,
    SeedGroup,
    group_identity,
    policy_variant,
)
from bench.analysis.rows import FIELDS, Row
from bench.spec.run import RECIPE_OPTIONS

PLACES = frozenset({"backend", "device", "device_model", "environment_id", "seed"})
"""Where a question was run, and with which seed."""
ANSWERS = frozenset({*COMPETING_FIELDS, *PLACES})
"""Fields in which the answers to one question differ, whatever the backend."""
NETWORKS = frozenset({"backbone", "code_sha256"})
"""Fields that say which network it is."""


def choices(
    cells: Sequence[SeedGroup], differing: Collection[str], named: Callable[[Row], str]
) -> dict[str, list[SeedGroup]]:
    """Groups of cells, under names of which no two are alike.

    Args:
        cells: In the order of a reader.
        differing: Fields in which the cells of a group may differ; in all others they are alike,
            the test images among them.
        named: Beginning of a group's name; what tells it from others of that beginning follows.
    """
    groups: dict[tuple[Hashable, ...], list[SeedGroup]] = {}
    for cell in cells:
        groups.setdefault(group_identity(cell, differing), []).append(cell)
    by_name: dict[str, list[list[SeedGroup]]] = {}
    for group in groups.values():
        by_name.setdefault(named(group[0].row), []).append(group)
    labels: dict[int, str] = {}
    taken: Counter[str] = Counter()
    for name, same in by_name.items():
        fields = differing_fields([group[0].row for group in same], _fields(differing))
        for group in same:
            label = ", ".join([name, *(told(f, group[0].row[f]) for f in fields)])
            taken[label] += 1
            # Of hashes the beginning is told, which may be alike.
            labels[id(group)] = label + (f" ({taken[label]})" if taken[label] > 1 else "")
    return {labels[id(group)]: group for group in groups.values()}


def data_of(row: Row) -> str:
    """Name of a data set with its size."""
    return f"{row.dataset.label}, {row.dataset.train_images:,} images"


def question_name(row: Row) -> str:
    """The same, with the network."""
    return f"{data_of(row)}, {row.spec.backbone}"


def _fields(differing: Collection[str]) -> list[str]:
    """That may tell groups apart, those first that a reader knows best."""
    return [f for f in dict.fromkeys([*APART, *FIELDS]) if f not in {*OUTCOME_FIELDS, *differing}]


def differing_fields(rows: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Those of the fields in which the rows differ."""
    return [f for f in fields if len({str(row[f]) for row in rows}) > 1]


APART = (
    "mode", *RECIPE_OPTIONS, "tune", "sweep", "weights", "dataset_hash", "val_images",
    "test_images", "code_sha256", "device", "device_model", "environment_id",
)  # fmt: skip
"""Fields of rows, the first of them that differ are named."""
HASH_DIGITS = 8


def settings(cells: Sequence[SeedGroup], by_policy: bool = True) -> list[str]:
    """For each cell, what sets it apart from those of the same data, network, policy and backend;
    nothing where there is no other.

    Args:
        cells: Of a table or plot.
        by_policy: Whether the policy is told beside; if not, cells of all policies are alike.
    """
    groups: dict[tuple[str, ...], list[SeedGroup]] = {}
    for cell in cells:
        groups.setdefault(_looks(cell, by_policy), []).append(cell)
    differing = {looks: _differing(alike) for looks, alike in groups.items()}
    return [
        ", ".join(told(field, cell.row[field]) for field in differing[_looks(cell, by_policy)])
        for cell in cells
    ]


def _looks(cell: SeedGroup, by_policy: bool) -> tuple[str, ...]:
    row = cell.row
    return (
        row.dataset.label,
        str(row.dataset.train_images),
        row.spec.backbone,
        policy_variant(cell) if by_policy else "",
        row.spec.backend,
    )


def _differing(alike: Sequence[SeedGroup]) -> list[str]:
    """Fields in which cells that look alike differ."""
    return [f for f in APART if len({str(cell.row[f]) for cell in alike}) > 1]


def told(field: str, value: object) -> str:
    """A field of a row with its value, in words."""
    name = field.removesuffix("_id").removesuffix("_sha256").removesuffix("_hash")
    name = name.replace("_", " ")
    is_hash = name != field.replace("_", " ")
    return f"{name} {str(value)[:HASH_DIGITS] if is_hash else value}"
