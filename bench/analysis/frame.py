"""Results as a pandas frame for notebooks: one row a run, and a sentence on each column."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pandas as pd

from bench.analysis.folders import known_proofs, load_runs
from bench.analysis.rows import FIELDS, rows_of
from bench.errors import UserError
from bench.parity.proofs import proved_subjects
from bench.spec.result import FRACTIONS, RunResult
from bench.spec.run import Environment, RunSpec

DTYPES: dict[Any, str] = {bool: "boolean", int: "Int64", float: "float64", str: "string"}
"""Type of Python → type of pandas that can hold missing values."""
DERIVED: dict[str, tuple[str, str]] = {
    "weights": ("string", "Initial weights of the backbone: pretrained, random, or file with its "
                "base name and the beginning of its SHA-256."),
    "policy_digest": ("string", "12 hex digits of the hash of the policy, as its name does "
                      "not say its rates."),
    "tune": ("string", "lr if validation chose the learning rate; else missing."),
    "sweep": ("string", "at once with runs that differ in learning rate, weight decay or seed, or "
              "alone."),
    "failure": ("string", "Why the run is not ok, as 'kind: message'."),
    "parity": ("string", "shown if the backends are proved to compute the same, else not_shown; "
               "missing if no row differs in the backend alone."),
    "pairing": ("string", "Evidence that it is the same experiment as its twins in other "
                "backends: proved, paired (start, batches and first steps agree), other_rate, "
                "not_shown or differs; missing without a twin."),
    "fold": ("Int64", "Number of its part of a cross-validation, from 1; missing without one."),
    "differs": ("string", "Respects in which it is not the same experiment as its twins in other "
                "backends, comma-separated; empty if none is known."),
    "unsteady": ("boolean", "True if other work was on the machine, by the use of its cores, by "
                 "slow steps, or by slow inference beside other runs of the same network: compare "
                 "no speeds."),
    "phases": ("string", "Boundary and epochs of each phase, for a policy that unfreezes the "
               "network step by step."),
}  # fmt: skip
"""Column that repeats no field of a model → its type in pandas and its description."""
UNITS = {
    "_images_per_s": "In images per second.",
    "_flops_per_s": "In FLOP per second.",
    "_bytes": "In bytes.",
    "_loss": "In nats.",
    **dict.fromkeys(("_s", "_s_p50", "_s_p95"), "In seconds."),
    **dict.fromkeys(FRACTIONS, "As a fraction of 1."),
}  # fmt: skip
"""End of a column's name → its unit; the longest match counts."""


def _field(name: str) -> tuple[str, str]:
    """Return the pandas type and the description of a column, from the field of a model that it
    repeats: a number, text or literal, perhaps optional."""
    root, *parents, field = FIELDS[name].split(".")
    model: Any = {"spec": RunSpec, "result": RunResult, "environment": Environment}[root]
    for parent in parents:
        model = model.model_fields[parent].annotation
    info = model.model_fields[field]
    kind = info.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    dtype = "string" if get_origin(kind) is Literal else DTYPES[kind]
    return dtype, info.description or ""


def _unit(name: str) -> str:
    """Return a column's unit as a sentence after a space; empty without one."""
    end = max((end for end in UNITS if name.endswith(end)), key=len, default=None)
    return f" {UNITS[end]}" if end else ""


_COLUMNS = {name: DERIVED[name] if name in DERIVED else _field(name) for name in FIELDS}
COLUMNS: dict[str, str] = {name: f"{said}{_unit(name)}" for name, (_, said) in _COLUMNS.items()}
"""Column of ``results`` → its description, with its unit."""
CURVES = {"run_id": "string", "environment_id": "string", "epoch": "Int64",
          "train_loss": "float64", "val_top1": "float64"}  # fmt: skip
"""Columns of ``curves`` and their types."""


def results(*folders: str | Path) -> pd.DataFrame:
    """Return the runs of results folders, one row a run, in the order of the report; see
    ``bench.results``. If several folders hold a run of the same environment, the last one counts.
    Raise UserError if a folder does not exist, or there are no runs."""
    paths = _paths(folders)
    runs, problems = load_runs(paths)
    proofs = [pair for path in paths for pair in known_proofs(path, runs)]
    where = {r.environment.environment_id: r.environment.model_dump(mode="json") for r in runs}
    return frame_of(
        [dict(row.fields) for row in rows_of(runs, proved_subjects(proofs))], where, problems
    )


def curves(*folders: str | Path) -> pd.DataFrame:
    """Return the epochs of the runs of results folders (as for ``results``), one row an epoch:
    run_id, environment_id, epoch (from 1), train_loss (mean over images, in nats) and val_top1
    (after the epoch, as a fraction); missing where a number was not finite."""
    runs, problems = load_runs(_paths(folders))
    lines = [
        (*run.key, epoch, loss, top1)
        for run in runs
        for epoch, (loss, top1) in enumerate(
            zip_longest(run.result.train_loss_by_epoch, run.result.val_top1_by_epoch), start=1
        )
    ]
    frame = pd.DataFrame(lines, columns=list(CURVES)).astype(CURVES)
    frame.attrs["problems"] = problems
    return frame


def _paths(folders: Sequence[str | Path]) -> list[Path]:
    paths = [Path(folder) for folder in folders]
    if not paths:
        hint = "Name one, such as bench.results('results/runs/quick')."
        raise UserError("No folder was named.", hint)
    for path in paths:
        if path.is_file():
            hint = "To read a page: bench.report.load(PAGE)."
            raise UserError(f"'{path}' is a file, not a results folder.", hint)
    return paths


def frame_of(
    rows: Sequence[Mapping[str, Any]], environments: Mapping[str, Any], problems: Sequence[str]
) -> pd.DataFrame:
    """Return rows as JSON in a frame, with ``attrs`` as ``results`` has them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    series = {}
    for name in names:
        values = [_flat(name, row.get(name)) for row in rows]
        series[name] = pd.Series(values, dtype=_dtype_of(name, values))
    frame = pd.DataFrame(series)
    frame.attrs.update(
        columns={name: COLUMNS[name] for name in names if name in COLUMNS},
        environments=dict(environments),
        problems=list(problems),
    )
    return frame


def _flat(name: str, value: Any) -> Any:
    """Return a value that a cell of the frame can hold."""
    if name == "failure" and value is not None:
        return f"{value['kind']}: {value['message']}"
    if name == "differs":
        return ", ".join(value)
    if name == "phases":
        return ", ".join(f"{p['boundary']} {p['epochs']}" for p in value) if value else None
    return value


def _dtype_of(name: str, values: Sequence[Any]) -> str:
    """Return a column's type; a page of another version may have unknown columns."""
    if name in _COLUMNS:
        return _COLUMNS[name][0]
    (kind, *others) = {type(value) for value in values if value is not None} or {object}
    return "object" if others else DTYPES.get(kind, "object")
