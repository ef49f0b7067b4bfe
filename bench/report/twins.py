"""Rows that differ only in the backend, and whether their parity has been shown."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from bench.catalog.policies import POLICIES
from bench.parity.proofs import Shown

Row = dict[str, Any]


def twins(rows: Sequence[Row], differing: Collection[str]) -> list[list[Row]]:
    """Rows that are ok and alike in everything but ``differing``, in the order of the rows."""
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(identity(row, differing), []).append(row)
    return list(groups.values())


def identity(row: Row, without: Collection[str]) -> tuple[Hashable, ...]:
    """What a row says in all fields but some."""
    key: tuple[Hashable, ...] = _picking(tuple(row), frozenset(without))(row)
    return key


@cache
def _picking(fields: tuple[str, ...], without: frozenset[str]) -> itemgetter[Any]:
    return itemgetter(*(field for field in fields if field not in without))


def mark_parity(rows: Sequence[Row], differing: Collection[str], shown: Collection[Shown]) -> None:
    """Set 'parity' of every row in matched mode that has a twin: shown where each other backend has
    a twin, in whatever environment, for which it is; ``is_proved`` speaks of two rows.

    Args:
        rows: Changed in place; 'parity' stays null for a row without a twin.
        differing: Fields in which twins may differ.
        shown: What has been proved.
    """
    for group in twins(rows, differing):
        for row in group:
            others = {r["backend"] for r in group} - {row["backend"]}
            if not others or row["mode"] != "matched":
                continue
            alike = _proved_alike(row, shown)
            proved = {r["backend"] for r in group if r["environment_id"] in alike}
            row["parity"] = "shown" if others <= proved else "not_shown"


def is_proved(a: Row, b: Row, shown: Collection[Shown]) -> bool:
    """Whether two rows of one experiment compute the same, each in its own environment."""
    return b["environment_id"] in _proved_alike(a, shown)


def _proved_alike(row: Row, shown: Collection[Shown]) -> set[str]:
    """Environments that compute a row's experiment as its own does: directly, or by way of one that
    both were compared with."""
    about = (row["backbone"], row["policy"], row["boundary"], row["optimizer"], row["code_sha256"])
    pairs = [
        s.environments
        for s in shown
        if (s.backbone, s.policy, s.boundary, s.optimizer, s.code_sha256) == about
    ]
    alike = {row["environment_id"]}
    while new := {e for pair in pairs if pair & alike for e in pair} - alike:
        alike |= new
    return alike - {row["environment_id"]}


def _nameable(backbone: str) -> str:
    """A backbone as the command line takes it; rows do not know the folder of a user's file."""
    own = backbone.removeprefix("module:")
    return backbone if own == backbone else f"module:FOLDER/{own}"


def unproved(rows: Sequence[Row]) -> str | None:
    """What to do about rows whose parity was not shown; None if there are none."""
    open_rows = [row for row in rows if row["parity"] == "not_shown"]
    if not open_rows:
        return None

    def names(field: str) -> list[str]:
        return list(dict.fromkeys(str(row[field]) for row in open_rows))

    own = [b for b in names("boundary") if b not in {p.boundary for p in POLICIES.values()}]
    boundary = f" --boundary {own[0]}" if own else ""
    command = (
        f"python run_bench.py parity {' '.join(map(_nameable, names('backbone')))} "
        f"--policy {','.join(names('policy'))} --optimizer {','.join(names('optimizer'))} "
        f"--backends {','.join(names('backend'))}{boundary}"
    )
    count = len(open_rows)
    return (
        f"parity not shown for {count} row{'s' if count > 1 else ''}: that the backends compute "
        f"the same has not been proved on this machine; to prove it: {command}"
    )
