"""Which runs a report is of, which columns its table of runs has, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench.errors import UserError, choose
from bench.report.rows import row_of
from bench.report.twins import Row
from bench.store import StoredRun


@dataclass(frozen=True)
class Filters:
    """What is asked for, None where nothing is; by the options of ``run``."""

    cases: Sequence[int] | None = None
    datasets: Sequence[str] | None = None
    backbones: Sequence[str] | None = None
    policies: Sequence[str] | None = None
    backends: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    head: Sequence[str] | None = None
    precision: Sequence[str] | None = None
    mode: Sequence[str] | None = None
    px: Sequence[int] | None = None
    epochs: Sequence[int] | None = None
    batch_size: Sequence[int] | None = None
    weights: Sequence[str] | None = None
    learning_rates: Sequence[float] | None = None
    weight_decays: Sequence[float] | None = None
    prefix_cache: Sequence[str] | None = None
    tune: Sequence[str] | None = None
    device: Sequence[str] | None = None
    status: Sequence[str] | None = None

    def told(self) -> str:
        """As on the command line; nothing where all runs are asked for."""
        return " ".join(
            f"--{f.name.replace('_', '-')} {','.join(map(str, values))}"
            for f in fields(self)
            if (values := getattr(self, f.name)) is not None
        )


FIELDS = {
    "cases": "case",
    "datasets": "dataset",
    "backbones": "backbone",
    "policies": "policy",
    "backends": "backend",
    "seeds": "seed",
    "learning_rates": "learning_rate",
    "weight_decays": "weight_decay",
}
"""Option → field of a row, where they differ."""


def kept(runs: Sequence[StoredRun], filters: Filters) -> list[StoredRun]:
    """The runs that all filters let through.

    Raises:
        UserError: A name that no run has, or no run has all that is asked for.
    """
    rows = [row_of(run) for run in runs]
    asked = {
        f.name: values for f in fields(filters) if (values := getattr(filters, f.name)) is not None
    }
    for option, values in asked.items():
        field = FIELDS.get(option, option)
        there = dict.fromkeys(str(row[field]) for row in rows if row[field] is not None)
        for value in values:
            _check(option, field, str(value), list(there))
    found = [
        run
        for run, row in zip(runs, rows, strict=True)
        if all(row[FIELDS.get(o, o)] in values for o, values in asked.items())
    ]
    if not found:
        raise UserError(
            f"No run here has all of {filters.told()}.", "Leave out one of the filters."
        )
    return found


def _check(option: str, field: str, value: str, there: list[str]) -> None:
    if not there:
        raise UserError(f"--{option.replace('_', '-')} {value}: no run here has a {field}.")
    choose(f"{field.replace('_', ' ')} among these runs", value, there)


def chosen_columns(names: Sequence[str] | None, rows: Sequence[Row]) -> list[str] | None:
    """Fields of the table of runs.

    Raises:
        UserError: A row has no such field.
    """
    for name in names or ():
        choose("column", name, list(rows[0]))
    return None if names is None else list(names)


def in_order(rows: Sequence[Row], sort: Sequence[str] | None) -> list[Row]:
    """Rows by fields: ``test_top1`` ascending, ``-test_top1`` descending; rows without a value come
    last, rows that are alike stay as they were.

    Raises:
        UserError: A row has no such field.
    """
    ordered = list(rows)
    for name in reversed(sort or ()):
        field = name.removeprefix("-")
        choose("column to sort by", field, list(rows[0]))
        there = [row for row in ordered if row[field] is not None]
        absent = [row for row in ordered if row[field] is None]
        there.sort(key=_key(field), reverse=name.startswith("-"))
        ordered = [*there, *absent]
    return ordered


def _key(field: str) -> Callable[[Row], Any]:
    def key(row: Row) -> Any:
        value = row[field]
        return value if isinstance(value, int | float | str) else str(value)

    return key
