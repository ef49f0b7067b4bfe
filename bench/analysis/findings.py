"""All comparisons of a report, computed once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from bench.analysis.contests import (
    Contest,
    Overall,
    accuracy_of,
    contests_of,
    joined,
    overall,
    tests_of,
)
from bench.analysis.groups import (
    LostSeeds,
    NotPaired,
    SeedGroup,
    backend_pairs,
    seed_groups_of,
    unpaired,
)
from bench.analysis.intervals import SIGNIFICANT, Estimate, corrected
from bench.analysis.ranking import MARGIN, Ranking, rank
from bench.analysis.rows import Row, is_proved
from bench.analysis.seed_spread import USUAL, SeedSpread
from bench.analysis.speed import SpeedComparison, compare_speeds
from bench.parity.proofs import ProvedSubject

Verdict = Literal["differ", "equal", "open", "not compared"]


@dataclass(frozen=True)
class BackendPair:
    """One experiment in two backends."""

    a: SeedGroup
    """The backend that the catalogue lists first."""
    b: SeedGroup
    ranking: Ranking | None
    """Both accuracies; None if they cannot be compared."""
    p: float | None
    """p value, corrected for all pairs."""
    why_not: NotPaired | None
    speed: SpeedComparison | None
    is_proved: bool
    """True if both are proved to compute the same in these environments."""
    margin: float = MARGIN

    @cached_property
    def top1(self) -> Estimate | None:
        """Accuracy of ``b`` − that of ``a``; None if they cannot be compared."""
        return None if self.ranking is None else self.ranking.difference(0, 1)

    @property
    def verdict(self) -> Verdict:
        """differ: after correction for the number of pairs; equal: within the margin."""
        if self.top1 is None or self.p is None:
            return "not compared"
        if self.p < SIGNIFICANT and self.top1.excludes_neutral:
            return "differ"
        return "equal" if self.top1.is_within(self.margin) else "open"


@dataclass(frozen=True)
class Findings:
    """Runs and their comparisons."""

    rows: Sequence[Row]
    groups: Sequence[SeedGroup]
    """Seed groups of the runs that are ok."""
    contests: Sequence[Contest]
    """Policies compared in each backend; a contest may hold a single one."""
    joint: Sequence[Contest]
    """The same with backends averaged where they ran the same."""
    pairs: Sequence[BackendPair]
    margin: float = MARGIN

    @cached_property
    def tests(self) -> list[Contest]:
        """Joint contests of one machine and version, each question once; see ``tests_of``."""
        return tests_of(self.joint)

    @cached_property
    def overall(self) -> Overall | None:
        """Policies on average over the tests."""
        return overall(self.tests)

    def top1(self, group: SeedGroup) -> Estimate:
        """Return the accuracy of a seed group with its interval."""
        if group not in self._top1:
            self._top1[group] = accuracy_of(group, self._spreads.get(group, USUAL))
        return self._top1[group]

    @cached_property
    def _top1(self) -> dict[SeedGroup, Estimate]:
        return {}

    @cached_property
    def _spreads(self) -> dict[SeedGroup, SeedSpread]:
        """Spread over seeds of each group's network and backend."""
        return {
            group: contest.spread
            for contest in self.contests
            for entry in contest.all_entries
            for group in entry.groups
        }


def findings_of(
    rows: Sequence[Row], shown: Collection[ProvedSubject] = (), lost: LostSeeds | None = None,
    margin: float = MARGIN,
) -> Findings:  # fmt: skip
    """Compare policies and backends wherever they are comparable; ``lost`` is by default that of
    these rows, and ``margin`` the largest difference in accuracy that counts as equal."""
    groups = seed_groups_of(rows, lost)
    contests = contests_of(groups, margin)
    pairs = backend_pairs(groups)
    reasons = [unpaired(a, b) for a, b in pairs]
    spreads = {
        entry.groups[0]: contest.spread for contest in contests for entry in contest.all_entries
    }
    found = [
        None if why else rank([a.scores, b.scores], spreads.get(a, USUAL))
        for (a, b), why in zip(pairs, reasons, strict=True)
    ]
    ps = corrected([None if ranking is None else ranking.difference(0, 1) for ranking in found])
    compared = zip(pairs, found, ps, reasons, compare_speeds(pairs), strict=True)
    backends = [
        BackendPair(a, b, ranking, p, why, speed, is_proved(a.row, b.row, shown), margin)
        for (a, b), ranking, p, why, speed in compared
    ]
    return Findings(rows, groups, contests, joined(contests), backends, margin)
