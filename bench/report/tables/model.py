"""Tables as data: the text, sort key and value of each cell; cells that several tables share."""

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
    """A column of a table."""

    name: str
    """Field with its unit, the heading in CSV files."""
    heading: str
    """Heading for readers."""
    right: bool = False
    """True if it is aligned to the right."""


@dataclass(frozen=True)
class TableCell:
    """A cell of a table."""

    text: str
    """Text as printed."""
    sort: float | str | None = None
    """Sort key; None sorts last."""
    raw: Any = None
    """Unrounded value for CSV files; None: empty."""
    ends: tuple[float | None, float | None] | None = None
    """Ends of the interval for CSV files; None: no interval."""
    estimate: Estimate | None = None
    """Estimate that the cell shows, if any."""


@dataclass(frozen=True)
class Table:
    """A table that can be printed in any format."""

    name: str
    """Name of its files, without ending."""
    title: str
    """Title, one line."""
    caption: str
    """Contents, and how to read them."""
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[TableCell]]
    notes: Sequence[str] = field(default=())
    """Notes below the table."""

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON for the page."""
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
    """Return a cell of words."""
    return TableCell(ABSENT) if value is None else TableCell(value, value, value)


def figure(shown: str, value: float | str | None = None, raw: Any = None) -> TableCell:
    """Return a cell of a number, or of a text with another sort key."""
    return TableCell(shown, value, value if raw is None else raw)


def estimated(shown: str, e: Estimate) -> TableCell:
    """Return a cell of an estimate."""
    return TableCell(shown, e.value, e.value, (e.low, e.high), e)


SCOPE = (
    "With three seeds or more, intervals cover training again and other test images. With fewer "
    "seeds, they cover other test images for these trained models alone."
)
INTERVALS = f"± and ranges in brackets are 95 % intervals. {SCOPE}"


def data_of(row: Row) -> str:
    """Return the data set and its number of training images, as the column's heading says."""
    return f"{row.dataset.label}, {row.dataset.train_images:,}"


def common(row: Row) -> list[TableCell]:
    """Return the cells of ``COMMON``: data and network."""
    return [
        figure(
            data_of(row),
            f"{row.dataset.label} {row.dataset.train_images:09}",
            data_of(row),
        ),
        text(row.spec.backbone),
    ]


COMMON = (TableColumn("data", "data, training images"), TableColumn("backbone", "backbone"))


def accuracy_of(group: SeedGroup) -> TableCell:
    """Return a cell of test top-1 with its interval."""
    return estimated(percent(group.top1), group.top1)


def seeds_of(group: SeedGroup) -> TableCell:
    """Return a cell of the number of seeds, and of how many there should be."""
    count = len(group.rows)
    return figure(f"{count} of {count + group.lost}" if group.lost else str(count), count)


def with_settings(
    table: Table,
    groups: Sequence[SeedGroup],
    by_policy: bool = True,
    beside: Sequence[SeedGroup] = (),
) -> Table:
    """Return the table, with a column of settings if some rows would look alike without it.

    Args:
        table: A table with one row for each of ``groups``.
        groups: Seed groups of the rows.
        by_policy: True if the table has a column of policies.
        beside: Second seed group of each row, for tables of pairs.
    """
    found = settings(groups, by_policy)
    if beside:
        others = settings(beside, by_policy)
        both = zip(found, others, [c.row.spec.backend for c in beside], strict=True)
        found = ["; ".join(filter(None, (one, other and f"{name}: {other}")))
                 if one != other else one for one, other, name in both]  # fmt: skip
    if not any(found):
        return table
    place = setting_place(table.columns)
    rows = [[*row[:place], text(setting or None), *row[place:]]
            for row, setting in zip(table.rows, found, strict=True)]  # fmt: skip
    columns = [*table.columns[:place], TableColumn("setting", "setting"), *table.columns[place:]]
    return replace(table, columns=columns, rows=rows)


def setting_place(columns: Sequence[TableColumn]) -> int:
    """Return the position of the column of settings, behind the backend."""
    return [column.name in ("backend", "backends") for column in columns].index(True) + 1


def passed_over(contests: Sequence[Contest]) -> list[str]:
    """Return notes on seed groups that do not compete."""
    beside, random = (sum(c.passed_over for c in contests),
                      sum(len(c.unpretrained) for c in contests))  # fmt: skip
    notes = []
    if random:
        notes.append(
            f"{number_of(random, 'experiment')} with random instead of pretrained weights did not "
            "compete."
        )
    if not beside:
        return notes
    return [
        *notes,
        f"{beside} further settings of the same policies (such as learning rates) do not compete. "
        "Each policy competes with its setting of best validation accuracy.",
    ]
