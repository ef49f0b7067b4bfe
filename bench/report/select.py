"""Selection of the runs of a report by the options of ``run``; columns and order of its table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any, get_args

from bench.analysis.rows import FIELDS, Row, row_of
from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS
from bench.catalog.cases import CASES
from bench.catalog.policies import POLICIES
from bench.data.registry import EMBEDDED
from bench.errors import UserError, choose
from bench.network.backbones import check_name, public_name, weights_choice
from bench.network.head import hidden_units
from bench.spec.options import DeclaredOption
from bench.spec.run import RECIPE_OPTIONS, Mode, Status, TuneName
from bench.storage.results import StoredRun

RecipeFilters: Any = make_dataclass(
    "RecipeFilters",
    [(declared.parameter, Any, None) for declared in RECIPE_OPTIONS.values()],
    frozen=True,
    kw_only=True,
)
"""Selected values of recipe fields by the names of their options; None: any."""


@dataclass(frozen=True, kw_only=True)
class Filters(RecipeFilters):  # type: ignore[misc]  # made from the declarations of Recipe
    """Selected values by the names of the options of ``run``; None: any."""

    cases: Sequence[int] | None = None
    datasets: Sequence[str] | None = None
    backbones: Sequence[str] | None = None
    policies: Sequence[str] | None = None
    backends: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    train_images: Sequence[int] | None = None
    mode: Sequence[str] | None = None
    weights: Sequence[str] | None = None
    tune: Sequence[str] | None = None
    device: Sequence[str] | None = None
    status: Sequence[str] | None = None

    def given(self) -> dict[str, Sequence[Any]]:
        """Return the options that were given, with their values."""
        return {
            f.name: values for f in fields(self) if (values := getattr(self, f.name)) is not None
        }

    def as_options(self) -> str:
        """Return the filters as on the command line; empty if there are none."""
        return " ".join(
            f"{_flag(name)} {','.join(map(str, values))}" for name, values in self.given().items()
        )


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


class Selection:
    """The runs that pass all filters."""

    def __init__(self, filters: Filters, runs: Iterable[StoredRun]) -> None:
        """
        Args:
            filters: Selected values of the options.
            runs: All runs that there are.

        Raises:
            UserError: Thawbench does not know a name, or no run has any value of some option.
        """
        self._filters = filters
        self._wanted: list[tuple[Option, Sequence[Any]]] = []
        self.absent: list[str] = []
        """A sentence for each option that has known values which no run has."""
        given = filters.given()
        rows = [row_of(run) for run in runs] if given else []
        for name, values in given.items():
            self._take(name, OPTIONS[name], values, rows)

    def _take(self, name: str, option: Option, values: Sequence[Any], rows: Sequence[Row]) -> None:
        there = [row for row in rows if row[option.field] is not None]
        names = list(dict.fromkeys(str(row[option.field]) for row in there))
        among = f"Among these runs: {', '.join(names)}." if names else ""
        wanted = [option.stored(value, rows) for value in values]
        missing = [
            (value, want)
            for value, want in zip(values, wanted, strict=True)
            if not any(option.matches(row, want) for row in there)
        ]
        for value, want in missing:
            if not option.is_known(want):
                known = dict.fromkeys([*names, *option.names])
                choose(f"{option.word} among these runs", str(value), known, among or None)
        absent = " or ".join(f"'{value}'" for value, _ in missing)
        if len(missing) == len(values):
            raise UserError(
                f"{_flag(name)}: no run here has the {option.word} {absent}.",
                among or f"No run here has any {option.word}. Leave out {_flag(name)}.",
            )
        if missing:
            self.absent.append(f"No run here has the {option.word} {absent}.")
        self._wanted.append((option, wanted))

    def of(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """Return the runs that pass, perhaps none."""
        if not self._wanted:
            return list(runs)
        return [run for run in runs if self._has(row_of(run))]

    def _has(self, row: Row) -> bool:
        return all(option.lets_through(row, wanted) for option, wanted in self._wanted)

    def kept(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """Return the runs that pass; raise UserError if there are none."""
        found = self.of(runs)
        if not found:
            raise UserError(
                f"No run here has all of {self._filters.as_options()}.",
                "Leave out one of the filters.",
            )
        return found


def chosen_columns(names: Sequence[str] | None) -> list[str] | None:
    """Return the columns of the table of runs; raise UserError if a row has no such field."""
    for name in names or ():
        choose("column", name, list(FIELDS))
    return None if names is None else list(names)


def in_order(rows: Sequence[Row], sort: Sequence[str] | None) -> list[Row]:
    """Sort rows by fields: ``test_top1`` ascending, ``-test_top1`` descending.

    Rows without a value come last, and the sort is stable.

    Raises:
        UserError: A row has no such field.
    """
    ordered = list(rows)
    for name in reversed(sort or ()):
        field = name.removeprefix("-")
        choose("column to sort by", field, list(FIELDS))
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


PATHS = ("folder", "rvl_cdip")
"""Kinds of data sets that have a path; results hold its last part."""
WEIGHTS = ("pretrained", "random")


def _as_it_is(value: Any, rows: Sequence[Row]) -> Any:
    return value


def _never(value: Any) -> bool:
    return False


@dataclass(frozen=True)
class Option:
    """An option of ``run`` as a filter of rows."""

    field: str
    """Name of the field of rows."""
    word: str
    """Noun for a value, in messages."""
    names: Sequence[str] = ()
    """Values that Thawbench knows."""
    is_another: Callable[[Any], bool] = _never
    """Returns True for further valid values."""
    stored: Callable[[Any, Sequence[Row]], Any] = _as_it_is
    """Converts a value of the command line to the value that results hold."""

    def is_known(self, value: Any) -> bool:
        """Return True if ``run`` accepts the value."""
        return str(value) in self.names or self.is_another(value)

    def matches(self, row: Row, wanted: Any) -> bool:
        """Return True if a row has the value."""
        return bool(wanted == row[self.field] or wanted is ANY)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """Return True if a row has one of the values."""
        return any(self.matches(row, value) for value in wanted)


ANY = object()
"""A value that every row has."""


@dataclass(frozen=True)
class WeightsOption(Option):
    """The option ``[BACKBONE=]pretrained``, ``random`` or a file, as (backbone or '', weights)."""

    def matches(self, row: Row, wanted: Any) -> bool:
        backbone, weights = wanted
        if backbone not in ("", row.spec.backbone):
            return False
        is_file = str(row.weights).startswith(f"file {Path(weights).name} ")
        return bool(is_file or row.weights == weights)

    def lets_through(self, row: Row, wanted: Sequence[Any]) -> bool:
        """Return True if a row has one of the values; those of its own backbone take precedence,
        and values of other backbones leave it unfiltered."""
        own = [want for want in wanted if want[0] == row.spec.backbone]
        mine = own or [want for want in wanted if not want[0]]
        return not mine or any(self.matches(row, want) for want in mine)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_head(head: str) -> bool:
    try:
        hidden_units(head)
    except UserError:
        return False
    return True


def _is_backbone(name: str) -> bool:
    try:
        check_name("backbone", name)
    except UserError:
        return False
    return True


def _dataset(name: str, rows: Sequence[Row]) -> str:
    kind, colon, path = name.partition(":")
    if kind not in PATHS or not colon:
        return name
    base = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return f"{kind}:{base or 'root'}"


def _device(name: str, rows: Sequence[Row]) -> Any:
    """Return the device of results: ``auto`` is the first GPU, or else the CPU."""
    if name == "all":
        return ANY
    if name != "auto":
        return name
    gpus = [str(row.spec.device) for row in rows if row.spec.device != "cpu"]
    return min(gpus, key=lambda gpu: (len(gpu), gpu), default="cpu")


def _weights(text: str, rows: Sequence[Row]) -> tuple[str, str]:
    backbone, weights = weights_choice(text)
    return public_name(backbone), weights


def _is_path(wanted: tuple[str, str]) -> bool:
    weights = wanted[1]
    return weights in WEIGHTS or "." in weights or os.sep in weights


def _recipe_option(declared: DeclaredOption) -> Option:
    is_another = {"head": _is_head}.get(declared.name, _never)
    return Option(
        declared.name,
        declared.name.replace("_", " "),
        declared.names,
        is_another if declared.kind is str else _is_number,
    )


OPTIONS: dict[str, Option] = {
    "cases": Option("case", "case", [str(case) for case in CASES]),
    "datasets": Option(
        "dataset", "data set", EMBEDDED, lambda name: name.partition(":")[0] in PATHS, _dataset
    ),
    "backbones": Option(
        "backbone", "backbone", list(BACKBONES), _is_backbone, lambda name, _: public_name(name)
    ),
    "policies": Option("policy", "policy", list(POLICIES)),
    "backends": Option("backend", "backend", list(BACKENDS)),
    "seeds": Option("seed", "seed", (), _is_number),
    "train_images": Option("train_images", "number of training images", (), _is_number),
    "mode": Option("mode", "mode", get_args(Mode)),
    "weights": WeightsOption("weights", "weights", WEIGHTS, _is_path, _weights),
    **{declared.parameter: _recipe_option(declared) for declared in RECIPE_OPTIONS.values()},
    "tune": Option("tune", "tuning", get_args(TuneName)),
    "device": Option(
        "device", "device", ("cpu", "auto", "all"),
        lambda name: bool(re.fullmatch(r"cuda:\d+", str(name))), _device,
    ),
    "status": Option("status", "status", get_args(Status)),
}  # fmt: skip
"""Field of ``Filters`` → the option."""
