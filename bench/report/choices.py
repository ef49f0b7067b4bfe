"""What a plot shows at a time: cells that may stand in it together, under a name of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from bench.report.cells import CHOSEN, SAID, Cell, alike_but
from bench.report.settings import APART, told
from bench.report.twins import Row

PLACES = frozenset({"backend", "device", "device_model", "environment_id", "seed"})
"""Where a question was run, and with which seed."""
ANSWERS = frozenset({*CHOSEN, *PLACES})
"""Fields in which the answers to one question differ, whatever the backend."""
NETWORKS = frozenset({"backbone", "code_sha256"})
"""Fields that say which network it is."""


def choices(
    cells: Sequence[Cell], differing: Collection[str], named: Callable[[Row], str]
) -> dict[str, list[Cell]]:
    """Groups of cells, under names of which no two are alike.

    Args:
        cells: In the order of a reader.
        differing: Fields in which the cells of a group may differ; in all others they are alike,
            the test images among them.
        named: Beginning of a group's name; what tells it from others of that beginning follows.
    """
    groups: dict[tuple[Hashable, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(alike_but(cell, differing), []).append(cell)
    by_name: dict[str, list[list[Cell]]] = {}
    for group in groups.values():
        by_name.setdefault(named(group[0].row), []).append(group)
    labels: dict[int, str] = {}
    taken: Counter[str] = Counter()
    for name, same in by_name.items():
        fields = differing_fields([group[0].row for group in same], _fields(cells, differing))
        for group in same:
            label = ", ".join([name, *(told(f, group[0].row[f]) for f in fields)])
            taken[label] += 1
            # Of hashes the beginning is told, which may be alike.
            labels[id(group)] = label + (f" ({taken[label]})" if taken[label] > 1 else "")
    return {labels[id(group)]: group for group in groups.values()}


def data_of(row: Row) -> str:
    """Name of a data set with its size."""
    return f"{row['dataset_label']}, {row['train_images']:,} images"


def question_name(row: Row) -> str:
    """The same, with the network."""
    return f"{data_of(row)}, {row['backbone']}"


def _fields(cells: Sequence[Cell], differing: Collection[str]) -> list[str]:
    """That may tell groups apart, those first that a reader knows best."""
    every = cells[0].row if cells else {}
    known = [f for f in APART if f in every]
    return [f for f in dict.fromkeys([*known, *every]) if f not in {*SAID, *differing}]


def differing_fields(rows: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Those of the fields in which the rows differ."""
    return [f for f in fields if len({str(row[f]) for row in rows}) > 1]
