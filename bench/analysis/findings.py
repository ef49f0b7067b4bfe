"""All comparisons of a report, computed once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.analysis import groups
from bench.analysis.groups import Comparison, Contest, LostSeeds, SeedGroup
from bench.analysis.rows import Row, is_proved
from bench.analysis.speed import SpeedComparison, compare_speeds
from bench.parity.proofs import ProvedSubject


@dataclass(frozen=True)
class BackendPair:
    """One experiment in two backends."""

    a: SeedGroup
    """The backend that the catalogue lists first."""
    b: SeedGroup
    top1: Comparison
    speed: SpeedComparison
    is_proved: bool
    """True if both are proved to compute the same in these environments."""


@dataclass(frozen=True)
class Findings:
    """Runs and their comparisons."""

    rows: Sequence[Row]
    groups: Sequence[SeedGroup]
    """Seed groups of the runs that are ok."""
    contests: Sequence[Contest]
    """Comparisons of policies; a contest may hold a single one."""
    pairs: Sequence[BackendPair]


def findings_of(
    rows: Sequence[Row], shown: Collection[ProvedSubject] = (), lost: LostSeeds | None = None
) -> Findings:
    """Compare policies and backends wherever they are comparable; ``lost`` is by default that of
    these rows."""
    seed_groups = groups.seed_groups_of(rows, lost)
    pairs = groups.backend_pairs(seed_groups)
    compared = zip(pairs, groups.compare(pairs), compare_speeds(pairs), strict=True)
    backends = [
        BackendPair(a, b, top1, speed, is_proved(a.row, b.row, shown))
        for (a, b), top1, speed in compared
    ]
    return Findings(rows, seed_groups, groups.contests_of(seed_groups), backends)
