"""All that a report compares, computed once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.parity.proofs import Shown
from bench.report.cells import (
    Cell,
    Comparison,
    Contest,
    LostSeeds,
    backend_pairs,
    cells_of,
    compare,
    contests_of,
)
from bench.report.speeds import SpeedComparison, compare_speeds
from bench.report.twins import Row, is_proved
from bench.store import StoredRun


@dataclass(frozen=True)
class Pair:
    """One experiment in two backends."""

    a: Cell
    """The backend that the catalogue has first."""
    b: Cell
    top1: Comparison
    """Accuracy."""
    speed: SpeedComparison
    is_proved: bool
    """Whether both were shown to compute the same, in these environments."""


@dataclass(frozen=True)
class Findings:
    """What the numbers say."""

    rows: Sequence[Row]
    """All runs."""
    runs: Sequence[StoredRun]
    """The same, as they lie on disk."""
    cells: Sequence[Cell]
    """Of the runs that are ok."""
    contests: Sequence[Contest]
    """Policies against each other; in some of them there is one alone."""
    pairs: Sequence[Pair]
    """Backends against each other."""


def findings_of(
    rows: Sequence[Row],
    runs: Sequence[StoredRun],
    shown: Collection[Shown] = (),
    lost: LostSeeds | None = None,
) -> Findings:
    """Compare what can be compared.

    Args:
        rows: Of ``rows_of``.
        runs: The same, as they lie on disk.
        shown: What has been proved.
        lost: Of ``lost_seeds``; None: of these rows.
    """
    cells = cells_of(rows, runs, lost)
    pairs = backend_pairs(cells)
    together = zip(pairs, compare(pairs), compare_speeds(pairs), strict=True)
    return Findings(
        rows,
        runs,
        cells,
        contests_of(cells),
        [
            Pair(a, b, top1, speed, is_proved(a.row, b.row, shown))
            for (a, b), top1, speed in together
        ],
    )
