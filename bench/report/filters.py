"""Which runs a report is of, which columns its table of runs has, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench.errors import UserError, choose
from bench.report.options import OPTIONS, Option
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

    def asked(self) -> dict[str, Sequence[Any]]:
        """Option → its values, of those that were given."""
        return {
            f.name: values for f in fields(self) if (values := getattr(self, f.name)) is not None
        }

    def told(self) -> str:
        """As on the command line; nothing where all runs are asked for."""
        return " ".join(
            f"{_flag(name)} {','.join(map(str, values))}" for name, values in self.asked().items()
        )


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


class Selection:
    """The runs that all filters let through."""

    def __init__(self, filters: Filters, runs: Iterable[StoredRun]) -> None:
        """
        Args:
            filters: What is asked for.
            runs: All that there are: a name that none of them has is told.

        Raises:
            UserError: A name that Thawbench does not know, or an option of whose values none is
                among these runs.
        """
        self._filters = filters
        self._asked: list[tuple[Option, Sequence[Any]]] = []
        self.absent: list[str] = []
        """A sentence for each option of whose values some are known, and not among these runs."""
        asked = filters.asked()
        rows = [row_of(run) for run in runs] if asked else []
        for name, values in asked.items():
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
        said = " or ".join(f"'{value}'" for value, _ in missing)
        if len(missing) == len(values):
            raise UserError(
                f"{_flag(name)}: no run here has the {option.word} {said}.",
                among or f"None of them has any; leave out {_flag(name)}.",
            )
        if missing:
            self.absent.append(f"No run here has the {option.word} {said}.")
        self._asked.append((option, wanted))

    def of(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """Those of some runs, perhaps none."""
        if not self._asked:
            return list(runs)
        return [run for run in runs if self._has(row_of(run))]

    def _has(self, row: Row) -> bool:
        return all(option.lets_through(row, wanted) for option, wanted in self._asked)

    def kept(self, runs: Iterable[StoredRun]) -> list[StoredRun]:
        """
        Raises:
            UserError: None has all that is asked for.
        """
        found = self.of(runs)
        if not found:
            raise UserError(
                f"No run here has all of {self._filters.told()}.", "Leave out one of the filters."
            )
        return found


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
