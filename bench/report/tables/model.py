"""Tables as data: the text, sort key and value of each cell; columns that several tables share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.analysis.groups import Contest, SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.analysis.rows import Row
from bench.errors import number_of
from bench.report.format import ABSENT, applicable, percent, points


@dataclass(frozen=True)
class TableColumn:
    """A column of a table."""

    name: str
    """Field with its unit, the heading in CSV files."""
    heading: str
    right: bool = False
    """True if it is aligned to the right."""


@dataclass(frozen=True)
class TableCell:
    """A cell of a table."""

    text: str
    sort: float | str | None = None
    """Sort key; None sorts last."""
    raw: Any = None
    """Unrounded value for CSV files; None: empty."""
    estimate: Estimate | None = None
    """Estimate of which CSV files have the interval; None: not an estimate."""


@dataclass(frozen=True)
class Table:
    """A table that can be printed in any format."""

    name: str
    """Name of its files, without ending."""
    title: str
    caption: str
    """Contents, and how to read them."""
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[TableCell]]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON for the page."""
        return {
            **vars(self),
            "columns": [asdict(column) for column in self.columns],
            "rows": [[{"text": c.text, "sort": c.sort} for c in row] for row in self.rows],
            "notes": list(self.notes),
        }


Line = dict[TableColumn, TableCell]
"""A row of a table with its columns."""


def table_of(
    lines: Sequence[Line], name: str, title: str, caption: str, notes: Mapping[str, object],
    settings: Sequence[str] = (),
) -> Table:  # fmt: skip
    """Build a table of lines that have the same columns.

    Args:
        notes: Note → a value that is true if the table needs it.
        settings: What distinguishes each row from others that would look alike. They become a
            column behind the backend, unless all are empty.
    """
    columns, rows = list(lines[0]) if lines else [], [list(line.values()) for line in lines]
    if any(settings):
        place = [column.name in ("backend", "backends") for column in columns].index(True) + 1
        columns.insert(place, TableColumn("setting", "setting"))
        for row, setting in zip(rows, settings, strict=True):
            row.insert(place, text(setting or None))
    return Table(name, title, caption, columns, rows, applicable(notes))


def text(value: str | None) -> TableCell:
    """Return a cell of words."""
    return TableCell(ABSENT) if value is None else TableCell(value, value, value)


def figure(shown: str, value: float | str | None = None, raw: Any = None) -> TableCell:
    """Return a cell whose text does not follow from its sort key."""
    return TableCell(shown, value, value if raw is None else raw)


def number(value: float | None, words: Callable[[Any], str] = str) -> TableCell:
    """Return a cell of a number, if there is one, with its text by ``words``."""
    return text(None) if value is None else TableCell(words(value), value, value)


def estimated(e: Estimate | None, words: Callable[[Estimate], str] = points) -> TableCell:
    """Return a cell of an estimate, if there is one, with its text by ``words``."""
    return TableCell(words(e), e.value, e.value, e) if e else text(None)


SCOPE = (
    "With three seeds or more, intervals cover training again and other test images. With fewer "
    "seeds, they cover other test images for these trained models alone."
)
INTERVALS = f"± and ranges in brackets are 95 % intervals. {SCOPE}"


def common(row: Row, heading: str = "data, training images", unit: str = "") -> Line:
    """Return the columns of data (with the number of training images) and network."""
    data = f"{row.dataset.label}, {row.dataset.train_images:,}{unit}"
    sort = f"{row.dataset.label} {row.dataset.train_images:09}"
    return {
        TableColumn("data", heading): figure(data, sort, data),
        TableColumn("backbone", "backbone"): text(row.spec.backbone),
    }


def policy_and_backend(group: SeedGroup) -> Line:
    """Return the columns of policy and backend."""
    return {
        TableColumn("policy", "policy"): text(policy_variant(group)),
        TableColumn("backend", "backend"): text(group.row.spec.backend),
    }


def accuracy_of(group: SeedGroup | None) -> TableCell:
    """Return a cell of test top-1 with its interval; None: there is no such group."""
    return estimated(group.top1 if group else None, percent)


def passed_over(contests: Sequence[Contest]) -> dict[str, object]:
    """Return notes on seed groups that do not compete, for ``table_of``."""
    random = sum(len(c.unpretrained) for c in contests)
    beside = sum(c.passed_over for c in contests)
    return {
        f"{number_of(random, 'experiment')} with random instead of pretrained weights did not "
        "compete.": random,
        f"{beside} further settings of the same policies (such as learning rates) do not compete. "
        "Each policy competes with its setting of best validation accuracy.": beside,
    }
