"""Selection of the runs of a report by the options of ``run``; columns and order of its table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from bench.analysis.rows import FIELDS, Row, row_of
from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES
from bench.catalog.policies import POLICIES
from bench.data.registry import DEBIAN, EMBEDDED
from bench.errors import UserError, choose
from bench.network.backbones import check_name, public_name, weights_choice
from bench.network.head import hidden_units
from bench.report.labels import values_of
from bench.spec.options import DeclaredOption
from bench.spec.run import RECIPE_OPTIONS, Initialisation, Mode, Status, TuneName
from bench.storage.results import StoredRun

Filters = dict[str, Sequence[Any] | None]
"""Name of an option of ``run`` (see ``OPTIONS``) → selected values; None: any."""
PATHS = ("folder", "rvl_cdip")
"""Kinds of data sets that have a path; results hold its last part."""
WEIGHTS = get_args(Initialisation)
ANY = object()
"""A value that every row has."""


class Selection:
    """The runs that pass all filters."""

    def __init__(self, filters: Filters, runs: Iterable[StoredRun]) -> None:
        """Raise UserError if Thawbench does not know a value, or none of all ``runs`` has any of
        the values of some option."""
        names = sorted(filters, key=list(OPTIONS).index)
        given = {name: values for name in names if (values := filters[name]) is not None}
        self.options = " ".join(f"{_flag(n)} {','.join(map(str, v))}" for n, v in given.items())
        """The filters as on the command line; empty if there are none."""
        self.absent: list[str] = []
        """A sentence for each option that has known values which no run has."""
        self._wanted: list[tuple[Option, Sequence[Any]]] = []
        rows = [row_of(run) for run in runs] if given else []
        for name, values in given.items():
            option = OPTIONS[name]
            wanted = {str(value): option.stored(value, rows) for value in values}
            self._check(_flag(name), option, wanted, rows)
            self._wanted.append((option, list(wanted.values())))

    def _check(
        self, flag: str, option: Option, wanted: dict[str, Any], rows: Sequence[Row]
    ) -> None:
        """Raise UserError if a value is unknown, or no run has any of the ``wanted`` values (as on
        the command line → as results hold them)."""
        there = [row for row in rows if row[option.field] is not None]
        names = values_of(there, option.field)
        among = f"Among these runs: {', '.join(names)}." if names else ""
        missing = [
            v for v, want in wanted.items() if not any(option.matches(r, want) for r in there)
        ]
        for value in missing:
            if str(wanted[value]) not in option.names and not option.is_another(wanted[value]):
                known = dict.fromkeys([*names, *option.names])
                choose(f"{option.word} among these runs", value, known, among or None)
        if missing:
            absent = " or ".join(f"'{value}'" for value in missing)
            self.absent.append(f"No run here has the {option.word} {absent}.")
            if len(missing) == len(wanted):
                hint = among or f"No run here has any {option.word}. Leave out {flag}."
                raise UserError(f"{flag}: no run here has the {option.word} {absent}.", hint)

    def of(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """Return the runs that pass, perhaps none."""

        def passes(row: Row) -> bool:
            return all(option.lets_through(row, wanted) for option, wanted in self._wanted)

        return [run for run in runs if not self._wanted or passes(row_of(run))]

    def kept(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """Return the runs that pass; raise UserError if there are none."""
        if found := self.of(runs):
            return found
        raise UserError(f"No run here has all of {self.options}.", "Leave out one of the filters.")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def chosen_columns(names: Sequence[str] | None) -> list[str] | None:
    """Return the columns of the table of runs; raise UserError if a row has no such field."""
    return None if names is None else [choose("column", name, FIELDS) for name in names]


def in_order(rows: Sequence[Row], sort: Sequence[str] | None) -> list[Row]:
    """Sort rows by fields: ``test_top1`` ascending, ``-test_top1`` descending.

    Rows without a value come last, and the sort is stable.

    Raises:
        UserError: A row has no such field.
    """
    ordered = list(rows)
    for name in reversed(sort or ()):
        field = choose("column to sort by", name.removeprefix("-"), FIELDS)
        there = [row for row in ordered if row[field] is not None]
        absent = [row for row in ordered if row[field] is None]
        there.sort(key=partial(_sort_key, field), reverse=name.startswith("-"))
        ordered = [*there, *absent]
    return ordered


def _sort_key(field: str, row: Row) -> Any:
    return row[field] if isinstance(row[field], int | float | str) else str(row[field])


@dataclass(frozen=True)
class Option:
    """An option of ``run`` as a filter of rows."""

    field: str
    """Name of the field of rows."""
    word: str
    """Noun for a value, in messages."""
    names: Sequence[str] = ()
    """Values that ``run`` accepts."""
    is_another: Callable[[Any], bool] = lambda value: False
    """Returns True for further values that it accepts."""
    stored: Callable[[Any, Sequence[Row]], Any] = lambda value, rows: value
    """Converts a value of the command line to the value that results hold."""

    def matches(self, row: Row, wanted: Any) -> bool:
        """Return True if a row has the value."""
        return bool(wanted == row[self.field] or wanted is ANY)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """Return True if a row has one of the values."""
        return any(self.matches(row, value) for value in wanted)


@dataclass(frozen=True)
class WeightsOption(Option):
    """The option ``[BACKBONE=]pretrained``, ``random`` or a file, as (backbone or '', weights)."""

    def matches(self, row: Row, wanted: Any) -> bool:
        backbone, weights = wanted
        ref = row.spec.weights
        is_file = ref.kind == "file" and ref.source == Path(weights).name
        return backbone in ("", row.spec.backbone) and (is_file or row.weights == weights)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """Return True if a row has one of the values; those of its own backbone take precedence,
        and values of other backbones leave it unfiltered."""
        own = [want for want in wanted if want[0] == row.spec.backbone]
        mine = own or [want for want in wanted if not want[0]]
        return not mine or any(self.matches(row, want) for want in mine)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_accepted(check: Callable[[Any], object], value: Any) -> bool:
    """Return True if ``check`` raises no UserError for a value."""
    with suppress(UserError):
        check(value)
        return True
    return False


def _dataset(name: str, rows: Sequence[Row]) -> str:
    kind, colon, path = name.partition(":")
    if kind not in PATHS or not colon:
        return name
    base = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return f"{kind}:{base or 'root'}"


def _device(name: str, rows: Sequence[Row]) -> Any:
    """Return the device of results: ``auto`` is the first GPU, or else the CPU."""
    if name != "auto":
        return ANY if name == "all" else name
    gpus = [str(row.spec.device) for row in rows if row.spec.device != "cpu"]
    return min(gpus, key=lambda gpu: (len(gpu), gpu), default="cpu")


def _weights(text: str, rows: Sequence[Row]) -> tuple[str, str]:
    backbone, weights = weights_choice(text)
    return public_name(backbone), weights


def _recipe_option(declared: DeclaredOption) -> Option:
    option = Option(declared.name, declared.name.replace("_", " "), declared.names)
    if declared.name == "head":
        return replace(option, is_another=partial(_is_accepted, hidden_units))
    return option if declared.kind is str else replace(option, is_another=_is_number)


OPTIONS: dict[str, Option] = {
    **{declared.option.parameter: _recipe_option(declared) for declared in RECIPE_OPTIONS.values()},
    "cases": Option("case", "case", [str(case) for case in CASES]),
    "datasets": Option(
        "dataset", "data set", (*EMBEDDED, *DEBIAN),
        lambda name: name.partition(":")[0] in PATHS, _dataset,
    ),
    "backbones": Option(
        "backbone", "backbone", list(BACKBONES),
        partial(_is_accepted, partial(check_name, "backbone")),
        lambda name, _: public_name(name),
    ),
    "policies": Option("policy", "policy", list(POLICIES)),
    "backends": Option("backend", "backend", list(BACKENDS)),
    "seeds": Option("seed", "seed", (), _is_number),
    "train_images": Option("train_images", "number of training images", (), _is_number),
    "mode": Option("mode", "mode", get_args(Mode)),
    "weights": WeightsOption(
        "weights", "weights", WEIGHTS,
        lambda wanted: wanted[1] in WEIGHTS or "." in wanted[1] or os.sep in wanted[1], _weights,
    ),
    "tune": Option("tune", "tuning", get_args(TuneName)),
    "device": Option(
        "device", "device", ("cpu", "auto", "all"),
        lambda name: bool(re.fullmatch(r"cuda:\d+", str(name))), _device,
    ),
    "status": Option("status", "status", get_args(Status)),
}  # fmt: skip
"""Name of an option of ``run`` → the filter; in the order of messages."""
