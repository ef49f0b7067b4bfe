"""Tables as Markdown, CSV, HTML and LaTeX, and the files that they are written to."""

from __future__ import annotations

import errno
import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import LATEX_ESCAPE_RULES

from bench.analysis.rows import Row
from bench.errors import UserError
from bench.report.format import some_of
from bench.report.markdown import markdown_line
from bench.report.tables.model import Table
from bench.report.tables.runs import Format, csv_text, in_latex, render, runs_text
from bench.storage.text_files import printable, replace_text

NAMES = ("table", "average", "cases", "policies", "backbones", "backends", "cost", "failed")
"""Names of the files of a report's tables, those of earlier versions included."""
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


def as_text(table: Table, form: Format) -> str:
    """Return a table in one format, with its title, caption and notes where the format allows."""
    if form == "csv":
        return _csv(table)
    texts = [[printable(cell.text) for cell in row] for row in table.rows]
    frame = pd.DataFrame(texts, columns=[c.heading for c in table.columns], dtype=object)
    body = render(frame, form, {c.heading for c in table.columns if c.right})
    reading = [*table.legend, *table.notes]
    lines = [table.caption, *reading]
    if form == "latex":
        small = in_latex("".join(LATEX_ESCAPE_RULES.get(c, c) for c in "\n\n".join(lines)))
        return f"{body}\n\n{{\\footnotesize {small}\\par}}\n"
    if form == "html":
        return f"{body}\n" + "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
    notes = "".join(f"\n- {markdown_line(note)}" for note in reading)
    title, caption = markdown_line(table.title), markdown_line(table.caption)
    return f"## {title}\n\n{caption}\n\n{body}\n{notes}"


def _csv(table: Table) -> str:
    """Return a table with unrounded values and a column for each end of an interval."""
    columns: list[list[Any]] = []
    for place, column in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        columns.append([column.name, *(cell.raw for cell in cells)])
        if any(cell.estimate for cell in cells):
            for end in ("low", "high"):
                values = (getattr(cell.estimate, end, None) for cell in cells)
                columns.append([f"{column.name}_{end}", *values])
    return csv_text(zip(*columns, strict=True))


def table_texts(
    rows: Sequence[Row] | None, tables: Sequence[Table], formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Yield the name and text of each file of the table of runs (unless ``rows`` is None) and of
    all other ``tables``; ``columns`` as for ``runs_text``."""
    for form in formats if rows is not None else ():
        yield f"table.{ENDINGS[form]}", runs_text(rows or [], form, columns)
    for table in tables:
        for form in formats:
            yield f"{table.name}.{ENDINGS[form]}", as_text(table, form)


class NotWritten(UserError):
    """An error: files of a report could not be written."""

    is_answered = True

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
            if folder.is_symlink():
                raise OSError(errno.ELOOP, "it is a symbolic link, which may lead anywhere")
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
        failed = [f"{some_of(names, MOST_NAMED)}: {why}" for why, names in self._failed.items()]
        if failed:
            raise NotWritten(
                f"Cannot write the report to '{self._folder}': {'; '.join(failed)}.",
                "All other files were written." if self.written else None,
                self.written,
            )
