"""All that a report compares, computed once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.analysis.groups import (
    Comparison,
    Contest,
    LostSeeds,
    SeedGroup,
    backend_pairs,
    cells_of,
    compare,
    contests_of,
)
from bench.analysis.rows import Row, is_proved
from bench.analysis.speed import SpeedComparison, compare_speeds
from bench.parity.proofs import ProvedSubject


@dataclass(frozen=True)
class BackendPair:
    """One experiment in two backends."""

    a: SeedGroup
    """The backend that the catalogue has first."""
    b: SeedGroup
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
    cells: Sequence[SeedGroup]
    """Of the runs that are ok."""
    contests: Sequence[Contest]
    """Policies against each other; in some of them there is one alone."""
    pairs: Sequence[BackendPair]
    """Backends against each other."""


def findings_of(
    rows: Sequence[Row],
    shown: Collection[ProvedSubject] = (),
    lost: LostSeeds | None = None,
) -> Findings:
    """Compare what can be compared.

    Args:
        rows: Of ``rows_of``.
        shown: What has been proved.
        lost: Of ``lost_seeds``; None: of these rows.
    """
    cells = cells_of(rows, lost)
    pairs = backend_pairs(cells)
    together = zip(pairs, compare(pairs), compare_speeds(pairs), strict=True)
    return Findings(
        rows,
        cells,
        contests_of(cells),
        [
            BackendPair(a, b, top1, speed, is_proved(a.row, b.row, shown))
            for (a, b), top1, speed in together
        ],
    )
