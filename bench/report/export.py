"""Tables as Markdown, CSV, HTML and LaTeX, and the files that they are written to."""

from __future__ import annotations

import csv
import errno
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import LATEX_ESCAPE_RULES

from bench.analysis.rows import Row
from bench.errors import UserError
from bench.report.format import some_of
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
IN_THE_WAY = {
    errno.EEXIST: "a file of that name is in the way",
    errno.ENOTDIR: "a file of that name is in the way",
    errno.EISDIR: "a folder of that name is in the way",
}
MOST_NAMED = 5
"""Most files that an error names for one reason."""


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
    cells = []
    for row, shown in zip(rows, column_texts(rows, column), strict=True):
        sort = row["train_images" if column == "size" else column]
        is_sortable = isinstance(sort, int | float | str | None)
        cells.append(TableCell(shown, sort if is_sortable else shown, row[column]))
    return cells


def as_text(table: Table, form: Format | Literal["terminal"]) -> str:
    """Return a table in one format, with its title, caption and notes where the format allows."""
    if form == "csv":
        return _csv(table)
    texts = [[cell.text for cell in row] for row in table.rows]
    frame = pd.DataFrame(texts, columns=[c.heading for c in table.columns], dtype=object)
    body = render(frame, form, {c.heading for c in table.columns if c.right})
    if form == "terminal":
        return "\n".join([table.title, body, *table.notes, ""])
    lines = [table.caption, *table.notes]
    if form == "latex":
        escaped = ("".join(LATEX_ESCAPE_RULES.get(c, c) for c in line) for line in lines)
        small = in_latex("\n\n".join(escaped))
        return f"{body}\n\n{{\\footnotesize {small}\\par}}\n"
    if form == "html":
        return f"{body}\n" + "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
    notes = "".join(f"\n- {markdown_line(note)}" for note in table.notes)
    title, caption = markdown_line(table.title), markdown_line(table.caption)
    return f"## {title}\n\n{caption}\n\n{body}\n{notes}"


def _csv(table: Table) -> str:
    """Return a table with unrounded values and a column for each end of an interval."""
    columns: list[list[Any]] = []
    for place, column in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        columns.append([column.name, *(safe(cell.raw) for cell in cells)])
        if any(cell.ends is not None for cell in cells):
            low, high = zip(*(cell.ends or (None, None) for cell in cells), strict=True)
            columns += [[f"{column.name}_low", *low], [f"{column.name}_high", *high]]
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(zip(*columns, strict=True))
    return out.getvalue()


def table_texts(
    rows: Sequence[Row] | None,
    tables: Sequence[Table],
    formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file of the table of runs (unless ``rows`` is None) and of
    all other ``tables``; ``columns`` as for ``runs_text``."""
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


class Attempts:
    """Writes files into a folder, and goes on where one cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed: dict[str, list[str]] = {}
        self.written: list[Path] = []

    @contextmanager
    def at(self, path: Path, is_listed: bool = True) -> Iterator[None]:
        """Note an OSError of writing a file, or else list the file in ``written``."""
        try:
            yield
        except OSError as error:
            reason = IN_THE_WAY.get(error.errno or 0) or error.strerror or str(error)
            self._failed.setdefault(reason, []).append(str(path.relative_to(self._folder)))
        else:
            self.written += [path] if is_listed else []

    def tables(self, texts: Iterable[tuple[str, str]], replaced: Iterable[str]) -> None:
        """Write ``tables/*`` by name and text, and first remove what an earlier report left there
        under the ``replaced`` names (patterns without endings)."""
        folder = self._folder / "tables"
        with self.at(folder, is_listed=False):
            folder.mkdir(parents=True, exist_ok=True)
            for name, ending in product(replaced, ENDINGS.values()):
                for old in folder.glob(f"{name}.{ending}"):
                    if not old.is_dir():
                        old.unlink()
            for name, text in texts:
                with self.at(folder / name):
                    replace_text(folder / name, text.rstrip("\n") + "\n")

    def check(self) -> None:
        """Raise NotWritten if a file could not be written."""
        if not self._failed:
            return
        reasons = "; ".join(
            f"{some_of(names, MOST_NAMED)}: {why}" for why, names in self._failed.items()
        )
        raise NotWritten(
            f"Cannot write the report to '{self._folder}': {reasons}.",
            "All other files were written." if self.written else None,
            self.written,
        )
