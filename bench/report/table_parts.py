"""Cells and columns that the tables of a report have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.report.cells import Cell, Contest
from bench.report.settings import settings
from bench.report.table_model import Cell as TableCell
from bench.report.table_model import Column, Table, estimated, figure, text
from bench.report.twins import Row
from bench.report.words import number_of, percent

SPEAKS = (
    "With three seeds or more intervals speak of the recipes: training again, and other test "
    "images. With fewer they speak of these trained models alone, on other test images."
)
INTERVALS = f"± and ranges in brackets are 95 % intervals. {SPEAKS}"


def data_of(row: Row) -> str:
    """Data set and number of training images."""
    return f"{row['dataset_label']}, {row['train_images']:,}"


def common(row: Row) -> list[TableCell]:
    """Data, network and backend, as most tables begin."""
    return [
        figure(data_of(row), f"{row['dataset_label']} {row['train_images']:09}", data_of(row)),
        text(row["backbone"]),
    ]


COMMON = (Column("data", "data, training images"), Column("backbone", "backbone"))


def accuracy_of(cell: Cell) -> TableCell:
    """Test top-1 with its interval."""
    return estimated(percent(cell.top1), cell.top1)


def seeds_of(cell: Cell) -> TableCell:
    """How many, and how many there should be."""
    count = len(cell.rows)
    return figure(f"{count} of {count + cell.lost}" if cell.lost else str(count), count)


def told_apart(
    table: Table, cells: Sequence[Cell], by_policy: bool = True, beside: Sequence[Cell] = ()
) -> Table:
    """A table with a column of settings, where some of its rows would look alike without.

    Args:
        table: One row for each of ``cells``.
        cells: That its rows are about.
        by_policy: Whether the table has a column of policies.
        beside: Of a table of pairs, the second of each.
    """
    found = settings(cells, by_policy)
    if beside:
        others = settings(beside, by_policy)
        both = zip(found, others, [c.row["backend"] for c in beside], strict=True)
        found = ["; ".join(filter(None, (one, other and f"{name}: {other}")))
                 if one != other else one for one, other, name in both]  # fmt: skip
    if not any(found):
        return table
    place = setting_place(table.columns)
    rows = [[*row[:place], text(told or None), *row[place:]]
            for row, told in zip(table.rows, found, strict=True)]  # fmt: skip
    columns = [*table.columns[:place], Column("setting", "setting"), *table.columns[place:]]
    return replace(table, columns=columns, rows=rows)


def setting_place(columns: Sequence[Column]) -> int:
    """Where the column of settings is: beside what it tells apart, in sight."""
    return [column.name in ("backend", "backends") for column in columns].index(True) + 1


def passed_over(contests: Sequence[Contest]) -> list[str]:
    """A note on settings that do not compete."""
    beside, random = (sum(c.passed_over for c in contests),
                      sum(len(c.pretended) for c in contests))  # fmt: skip
    notes = []
    if random:
        notes.append(
            f"{number_of(random, 'experiment')} with random weights in the place of pretrained "
            "ones did not compete with those."
        )
    if not beside:
        return notes
    return [
        *notes,
        f"{beside} further settings of the same policies (learning rates, weight decays and the "
        "like) do not compete: of each policy the one with the best validation "
        "accuracy does.",
    ]
