"""Tables as Markdown, CSV, HTML and LaTeX, and the files that they are written to."""

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

NAMES = ("table", "cases", "policies", "backbones", "backends", "cost", "failed")
"""Names of the files of a report's tables."""
COMPARISON = "side_by_side*"
"""Pattern of the files of tables that compare two folders."""
ENDINGS: dict[Format, str] = {"md": "md", "csv": "csv", "html": "html", "latex": "tex"}
"""Format → ending of its files."""


def runs_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> Table:
    """Return the table of runs for the page, one row a run."""
    order = [*(columns_of(rows) if columns is None else columns)]
    order += [] if "run_id" in order else ["run_id"]
    return Table(
        "runs",
        "All runs",
        "One row a run; nothing is averaged.",
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
    """Return a table in one format, with its title, caption and notes where the format allows."""
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
    lines = [table.caption, *table.notes]
    if form == "latex":
        small = "\n\n".join(latex(line) for line in lines)
        return f"{body}\n\n{{\\footnotesize {small}\\par}}\n"
    if form == "html":
        return f"{body}\n" + "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
    notes = "".join(f"\n- {markdown_line(note)}" for note in table.notes)
    title, caption = markdown_line(table.title), markdown_line(table.caption)
    return f"## {title}\n\n{caption}\n\n{body}\n{notes}"


def latex(words: str) -> str:
    """Return plain text escaped for LaTeX."""
    escaped = "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in words)
    return in_latex(escaped)


def to_csv(table: Table) -> str:
    """Return a table with unrounded values and a column for each end of an interval."""
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
    rows: Sequence[Row] | None,
    tables: Sequence[Table],
    formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file.

    Args:
        rows: Rows of the table of runs; None: leave that table out.
        tables: All other tables.
        formats: Formats to write each table in.
        columns: Columns of the table of runs; None: the standard ones, and all in its CSV file.
    """
    for form in formats if rows is not None else ():
        yield f"table.{ENDINGS[form]}", runs_text(rows or [], form, columns)
    for table in tables:
        for form in formats:
            yield f"{table.name}.{ENDINGS[form]}", as_text(table, form)


class NotWritten(UserError):
    """An error: files of a report could not be written."""

    def __init__(self, message: str, hint: str | None, written: list[Path]) -> None:
        super().__init__(message, hint)
        self.written = written
        """The files that were written nevertheless."""


IN_THE_WAY = {
    errno.EEXIST: "a file of that name is in the way",
    errno.ENOTDIR: "a file of that name is in the way",
    errno.EISDIR: "a folder of that name is in the way",
}
MOST_NAMED = 5
"""Most files that an error names for one reason."""


class Attempts:
    """Writes files into a folder, and goes on where one cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed: dict[str, list[str]] = {}
        self.written: list[Path] = []

    def run(self, path: Path, write: Callable[[Path], object], is_listed: bool = True) -> None:
        """Write one file, and list it in ``written`` if ``is_listed``."""
        try:
            write(path)
        except OSError as error:
            reason = IN_THE_WAY.get(error.errno or 0) or error.strerror or str(error)
            self._failed.setdefault(reason, []).append(str(path.relative_to(self._folder)))
            return
        self.written += [path] if is_listed else []

    def tables(self, texts: Iterable[tuple[str, str]], replaced: Iterable[str]) -> None:
        """Write ``tables/*``, and remove what an earlier report left there.

        Args:
            texts: Name and text of each file.
            replaced: Patterns of names, without endings, of the files to remove first.
        """
        folder = self._folder / "tables"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clear(folder, replaced)
        except OSError as error:
            self.run(folder, partial(_fail, error))
            return
        for name, text in texts:
            self.run(folder / name, partial(replace_text, text=text.rstrip("\n") + "\n"))

    def check(self) -> None:
        """Raise NotWritten if a file could not be written."""
        if not self._failed:
            return
        reasons = "; ".join(f"{_some(names)}: {why}" for why, names in self._failed.items())
        raise NotWritten(
            f"Cannot write the report to '{self._folder}': {reasons}.",
            "All other files were written." if self.written else None,
            self.written,
        )


def _fail(error: OSError, path: Path) -> None:
    raise error


def _some(names: Sequence[str]) -> str:
    left = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _clear(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        for ending in ENDINGS.values():
            for old in folder.glob(f"{name}.{ending}"):
                if not old.is_dir():
                    old.unlink()
