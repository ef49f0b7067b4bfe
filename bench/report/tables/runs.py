"""The table of runs: pandas for the columns, tabulate for the text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import pandas as pd
from tabulate import tabulate

from bench.analysis.rows import FIELDS, Row
from bench.report.format import ABSENT, three_digits
from bench.report.labels import distinguishing_fields
from bench.report.markdown import markdown, markdown_line
from bench.report.notes import EDGE_MARK, footnotes, reasons
from bench.report.tables.model import Table, TableCell, TableColumn
from bench.spec.result import FRACTIONS
from bench.spec.run import RECIPE_OPTIONS
from bench.storage.text_files import printable

Format = Literal["md", "csv", "html", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _spaced(value: str) -> str:
    return value.replace("_", " ")


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "case": ("case", "{:,}".format),
    "size": ("size (images)", str),
    "similarity": ("similarity", _spaced),
    "dataset_label": ("data", str),
    "backbone": ("backbone", str),
    "policy": ("policy", str),
    "backend": ("backend", str),
    "test_top1": ("test top-1", "{:.1%}".format),
    "train_images_per_s": ("train images/s", _rate),
    "effective_images_per_s": ("effective images/s", _rate),
    "model_flop_utilisation": ("model FLOP utilisation", "{:.1%}".format),
    "infer_images_per_s": ("infer images/s", _rate),
    "total_parameters": ("total parameters", "{:,}".format),
    "trainable_parameters": ("trainable parameters", "{:,}".format),
    "fit_s": ("fit s", "{:.1f}".format),
    "pairing": ("parity", _spaced),
    "status": ("status", str),
}
"""Field of a row → heading and how a value is printed."""
SPEEDS = ("train_images_per_s", "effective_images_per_s", "infer_images_per_s")
"""Columns of speeds, which other work on the machine may spoil."""
UNSTEADY_MARK = "?"
"""Mark printed after a speed that other work on the machine has spoiled."""
IDENTIFYING = ("case", "size", "train_images", "similarity", "dataset_label", "backbone", "policy",
               "backend", "status")  # fmt: skip
"""Fields that identify a row in every table."""
WHERE_PRESENT = frozenset({"effective_images_per_s", "model_flop_utilisation"})
"""Columns that are left out if no row has a value."""
DISTINGUISHING: dict[str, str] = {
    "boundary": "trained from",
    "mode": "mode",
    "weights": "weights",
    "code_sha256": "code",
    **{name: declared.option.heading for name, declared in RECIPE_OPTIONS.items()},
    "tune": "tuned",
    "sweep": "trained",
    "val_images": "val images",
    "test_images": "test images",
    "fold": "fold",
    "seed": "seed",
    "device": "device",
    "device_model": "device model",
    "environment_id": "environment",
    "dataset_hash": "data hash",
    "policy_digest": "policy's definition",
    "weights_sha256": "weights file",
    "reading_digest": "reading of weights",
    "network_digest": "network's definition",
    "run_id": "run",
}
"""Field → heading of columns that are shown if two rows would look alike without them."""
ALWAYS_SHOWN = frozenset(
    {"weights", "test_images"}
    | {name for name, declared in RECIPE_OPTIONS.items() if declared.option.always_shown}
)
"""Distinguishing columns of every table; random weights, for example, must be seen."""
USUAL = {"mode": "matched"} | {
    name: declared.suite_default
    for name, declared in RECIPE_OPTIONS.items()
    if declared.option.shown_if_unusual
}
"""Distinguishing columns of every table in which a row has another value → the usual value."""


VARYING = ("head", "px")
"""Distinguishing columns of every table in which rows differ, even where the data say which."""


def standard_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the table as text, in which rows that differ look different; the fields in ``columns``
    are by default those of ``columns_of``."""
    order = columns_of(rows) if columns is None else columns
    texts = zip(*(column_texts(rows, c) for c in order), strict=True)
    return pd.DataFrame(list(texts), columns=list(map(heading, order)), dtype=object)


def runs_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> Table:
    """Return the table of runs for the page, one row a run."""
    order = list(columns_of(rows) if columns is None else columns)
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
    return [
        TableCell(shown, s if isinstance(s, int | float | str | None) else shown, row[column])
        for row, shown, s in zip(rows, column_texts(rows, column), sorts, strict=True)
    ]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the fields that the table of these rows shows."""
    absent = {c for c in WHERE_PRESENT if all(row[c] is None for row in rows)}
    shown = [c for c in COLUMNS if c not in absent]
    unusual = {c for c, usual in USUAL.items() if any(row[c] != usual for row in rows)}
    unusual |= {c for c in VARYING if len({row[c] for row in rows}) > 1}
    extra = [c for c in DISTINGUISHING if c in ALWAYS_SHOWN | unusual]
    looks = [tuple(map(str, map(row.fields.get, (*IDENTIFYING, *extra)))) for row in rows]
    others = [c for c in DISTINGUISHING if c not in extra]
    extra += distinguishing_fields(rows, others, looks, all_fields=False)
    position = shown.index("test_top1")
    return [*shown[:position], *sorted(extra, key=list(DISTINGUISHING).index), *shown[position:]]


def heading(column: str) -> str:
    """Return the heading of a field of rows."""
    if column in COLUMNS:
        return COLUMNS[column][0]
    return DISTINGUISHING.get(column, _spaced(column))


def column_texts(rows: Sequence[Row], column: str) -> list[str]:
    """Return a column as printed; values that differ look different unless they were measured."""
    if column == "size":
        return [f"{row.spec.case.size} ({row.dataset.train_images:,})" for row in rows]
    values = [row.fields[column] for row in rows]
    if column in (*SPEEDS, "test_top1"):
        how, mark = COLUMNS[column][1], UNSTEADY_MARK if column in SPEEDS else f" {EDGE_MARK}"
        marked = (row.unsteady if column in SPEEDS else row.is_at_edge for row in rows)
        return [
            ABSENT if value is None else how(value) + mark * is_marked
            for value, is_marked in zip(values, marked, strict=True)
        ]
    if column in COLUMNS:
        how = COLUMNS[column][1]
    elif column in DISTINGUISHING:
        digits = _distinguishing_digits(values)
        values = [f"{v:.{digits}g}" if isinstance(v, float) else v for v in values]
        how = _short
    else:
        how = partial(_formatted, column)
    return [ABSENT if value is None else how(value) for value in values]


MOST_DIGITS = 17
"""Significant digits that distinguish any two numbers."""


def _distinguishing_digits(values: Sequence[Any]) -> int:
    """Return the fewest significant digits that distinguish the numbers of a column."""
    different = {value for value in values if isinstance(value, float)}
    for digits in range(4, MOST_DIGITS):
        if len({f"{value:.{digits}g}" for value in different}) == len(different):
            return digits
    return MOST_DIGITS


def _short(value: object) -> str:
    """Return a value as text, and of a hash the beginning."""
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{32,}", text) else text


def _formatted(column: str, value: Any) -> str:
    """Return a value of a field that is in no standard table."""
    if column in FLAT:
        return FLAT[column](value) or ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1%}" if column.endswith(FRACTIONS) else three_digits(value)
    return _short(value if isinstance(value, str) else json.dumps(value))


FLAT: dict[str, Callable[[Any], str]] = {
    "failure": lambda failure: f"{failure['kind']}: {failure['message']}",
    "differs": ", ".join,
    "phases": lambda phases: ", ".join(f"{p['boundary']} {p['epochs']}" for p in phases),
}
"""Field of a row with a nested value → its text on one line."""


def holds_numbers(rows: Sequence[Row], column: str) -> bool:
    """Return True if a column holds numbers and is aligned to the right."""
    kinds = {type(row.fields[column]) for row in rows} - {type(None)}
    return bool(kinds) and kinds <= {int, float}


SIGNS = str.maketrans(
    {"−": "$-$", "±": "$\\pm$", "×": "$\\times$", "–": "--", "†": "$\\dagger$", "↓": "", "↑": ""}
)
"""Sign that LaTeX lacks without further packages → its command."""
STYLES = {"md": "pipe", "html": "html", "latex": "latex_booktabs"}
"""Format → its name in tabulate."""


def in_latex(text: str) -> str:
    """Replace signs by LaTeX commands."""
    return text.translate(SIGNS)


def render(table: pd.DataFrame, form: Format, right: Collection[str] = ()) -> str:
    """Return a table of strings, not as CSV; columns headed ``right`` are aligned right."""
    alignment = ["right" if column in right else "left" for column in table.columns]
    table = table.map(markdown if form == "md" else printable)
    table = table.rename(columns=markdown) if form == "md" else table
    values, headings = table.to_numpy().tolist(), list(table.columns)
    printed = tabulate(values, headings, STYLES[form], disable_numparse=True,
                       colalign=alignment if values else None)  # fmt: skip
    return in_latex(printed) if form == "latex" else printed


def to_csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Return all fields or some as CSV, unrounded."""
    names = list(FIELDS if columns is None else columns)
    values = [[row.fields[name] for row in rows] for name in names]
    for place, name in enumerate(names):
        if how := FLAT.get(name):
            values[place] = [None if value is None else how(value) for value in values[place]]
    return csv_text([names, *zip(*values, strict=True)])


FORMULA = ("=", "+", "-", "@", "\t", "\r")


@lru_cache(maxsize=10_000)
def _safe(text: str) -> str:
    """Return a text that neither a spreadsheet nor a terminal obeys."""
    mark = "'" if text.startswith(FORMULA) else ""
    return mark + printable(text)


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Return lines as CSV; a text that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(
        [_safe(v) if isinstance(v, str) else v for v in line] for line in lines
    )
    return out.getvalue()


def runs_text(rows: Sequence[Row], form: Format, columns: Sequence[str] | None = None) -> str:
    """Return the table of runs in one format; CSV has all fields unless ``columns`` names some."""
    if form == "csv":
        return to_csv(rows, columns)
    order = columns_of(rows) if columns is None else columns
    right = {heading(c) for c in order if holds_numbers(rows, c)}
    table = render(standard_table(rows, order), form, right)
    if form != "md":
        return table
    lines = [*reasons(rows), *footnotes(rows)]
    return f"{table}\n" + "".join(f"\n- {markdown_line(line)}" for line in lines)
