"""Results as a pandas frame for notebooks: one row a run, and columns that say what they are."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pandas as pd

from bench.analysis.folders import known_proofs, load_runs
from bench.analysis.rows import FIELDS, rows_of
from bench.errors import UserError
from bench.parity.proofs import shown
from bench.spec.base import Frozen
from bench.spec.result import RunResult
from bench.spec.run import Environment, RunSpec

DTYPES: dict[Any, str] = {bool: "boolean", int: "Int64", float: "float64", str: "string"}
"""Python's type → pandas's, of which each has a way to say 'missing'."""
MODELS: dict[str, type[Frozen]] = {
    "spec": RunSpec,
    "result": RunResult,
    "environment": Environment,
}
"""First part of a path in ``FIELDS`` → the model it leads into."""


@dataclass(frozen=True)
class FrameColumn:
    """A column that repeats no field."""

    dtype: str
    """Of pandas."""
    sentence: str
    """What it is."""


DERIVED: dict[str, FrameColumn] = {
    "weights": FrameColumn(
        "string",
        "What the backbone starts from: pretrained, random, or file with its base name and the "
        "beginning of its SHA-256.",
    ),
    "tune": FrameColumn("string", "lr where validation chose the learning rate; else missing."),
    "sweep": FrameColumn(
        "string", "at once with runs that differ in learning rate, weight decay or seed, or alone."
    ),
    "failure": FrameColumn("string", "Why the run is not ok, as 'kind: message'."),
    "parity": FrameColumn(
        "string",
        "Whether it has been shown that the backends compute the same: shown or not_shown; missing "
        "where no row differs in the backend alone.",
    ),
    "unsteady": FrameColumn(
        "boolean",
        "Whether other work was on the machine, by slow steps or slow inference beside other runs "
        "of the same network: compare no speeds.",
    ),
    "phases": FrameColumn(
        "string", "Of a policy that thaws the network in turn: boundary and epochs of each phase."
    ),
}
"""Columns that repeat no field."""
UNITS: dict[str, str] = {
    "_images_per_s": "In images per second.",
    "_flops_per_s": "In FLOP per second.",
    "_bytes": "In bytes.",
    "_s": "In seconds.",
    "_s_p50": "In seconds.",
    "_s_p95": "In seconds.",
    "_fraction": "As a fraction of 1.",
    "_saving": "As a fraction of 1.",
    "_top1": "As a fraction of 1.",
    "_accuracy": "As a fraction of 1.",
    "_f1": "As a fraction of 1.",
    "_error": "As a fraction of 1.",
    "_utilisation": "As a fraction of 1.",
    "_loss": "In nats.",
}
"""End of a column's name → what its numbers are counted in; the longest that fits."""


def _field(name: str) -> tuple[str, str]:
    """Return the pandas type and description of the model's field that a column repeats."""
    root, *parents, field = FIELDS[name].split(".")
    model: Any = MODELS[root]
    for parent in parents:
        model = model.model_fields[parent].annotation
    info = model.model_fields[field]
    return _dtype(info.annotation), info.description or ""


def _dtype(annotation: Any) -> str:
    """Pandas's type of a field that is a number or text, or one of these or null."""
    kinds = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    if all(get_origin(kind) is Literal for kind in kinds):
        return "string"
    return DTYPES[kinds[0]]


def _with_unit(name: str, sentence: str) -> str:
    fitting = [end for end in UNITS if name.endswith(end)]
    return f"{sentence} {UNITS[max(fitting, key=len)]}" if fitting else sentence


_COLUMNS = {
    name: (DERIVED[name].dtype, DERIVED[name].sentence) if name in DERIVED else _field(name)
    for name in FIELDS
}
COLUMNS: dict[str, str] = {name: _with_unit(name, said) for name, (_, said) in _COLUMNS.items()}
"""FrameColumn of ``results`` → a sentence that says what it is, with its unit."""


def results(*folders: str | Path) -> pd.DataFrame:
    """The runs of results folders, one row a run; see ``bench.results``.

    Args:
        folders: Such as ``results/runs/quick``. A run that is in several, of the same environment,
            counts once, as the last folder has it.

    Returns:
        A frame with the columns of ``COLUMNS``, in the order of the report. ``attrs`` holds
        'columns' (a sentence for each), 'environments' (environment_id → its fields) and 'problems'
        (a sentence for each folder of a run that could not be read).

    Raises:
        UserError: A folder does not exist, or there is no run in any.
    """
    paths = _paths(folders)
    runs, problems = load_runs(paths)
    proofs = [pair for path in paths for pair in known_proofs(path, runs)]
    where = {r.environment.environment_id: r.environment.model_dump(mode="json") for r in runs}
    return frame_of([row.fields for row in rows_of(runs, shown(proofs))], where, problems)


def curves(*folders: str | Path) -> pd.DataFrame:
    """The epochs of the runs of results folders, one row an epoch.

    Args:
        folders: As of ``results``.

    Returns:
        run_id, environment_id, epoch (from 1), train_loss (mean over images, in nats) and val_top1
        (after the epoch, as a fraction); missing where a number was not finite.

    Raises:
        UserError: As ``results``.
    """
    runs, problems = load_runs(_paths(folders))
    lines: dict[str, list[Any]] = {name: [] for name in CURVES}
    for run in runs:
        losses, shares = run.result.train_loss_by_epoch, run.result.val_top1_by_epoch
        for epoch in range(len(losses)):
            lines["run_id"].append(run.result.run_id)
            lines["environment_id"].append(run.result.environment_id)
            lines["epoch"].append(epoch + 1)
            lines["train_loss"].append(losses[epoch])
            lines["val_top1"].append(shares[epoch] if epoch < len(shares) else None)
    frame = pd.DataFrame({name: pd.Series(lines[name], dtype=CURVES[name]) for name in CURVES})
    frame.attrs["problems"] = problems
    return frame


CURVES = {
    "run_id": "string",
    "environment_id": "string",
    "epoch": "Int64",
    "train_loss": "float64",
    "val_top1": "float64",
}
"""Columns of ``curves`` and their types."""


def _paths(folders: Sequence[str | Path]) -> list[Path]:
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise UserError("No folder was named.", "Such as bench.results('results/runs/quick').")
    for path in paths:
        if path.is_file():
            raise UserError(
                f"'{path}' is a file, no results folder.", "Of a page: bench.report.load(PAGE)."
            )
    return paths


def frame_of(
    rows: Sequence[Mapping[str, Any]], environments: Mapping[str, Any], problems: Sequence[str]
) -> pd.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_flat(name, row.get(name)) for row in rows] for name in names}
    frame = pd.DataFrame(
        {name: pd.Series(values, dtype=_dtype_of(name, values)) for name, values in columns.items()}
    )
    frame.attrs.update(
        columns={name: COLUMNS[name] for name in names if name in COLUMNS},
        environments=dict(environments),
        problems=list(problems),
    )
    return frame


def _flat(name: str, value: Any) -> Any:
    """A value that a cell can hold."""
    if name == "failure" and value is not None:
        return f"{value['kind']}: {value['message']}"
    if name == "phases":
        return ", ".join(f"{p['boundary']} {p['epochs']}" for p in value) if value else None
    return value


def _dtype_of(name: str, values: Sequence[Any]) -> str:
    """Of a page that another version wrote, columns may be unknown."""
    if name in _COLUMNS:
        return _COLUMNS[name][0]
    kinds = {type(value) for value in values if value is not None}
    return DTYPES.get(kinds.pop(), "object") if len(kinds) == 1 else "object"
