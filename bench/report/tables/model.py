"""A table as data: what each cell holds, how it prints, and how it sorts.

Cells and columns that the tables of a report have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.analysis.groups import Contest, SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.rows import Row
from bench.report.format import ABSENT, number_of, percent
from bench.report.labels import settings


@dataclass(frozen=True)
class TableColumn:
    """A column."""

    name: str
    """Of the field, with its unit: heading of CSV files."""
    heading: str
    """For people."""
    right: bool = False
    """Whether it is aligned to the right."""


@dataclass(frozen=True)
class TableCell:
    """A cell."""

    text: str
    """As printed."""
    sort: float | str | None = None
    """What it is sorted by."""
    raw: Any = None
    """Unrounded, for CSV files; None: nothing."""
    ends: tuple[float | None, float | None] | None = None
    """Of its interval, for CSV files; None: a figure that has none."""
    estimate: Estimate | None = None
    """That it shows; None: it shows none."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be printed in any form."""

    name: str
    """Of its files."""
    title: str
    """One line."""
    caption: str
    """What is in it, and how to read it."""
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[TableCell]]
    notes: Sequence[str] = field(default=())
    """What a reader must know."""

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "columns": [
                {"name": c.name, "heading": c.heading, "right": c.right} for c in self.columns
            ],
            "rows": [[{"text": c.text, "sort": c.sort} for c in row] for row in self.rows],
            "notes": list(self.notes),
        }


def text(value: str | None) -> TableCell:
    """A cell of words."""
    return TableCell(ABSENT) if value is None else TableCell(value, value, value)


def figure(shown: str, value: float | str | None = None, raw: Any = None) -> TableCell:
    """A cell of a figure, or of what sorts as another text than it shows."""
    return TableCell(shown, value, value if raw is None else raw)


def estimated(shown: str, e: Estimate) -> TableCell:
    """A cell of a figure with an interval."""
    return TableCell(shown, e.value, e.value, (e.low, e.high), e)


SPEAKS = (
    "With three seeds or more intervals speak of the recipes: training again, and other test "
    "images. With fewer they speak of these trained models alone, on other test images."
)
INTERVALS = f"± and ranges in brackets are 95 % intervals. {SPEAKS}"


def data_of(row: Row) -> str:
    """Data set and number of training images."""
    return f"{row.dataset.label}, {row.dataset.train_images:,}"


def common(row: Row) -> list[TableCell]:
    """Data, network and backend, as most tables begin."""
    return [
        figure(
            data_of(row),
            f"{row.dataset.label} {row.dataset.train_images:09}",
            data_of(row),
        ),
        text(row.spec.backbone),
    ]


COMMON = (TableColumn("data", "data, training images"), TableColumn("backbone", "backbone"))


def accuracy_of(cell: SeedGroup) -> TableCell:
    """Test top-1 with its interval."""
    return estimated(percent(cell.top1), cell.top1)


def seeds_of(cell: SeedGroup) -> TableCell:
    """How many, and how many there should be."""
    count = len(cell.rows)
    return figure(f"{count} of {count + cell.lost}" if cell.lost else str(count), count)


def told_apart(
    table: Table,
    cells: Sequence[SeedGroup],
    by_policy: bool = True,
    beside: Sequence[SeedGroup] = (),
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
        both = zip(found, others, [c.row.spec.backend for c in beside], strict=True)
        found = ["; ".join(filter(None, (one, other and f"{name}: {other}")))
                 if one != other else one for one, other, name in both]  # fmt: skip
    if not any(found):
        return table
    place = setting_place(table.columns)
    rows = [[*row[:place], text(told or None), *row[place:]]
            for row, told in zip(table.rows, found, strict=True)]  # fmt: skip
    columns = [*table.columns[:place], TableColumn("setting", "setting"), *table.columns[place:]]
    return replace(table, columns=columns, rows=rows)


def setting_place(columns: Sequence[TableColumn]) -> int:
    """Where the column of settings is: beside what it tells apart, in sight."""
    return [column.name in ("backend", "backends") for column in columns].index(True) + 1


def passed_over(contests: Sequence[Contest]) -> list[str]:
    """A note on settings that do not compete."""
    beside, random = (sum(c.passed_over for c in contests),
                      sum(len(c.unpretrained) for c in contests))  # fmt: skip
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
