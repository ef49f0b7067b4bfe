"""Tables as data: the text, sort key and value of each cell; columns that several tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from bench.analysis.findings import Findings
from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.analysis.rows import Row
from bench.analysis.speed import mean_of
from bench.report.format import ABSENT, applicable, percent, points, three_digits
from bench.report.notes import EDGE_MARK

S = TypeVar("S")
T = TypeVar("T")


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
    legend: Sequence[str] = ()
    """Explanations of the columns and words, printed in files that stand alone; the page has them
    once, in its section on methods."""

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON for the page."""
        return {
            **{name: value for name, value in vars(self).items() if name != "legend"},
            "columns": [asdict(column) for column in self.columns],
            "rows": [[{"text": c.text, "sort": c.sort} for c in row] for row in self.rows],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table whose rows are made from things of one type."""

    name: str
    """Field with its unit, the heading in CSV files."""
    heading: str
    cell: Callable[[T], TableCell]
    right: bool = False
    """True if it is aligned to the right."""
    if_any: bool = False
    """True to leave it out if no row has a value."""

    def of(self, thing: Callable[[S], T]) -> Column[S]:
        """Return the same column of a table of other things, by the ``thing`` that each has."""
        return Column(
            self.name, self.heading, lambda other: self.cell(thing(other)), self.right, self.if_any
        )


def table_of(
    things: Sequence[T], columns: Sequence[Column[T]], name: str, title: str, caption: str,
    notes: Mapping[str, object] | None = None, settings: Sequence[str] = (),
    legend: Sequence[str] = (),
) -> Table:  # fmt: skip
    """Build a table with a row for each thing.

    Args:
        notes: Note → a value that is true if the table needs it.
        settings: What distinguishes each row from others that would look alike. They become a
            column behind the backend, unless all are empty.
    """
    cells = [[column.cell(thing) for thing in things] for column in columns]
    shown = [
        (TableColumn(column.name, column.heading, column.right), found)
        for column, found in zip(columns, cells, strict=True)
        if not column.if_any or any(cell.text != ABSENT for cell in found)
    ]
    if any(settings):
        place = [c.name in ("backend", "backends") for c, _ in shown].index(True) + 1
        own = [text(setting or None) for setting in settings]
        shown.insert(place, (TableColumn("setting", "setting"), own))
    rows = list(zip(*(found for _, found in shown), strict=True)) if things else []
    headings = [column for column, _ in shown]
    return Table(name, title, caption, headings, rows, applicable(notes or {}), legend)


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


INTERVALS = (
    "± and ranges in brackets are 95 % intervals, for training again and for other test images."
)


def data_cell(row: Row) -> TableCell:
    """Return the cell of a data set and its number of training images."""
    shown = f"{row.dataset.label}, {row.dataset.train_images:,}"
    if row.dataset.fold is not None:
        shown = f"{row.dataset.label}, {row.dataset.fold.of} folds"
    return figure(shown, f"{row.dataset.label} {row.dataset.train_images:09}", shown)


def group_columns(heading: str = "data, training images") -> list[Column[SeedGroup]]:
    """Return the columns that say what a seed group is: data, network, policy and backend."""
    return [
        Column("data", heading, lambda g: data_cell(g.row)),
        Column("backbone", "backbone", lambda g: text(g.row.spec.backbone)),
        Column("policy", "policy", lambda g: text(policy_variant(g))),
        Column("backend", "backend", lambda g: text(g.row.spec.backend)),
    ]


def accuracy_cell(found: Findings, group: SeedGroup | None) -> TableCell:
    """Return a cell of test top-1 with its interval; None: there is no such group."""
    if group is None:
        return text(None)
    return at_edge(estimated(found.top1(group), percent), [group])


EDGE_NOTE = (
    f"{EDGE_MARK}: validation chose the highest or lowest learning rate tried; a better one may "
    "lie beyond."
)


def at_edge(cell: TableCell, groups: Iterable[SeedGroup]) -> TableCell:
    """Return the cell of an accuracy, marked if it is of runs at the edge of the rates tried."""
    if any(row.is_at_edge for group in groups for row in group.rows):
        return replace(cell, text=f"{cell.text} {EDGE_MARK}")
    return cell


def speed_cell(group: SeedGroup, field: str, unit: str = "") -> TableCell:
    """Return a cell of a rate or time, the geometric mean over the runs; if the machine was busy,
    the range of the runs with a word on it."""
    mean = mean_of(group, field)
    if mean is None:
        return text(None)
    tail = f" {unit}" if unit else ""
    if not group.is_unsteady:
        return figure(three_digits(mean) + tail, mean)
    values = [row[field] for row in group.rows if row[field]]
    shown = dict.fromkeys(three_digits(value) for value in (min(values), max(values)))
    return figure(f"{' to '.join(shown)}{tail}, unsteady", mean)


def speed_column(
    name: str, heading: str, unit: str = "", if_any: bool = False
) -> Column[SeedGroup]:
    """Return the column of a rate or time; see ``speed_cell``."""
    return Column(name, heading, lambda g: speed_cell(g, name, unit), True, if_any)


def count_column(name: str, heading: str) -> Column[SeedGroup]:
    """Return the column of a whole number that all runs of a group share."""
    return Column(name, heading, lambda g: number(g.row[name], "{:,}".format), True)
