"""A table as data: what each cell holds, how it prints, and how it sorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """A column."""

    name: str
    """Of the field, with its unit: heading of CSV files."""
    heading: str
    """For people."""
    right: bool = False
    """Whether it is aligned to the right."""


@dataclass(frozen=True)
class Cell:
    """A cell."""

    text: str
    """As printed."""
    sort: float | str | None = None
    """What it is sorted by."""
    raw: Any = None
    """Unrounded, for CSV files; None: nothing."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be printed in any form."""

    name: str
    """Of its files."""
    title: str
    """One line."""
    caption: str
    """What is in it, and how to read it."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
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


def text(value: str | None) -> Cell:
    """A cell of words."""
    return Cell(ABSENT) if value is None else Cell(value, value, value)
