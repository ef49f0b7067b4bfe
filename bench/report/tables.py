"""The standard table, for people: pandas for the columns, tabulate for the text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from bench.report.notes import footnotes, reasons
from bench.report.table_model import ABSENT
from bench.report.twins import Row

Format = Literal["md", "csv", "html", "latex"]
FORMATS: tuple[Format, ...] = ("md", "csv", "html", "latex")


def _integer(value: Any) -> str:
    return f"{int(value):,}"


def _rate(value: Any) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: Any) -> str:
    return f"{value:.1%}"


def _text(value: Any) -> str:
    return str(value)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "case": ("case", _integer),
    "size": ("size (images)", _text),
    "similarity": ("similarity", lambda value: str(value).replace("_", " ")),
    "dataset_label": ("data", _text),
    "backbone": ("backbone", _text),
    "policy": ("policy", _text),
    "backend": ("backend", _text),
    "test_top1": ("test top-1", _percent),
    "train_images_per_s": ("train images/s", _rate),
    "effective_images_per_s": ("effective images/s", _rate),
    "model_flop_utilisation": ("model FLOP utilisation", _percent),
    "infer_images_per_s": ("infer images/s", _rate),
    "total_parameters": ("total parameters", _integer),
    "trainable_parameters": ("trainable parameters", _integer),
    "fit_s": ("fit s", lambda value: f"{value:.1f}"),
    "parity": ("parity", lambda value: str(value).replace("_", " ")),
    "status": ("status", _text),
}
"""Field of a row → heading and how a value is printed."""
WHERE_PRESENT = frozenset({"effective_images_per_s", "model_flop_utilisation"})
"""Columns that stand only in tables that have a value for them."""

DISTINGUISHING: dict[str, str] = {
    "boundary": "trained from",
    "mode": "mode",
    "head": "head",
    "weights": "weights",
    "code_sha256": "code",
    "precision": "precision",
    "px": "px",
    "batch_size": "batch",
    "epochs": "epochs",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "tune": "tuned",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "schedule": "schedule",
    "warmup_fraction": "warm-up",
    "augmentation": "augmentation",
    "views": "views",
    "prefix_cache": "prefix cache",
    "sweep": "trained",
    "val_images": "val images",
    "test_images": "test images",
    "seed": "seed",
    "device": "device",
    "device_model": "device model",
    "environment_id": "environment",
    "dataset_hash": "data hash",
    "run_id": "run",
}
"""Columns that are shown where two rows would look the same without them."""

HASHES = frozenset({"code_sha256", "dataset_hash"})
"""Of which a table shows the beginning."""
ALWAYS_SHOWN = frozenset({"weights", "px", "epochs", "test_images"})
"""Distinguishing columns that stand in every table: random weights must be seen, for one."""


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """All fields of the rows, one row a run; objects are kept as they are."""
    return pd.DataFrame(list(rows), dtype=object)


def standard_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table as text, ready to print; rows that differ in anything look different.

    Args:
        rows: From ``rows_of``.
        columns: Fields of rows; None: those of ``columns_of``.

    Returns:
        A frame of strings, headings as columns.
    """
    order = columns_of(rows) if columns is None else columns
    return pd.DataFrame(
        [[cell_text(row, c) for c in order] for row in rows],
        columns=[heading(c) for c in order],
        dtype=object,
    )


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Fields that the table of these rows shows."""
    absent = {c for c in WHERE_PRESENT if all(row[c] is None for row in rows)}
    shown = [c for c in COLUMNS if c not in absent]
    keys = ("case", "size", "train_images", *list(COLUMNS)[2:7], "status")
    mixed = {"precision"} if any(row["precision"] != "fp32" for row in rows) else set()
    mixed |= {"mode"} if any(row["mode"] != "matched" for row in rows) else set()
    extra = [c for c in DISTINGUISHING if c in ALWAYS_SHOWN | mixed]
    looks = _Looks(rows, (*keys, *extra))
    for column in DISTINGUISHING:
        if looks.distinct == len(rows):
            break
        if column not in extra and looks.tell_apart(column):
            extra.append(column)
    position = shown.index("test_top1")
    return [*shown[:position], *sorted(extra, key=list(DISTINGUISHING).index), *shown[position:]]


class _Looks:
    """Which rows look the same by the columns that were taken up."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        self._rows = rows
        self._groups = [0] * len(rows)
        self.distinct = min(1, len(rows))
        for column in columns:
            self.tell_apart(column)

    def tell_apart(self, column: str) -> bool:
        """Take a column up; returns whether that tells any rows apart."""
        numbers: dict[tuple[int, str], int] = {}
        both = zip(self._groups, self._rows, strict=True)
        self._groups = [numbers.setdefault((g, str(r[column])), len(numbers)) for g, r in both]
        more = len(numbers) > self.distinct
        self.distinct = len(numbers)
        return more


def heading(column: str) -> str:
    """Of a field of rows."""
    if column in COLUMNS:
        return COLUMNS[column][0]
    return DISTINGUISHING.get(column, column.replace("_", " "))


def cell_text(row: Row, column: str) -> str:
    """A field of a row as printed."""
    value = row[column]
    if value is None:
        return ABSENT
    if column == "size":
        return f"{value} ({row['train_images']:,})"
    if column in HASHES:
        return str(value)[:12]
    if column in COLUMNS:
        return COLUMNS[column][1](value)
    return repr(value) if isinstance(value, float) else str(value)


@lru_cache(maxsize=10_000)
def markdown(text: str) -> str:
    """Text that stays text in Markdown: no markup, no links, one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


RIGHT = frozenset(
    {"case", "test top-1", "train images/s", "effective images/s", "infer images/s"}
    | {
        "model FLOP utilisation",
        "total parameters",
        "trainable parameters",
        "fit s",
        "px",
        "epochs",
        "batch",
        "seed",
        "test images",
    }
)


SIGNS = {"−": "$-$", "±": "$\\pm$", "×": "$\\times$", "–": "--", "↓": "", "↑": ""}
"""That LaTeX without further packages has no letters for."""


def in_latex(text: str) -> str:
    """LaTeX with commands in place of signs."""
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    return text


def render(
    table: pd.DataFrame,
    form: Literal["md", "html", "latex", "terminal"],
    right: Collection[str] = RIGHT,
) -> str:
    """A table of strings as text of one form.

    Args:
        table: Of strings.
        form: Which.
        right: Headings whose columns are aligned to the right.
    """
    styles = {
        "md": "pipe",
        "html": "html",
        "latex": "latex_booktabs",
        "terminal": "simple",
    }
    alignment = ["right" if column in right else "left" for column in table.columns]
    values = table.to_numpy().tolist()
    if form == "md":
        values = [[markdown(str(v)) for v in row] for row in values]
    printed = tabulate(
        values,
        headers=list(table.columns),
        tablefmt=styles[form],
        colalign=alignment if values else None,
        disable_numparse=True,
    )
    return in_latex(printed) if form == "latex" else printed


def to_csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """All fields or some, unrounded; a cell that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    columns = list(rows[0]) if rows and columns is None else list(columns or ())
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        failure = row["failure"]
        flat = {
            **row,
            "failure": f"{failure['kind']}: {failure['message']}" if failure else None,
            "phases": ", ".join(f"{p['boundary']} {p['epochs']}" for p in row["phases"]),
        }
        writer.writerow({k: safe(flat[k]) for k in columns})
    return out.getvalue()


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_tables(
    rows: Sequence[Row],
    folder: Path,
    formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> list[Path]:
    """Write ``table.md``, ``table.csv`` … into ``folder``; returns the paths. The CSV file has all
    fields, unless ``columns`` names some."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("md", "csv", "html", "tex"):  # of another selection, perhaps
        (folder / f"table.{old}").unlink(missing_ok=True)
    table = standard_table(rows, columns)
    paths = []
    for form in formats:
        path = folder / f"table.{'tex' if form == 'latex' else form}"
        if form == "csv":
            text = to_csv(rows, columns)
        else:
            text = render(table, form) + "\n"
            if form == "md":
                lines = [*reasons(rows), *footnotes(rows)]
                text += "".join(f"\n- {markdown(line)}" for line in lines)
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        paths.append(path)
    return paths
