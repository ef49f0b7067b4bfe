"""Tables in the forms that they are written in."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import LATEX_ESCAPE_RULES

from bench.report.table_model import Cell, Column, Table
from bench.report.tables import (
    RIGHT,
    Format,
    cell_text,
    columns_of,
    heading,
    in_latex,
    markdown,
    render,
    safe,
)
from bench.report.twins import Row

NAMES = ("cases", "policies", "backbones", "backends", "cost", "failed")
"""Of the tables of ``standard_set``."""


def runs_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> Table:
    """The table of runs for the page, one row a run."""
    order = [*(columns_of(rows) if columns is None else columns)]
    order += [] if "run_id" in order else ["run_id"]
    return Table(
        "runs",
        "All runs",
        "One row a run, nothing averaged.",
        [Column(c, heading(c), heading(c) in RIGHT) for c in order],
        [[Cell(cell_text(row, c), _sorted_by(row, c), row[c]) for c in order] for row in rows],
    )


def _sorted_by(row: Row, column: str) -> float | str | None:
    value = row["train_images"] if column == "size" else row[column]
    return value if isinstance(value, int | float | str) or value is None else str(value)


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
    notes = "".join(f"\n- {markdown(note)}" for note in table.notes)
    return f"## {table.title}\n\n{markdown(table.caption)}\n\n{body}\n{notes}"


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


def write_set(tables: Sequence[Table], folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write ``NAME.md``, ``NAME.csv`` … of each table; returns the paths. What an earlier report
    left of tables that have no rows now is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*NAMES, "side_by_side*"):
        for ending in ("md", "csv", "html", "tex"):
            for old in folder.glob(f"{name}.{ending}"):
                old.unlink()
    paths = []
    for table in tables:
        for form in formats:
            path = folder / f"{table.name}.{'tex' if form == 'latex' else form}"
            path.write_text(as_text(table, form).rstrip("\n") + "\n", encoding="utf-8")
            paths.append(path)
    return paths
