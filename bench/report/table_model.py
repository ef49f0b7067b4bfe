"""A table as data: what each cell holds, how it prints, and how it sorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.statistics import Estimate

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


def figure(shown: str, value: float | str | None = None, raw: Any = None) -> Cell:
    """A cell of a figure, or of what sorts as another text than it shows."""
    return Cell(shown, value, value if raw is None else raw)


def estimated(shown: str, e: Estimate) -> Cell:
    """A cell of a figure with an interval."""
    return Cell(shown, e.value, e.value, (e.low, e.high), e)
