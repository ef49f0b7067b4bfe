"""The standard table, for people: pandas for the columns, tabulate for the text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from bench.report.rows import DIFFERING
from bench.report.twins import Row, twins, unproved

Format = Literal["md", "csv", "html", "latex"]
FORMATS: tuple[Format, ...] = ("md", "csv", "html", "latex")
ABSENT = "–"


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
UNSTEADY = 3.0
"""Quiet machines here gave p95 / p50 of 1.1 to 1.7; a shared one 15."""
SAME_EXPERIMENT = ("blueprint_sha256", "initial_state_sha256", "batches_sha256")
"""What rows that differ only in the backend must have in common."""


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
    for column in DISTINGUISHING:
        if _distinct(rows, (*keys, *extra)) == len(rows):
            break
        more = _distinct(rows, (*keys, *extra, column)) > _distinct(rows, (*keys, *extra))
        if column not in extra and more:
            extra.append(column)
    position = shown.index("test_top1")
    return [*shown[:position], *sorted(extra, key=list(DISTINGUISHING).index), *shown[position:]]


def _distinct(rows: Sequence[Row], columns: Sequence[str]) -> int:
    return len({tuple(str(row[c]) for c in columns) for row in rows})


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
    return tabulate(
        values,
        headers=list(table.columns),
        tablefmt=styles[form],
        colalign=alignment if values else None,
        disable_numparse=True,
    )


def reasons(rows: Sequence[Row]) -> list[str]:
    """A line for each run that is not ok, the same reason named once."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            why = (row["failure"] or {}).get("message", "")
            found.setdefault(f"{row['status']}: {why}", []).append(row["run_id"])
    return [
        f"{why} [{len(ids)} run{'s' if len(ids) > 1 else ''}: {ids[0]}{' …' if ids[1:] else ''}]"
        for why, ids in found.items()
    ]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    if any("stand-in" in row["dataset_label"] for row in rows):
        notes.append(
            "stand-in: a small embedded data set in the place of a real one; the words small, "
            "medium and large are scaled down with it."
        )
    if any("synthetic" in row["dataset_label"] for row in rows):
        notes.append("synthetic pages: generated images; accuracy says nothing about real pages.")
    if any(row["weights"] == "random" and row["policy"] != "from_scratch" for row in rows):
        notes.append("weights random: no pretrained weights were used; accuracy shows nothing.")
    if any(_is_short(row) for row in rows):
        notes.append(f"{ABSENT} images/s: too short for a steady rate.")
    notes += [note] if (note := _cached(rows)) else []
    swept = [row for row in rows if row["sweep_runs"] is not None]
    if swept:
        notes.append(
            f"{ABSENT} in {len(swept)} of {len(rows)} runs: heads that were trained at once, "
            "so that no time is one's own; sweep_s of --json is that of all."
        )
    if any(row["model_flop_utilisation"] is not None for row in rows):
        notes.append(
            "model FLOP utilisation: the FLOP of the training steps at train images/s, over the "
            "rate of a large matrix product in the same framework and precision on the same GPU."
        )
    notes += [note] if (note := _phased(rows)) else []
    tuned = [row for row in rows if row["learning_rate_chosen"] is not None]
    if tuned:
        notes.append(
            f"tuned: in {len(tuned)} of {len(rows)} runs the learning rate was chosen on the "
            "validation images, from the same grid around each policy's own."
        )
    unsteady = [row for row in rows if is_unsteady(row)]
    if unsteady:
        notes.append(
            f"unsteady: in {len(unsteady)} of {len(rows)} runs the slowest steps took over "
            f"{UNSTEADY:g} times the median one; the machine was probably busy with other work, so "
            f"compare no speeds of {', '.join(row['run_id'] for row in unsteady[:3])}"
            f"{' …' if unsteady[3:] else ''}."
        )
    if any(row["precision"] in ("bf16", "fp16") for row in rows):
        notes.append(
            "bf16, fp16: matched in all but precision; each framework chooses which operations it "
            "computes in it."
        )
    notes += [note] if (note := unproved(rows)) else []
    if any(row["mode"] == "native" for row in rows):
        notes.append(
            "native: each framework's own weights, preprocessing, optimizer and initialisation; a "
            "difference between such rows is not the framework's alone."
        )
    notes += [f"NOT THE SAME EXPERIMENT: {pair}" for pair in mismatches(rows)]
    places = {(row["backend"], row["device"], row["environment_id"]) for row in rows}
    if len(places) > len({place[:2] for place in places}):
        notes.append("rows come from several environments (machine, versions, device).")
    return notes


def _phased(rows: Sequence[Row]) -> str | None:
    phased = [row for row in rows if row["phases"]]
    if not phased:
        return None
    policies = ", ".join(dict.fromkeys(row["policy"] for row in phased))
    return (
        f"phases: {policies} thaw the network as they go ({len(phased)} of {len(rows)} runs); "
        "effective images/s: images of all epochs over the time of all training, compilation "
        "left out, and of values computed once; trainable parameters: of the last phase; fit s: "
        "with the set-up of every phase but the first. Each phase by itself is in result.json."
    )


def _cached(rows: Sequence[Row]) -> str | None:
    cached = [row for row in rows if row["effective_images_per_s"] and not row["phases"]]
    if not cached:
        return None
    reused = sum(row["prefix_values"] == "reused" for row in cached)
    others = f" ({reused} took them, and the time they cost, from another run)" if reused else ""
    return (
        f"effective images/s: in {len(cached)} of {len(rows)} runs the values of the frozen part "
        f"were computed once and not in every epoch{others}; images of all epochs over the time of "
        "that and of training. --prefix-cache off measures whole steps."
    )


def _is_short(row: Row) -> bool:
    """Whether a run is without a rate that it should have."""
    trained = row["train_images_per_s"] or row["effective_images_per_s"]
    is_ok = row["status"] == "ok" and row["sweep_runs"] is None
    return is_ok and (trained is None or row["infer_images_per_s"] is None)


def is_unsteady(row: Row) -> bool:
    """Whether the 95th percentile of the training steps is far above their median."""
    p50, p95 = row["step_s_p50"], row["step_s_p95"]
    return bool(p50 and p95 and p95 > UNSTEADY * p50)


def mismatches(rows: Sequence[Row]) -> list[str]:
    """Rows that differ only in the backend, yet did not start or train on the same numbers.

    Native rows are no pairs: they never were the same experiment.
    """
    return [
        f"{field} differs between {', '.join(sorted(row['run_id'] for row in group))}"
        for group in twins([r for r in rows if r["mode"] != "native"], DIFFERING)
        for field in SAME_EXPERIMENT
        if len({row[field] for row in group}) > 1
    ]


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


def safe(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def write_tables(
    rows: Sequence[Row],
    folder: Path,
    formats: Sequence[Format],
    columns: Sequence[str] | None = None,
) -> list[Path]:
    """Write ``table.md``, ``table.csv`` … into ``folder``; returns the paths. The CSV file has all
    fields, unless ``columns`` names some."""
    folder.mkdir(parents=True, exist_ok=True)
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
