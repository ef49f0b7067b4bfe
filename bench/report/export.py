"""Tables in the forms that they are written in."""

from __future__ import annotations

import csv
import errno
import html
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import LATEX_ESCAPE_RULES

from bench.analysis.rows import Row
from bench.errors import UserError
from bench.report.markdown import markdown_line
from bench.report.tables.model import Table, TableCell, TableColumn
from bench.report.tables.runs import (
    Format,
    column_texts,
    columns_of,
    heading,
    holds_numbers,
    in_latex,
    render,
    runs_text,
    safe,
)
from bench.storage.text_files import replace_text

NAMES = ("table", "cases", "policies", "backbones", "backends", "cost", "failed", "side_by_side*")
"""Of the files of tables."""
ENDINGS: dict[Format, str] = {"md": "md", "csv": "csv", "html": "html", "latex": "tex"}
"""Of the files of each form."""


def runs_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> Table:
    """The table of runs for the page, one row a run."""
    order = [*(columns_of(rows) if columns is None else columns)]
    order += [] if "run_id" in order else ["run_id"]
    return Table(
        "runs",
        "All runs",
        "One row a run, nothing averaged.",
        [TableColumn(c, heading(c), holds_numbers(rows, c)) for c in order],
        list(zip(*(_cells(rows, c) for c in order), strict=True)),
    )


def _cells(rows: Sequence[Row], column: str) -> list[TableCell]:
    sorts = [row["train_images" if column == "size" else column] for row in rows]
    both = zip(column_texts(rows, column), sorts, rows, strict=True)
    return [TableCell(shown, _sorted_by(shown, sort), row[column]) for shown, sort, row in both]


def _sorted_by(shown: str, value: Any) -> float | str | None:
    return value if isinstance(value, int | float | str) or value is None else shown


def as_text(table: Table, form: Format | Literal["terminal"]) -> str:
    """A table in one form, with its title, caption and notes where the form has room for them."""
    if form == "csv":
        return to_csv(table)
    frame = pd.DataFrame(
        [[cell.text for cell in row] for row in table.rows],
        columns=[c.heading for c in table.columns],
        dtype=object,
    )
    right = frozenset(c.heading for c in table.columns if c.right)
    body = render(frame, form, right)
    if form == "terminal":
        return "\n".join([table.title, body, *table.notes, ""])
    said = [table.caption, *table.notes]
    if form == "latex":
        small = "\n\n".join(latex(line) for line in said)
        return f"{body}\n\n{{\\footnotesize {small}\\par}}\n"
    if form == "html":
        return f"{body}\n" + "".join(f"<p>{html.escape(line)}</p>\n" for line in said)
    notes = "".join(f"\n- {markdown_line(note)}" for note in table.notes)
    title, caption = markdown_line(table.title), markdown_line(table.caption)
    return f"## {title}\n\n{caption}\n\n{body}\n{notes}"


def latex(words: str) -> str:
    """Words that stay words in LaTeX."""
    escaped = "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in words)
    return in_latex(escaped)


def to_csv(table: Table) -> str:
    """Unrounded, with a column for each end of an interval."""
    spread = [any(row[i].ends is not None for row in table.rows) for i in range(len(table.columns))]
    headings: list[str] = []
    for column, wide in zip(table.columns, spread, strict=True):
        headings += [column.name]
        headings += [f"{column.name}_low", f"{column.name}_high"] if wide else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(headings)
    for row in table.rows:
        cells: list[Any] = []
        for cell, wide in zip(row, spread, strict=True):
            cells += [safe(cell.raw)]
            cells += list(cell.ends or (None, None)) if wide else []
        writer.writerow(cells)
    return out.getvalue()


def table_texts(
    rows: Sequence[Row],
    tables: Sequence[Table],
    formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Name and text of each file of tables.

    Args:
        rows: Of the table of runs.
        tables: All others.
        formats: Each table comes in all of them.
        columns: Of the table of runs; None: the standard ones, and all fields in the CSV file.
    """
    for form in formats:
        yield f"table.{ENDINGS[form]}", runs_text(rows, form, columns)
    for table in tables:
        for form in formats:
            yield f"{table.name}.{ENDINGS[form]}", as_text(table, form)


class NotWritten(UserError):
    """Some of a report cannot be written."""

    def __init__(self, message: str, hint: str | None, written: list[Path]) -> None:
        super().__init__(message, hint)
        self.written = written
        """What has been, all the same."""


IN_THE_WAY = {
    errno.EEXIST: "a file of that name is in the way",
    errno.ENOTDIR: "a file of that name is in the way",
    errno.EISDIR: "a folder of that name is in the way",
}
MOST_NAMED = 5
"""Files that an error names for one reason."""


class Attempts:
    """Writes files into a folder; one that cannot be written stops no other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed: dict[str, list[str]] = {}
        self.written: list[Path] = []
        """In this order."""

    def run(self, path: Path, write: Callable[[Path], object], is_told: bool = True) -> None:
        """Write one file, that is or is not to be among those that were ``written``."""
        try:
            write(path)
        except OSError as error:
            reason = IN_THE_WAY.get(error.errno or 0) or error.strerror or str(error)
            self._failed.setdefault(reason, []).append(str(path.relative_to(self._folder)))
            return
        self.written += [path] if is_told else []

    def tables(self, texts: Iterable[tuple[str, str]]) -> None:
        """Write ``tables/*``. What an earlier report left of tables that have no rows now, or of
        another selection, is removed."""
        folder = self._folder / "tables"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clear(folder)
        except OSError as error:
            self.run(folder, partial(_fail, error))
            return
        for name, text in texts:
            self.run(folder / name, partial(replace_text, text=text.rstrip("\n") + "\n"))

    def check(self) -> None:
        """
        Raises:
            NotWritten: Something could not be written.
        """
        if not self._failed:
            return
        told = "; ".join(f"{_some(names)}: {why}" for why, names in self._failed.items())
        raise NotWritten(
            f"Cannot write the report to '{self._folder}': {told}.",
            "All else was written." if self.written else None,
            self.written,
        )


def _fail(error: OSError, path: Path) -> None:
    raise error


def _some(names: Sequence[str]) -> str:
    left = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _clear(folder: Path) -> None:
    for name in NAMES:
        for ending in ENDINGS.values():
            for old in folder.glob(f"{name}.{ending}"):
                if not old.is_dir():
                    old.unlink()
