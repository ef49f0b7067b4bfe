"""Runs that differ in the seed alone, taken together; and contests between such cells.

Nothing is taken together over machines, devices, versions or anything else that a spec says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np

from bench.analysis import intervals as statistics
from bench.analysis.intervals import Estimate, Floats, holm
from bench.analysis.predictions import Answers, answers_of
from bench.analysis.rows import DIFFERING, Row, identity
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES, PRESCRIBED
from bench.spec.run import RECIPE_OPTIONS

Verdict = Literal["real", "tie", "tie after correction", "not comparable"]
SIGNIFICANT = 1.0 - statistics.LEVEL
CHOSEN = frozenset(
    {"policy", "boundary", "weights", "tune", "sweep"}
    | {name for name, declared in RECIPE_OPTIONS.items() if declared.option.competes}
)
"""Fields that go with a policy: cells that differ in these alone compete."""
SAID = DIFFERING - {"backend", "environment_id"}
"""Fields that say what came out, not what was run and where."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs of one experiment in one environment, a seed each; all of them ok."""

    rows: tuple[Row, ...]
    """In the order of their seeds."""
    lost: int = 0
    """Seeds of the same experiment that were not ok: without them, the others say too much."""

    @property
    def row(self) -> Row:
        """One of them, for what they have in common."""
        return self.rows[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(row.spec.seed for row in self.rows)

    @cached_property
    def answers(self) -> dict[int, Answers]:
        """Seed → what that run said of each test image; without those that cannot be read."""
        found = {}
        for row in self.rows:
            top1 = row.result.test_top1
            answers = None if top1 is None else answers_of(row)
            # Answers that do not add up to the run's own accuracy belong to another run.
            if (
                top1 is not None
                and answers is not None
                and abs(float(answers.right.mean()) - top1) < 1.5 / answers.right.size
            ):
                found[row.spec.seed] = answers
        return found

    @cached_property
    def top1(self) -> Estimate:
        """Share of right answers; without an interval where the images' answers are missing."""
        answers = [self.answers[s] for s in self.seeds if s in self.answers]
        alike = len({a.labels_sha256 for a in answers}) == 1
        if not alike or len(answers) < len(self.rows):
            shares = (row.result.test_top1 for row in self.rows)
            return statistics.mean_share([share for share in shares if share is not None])
        return statistics.accuracy(np.stack([a.right for a in answers]))

    def mean(self, field: str) -> float | None:
        """Of a measured field, over the seeds; None where one of them lacks it."""
        values = [row[field] for row in self.rows]
        return None if any(v is None for v in values) else float(np.mean(values))

    @property
    def machine(self) -> tuple[Any, ...]:
        """Where it ran, apart from versions."""
        e = self.row.environment
        return e.system, e.processor, e.cores, e.device, e.device_model

    @property
    def circumstances(self) -> tuple[Any, ...]:
        """What of its environment is no backend's own: Thawbench's code, and variables."""
        e = self.row.environment
        return e.thawbench, tuple(sorted(e.variables.items()))

    @property
    def val_top1(self) -> float:
        """Mean accuracy on the validation images after the last epoch; below 0 where unknown."""
        last = [(run.result.val_top1_by_epoch or [None])[-1] for run in self.rows]
        return float(np.mean([-1.0 if v is None else v for v in last]))


LostSeeds = Mapping[tuple[Hashable, ...], int]
"""Experiment → its seeds that are not ok."""


def lost_seeds(rows: Iterable[Row]) -> LostSeeds:
    """Seeds that are not ok, of rows before any was left out of a report."""
    return Counter(experiment_of(row) for row in rows if not row.is_ok)


def cells_of(rows: Sequence[Row], lost: LostSeeds | None = None) -> list[SeedGroup]:
    """Cells of the rows that are ok, in the order of the rows.

    Args:
        rows: Of ``rows_of``.
        lost: Of ``lost_seeds``; None: of these rows.
    """
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        if row.is_ok and row.result.test_top1 is not None:
            groups.setdefault(experiment_of(row), []).append(row)
    lost = lost_seeds(rows) if lost is None else lost
    return [
        SeedGroup(tuple(sorted(members, key=lambda row: row.spec.seed)), lost.get(key, 0))
        for key, members in groups.items()
    ]


def _identity_but(row: Row, without: Iterable[str]) -> tuple[Hashable, ...]:
    """What a row is, apart from what was measured and from some fields."""
    return identity(row, SAID | set(without))


def alike_but(cell: SeedGroup, fields: Iterable[str]) -> tuple[Hashable, ...]:
    """What a cell has in common with those that differ from it in these fields at most."""
    return _identity_but(cell.row, fields)


def experiment_of(row: Row) -> tuple[Hashable, ...]:
    """What the seeds of an experiment have in common."""
    return _identity_but(row, {"seed"})


def question_of(row: Row) -> tuple[Hashable, ...]:
    """What policies that compete have in common."""
    return _identity_but(row, {*CHOSEN, "seed"})


def question_of_any_backend(row: Row) -> tuple[Hashable, ...]:
    """Return what a question has in common with the same one asked of another backend."""
    return _identity_but(row, {*CHOSEN, "seed", "backend", "environment_id", "device_model"})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two cells, image by image."""

    a: SeedGroup
    b: SeedGroup
    top1: Estimate | None
    """Of b less that of a; None where they cannot be paired."""
    p: float | None
    """Corrected for all comparisons of the same question."""
    of: int
    """Comparisons of that question."""

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracies differ."""
        if self.top1 is None or self.top1.p is None or self.p is None:
            return "not comparable"
        if self.p < SIGNIFICANT and not self.holds_zero:
            return "real"
        return "tie" if self.holds_zero else "tie after correction"

    @property
    def holds_zero(self) -> bool:
        """Whether the interval has both signs."""
        found = self.top1
        return found is None or found.low is None or found.high is None or (
            found.low <= 0.0 <= found.high
        )  # fmt: skip

    def over(self, cell: SeedGroup) -> Estimate | None:
        """The accuracy of the other cell less that of ``cell``."""
        e = self.top1
        if e is None or self.a is cell:
            return e
        low, high = (None if end is None else -end for end in (e.high, e.low))
        return replace(e, value=-e.value, low=low, high=high)

    @property
    def detectable(self) -> float | None:
        """Least difference of accuracy that would have been called real, by this one's spread."""
        return None if self.top1 is None else statistics.detectable(self.top1, self.of)

    @property
    def why_not(self) -> str | None:
        """Why they cannot be compared; None where they are."""
        return unpaired(self.a, self.b)


def unpaired(a: SeedGroup, b: SeedGroup) -> str | None:
    """Why two cells are not compared image by image: they have other seeds or images, answers are
    missing, or seeds of one were lost, so that its others may be the lucky ones."""
    if a.lost or b.lost:
        return "seeds failed"
    if a.seeds != b.seeds:
        return "other seeds"
    if not all(seed in c.answers for c in (a, b) for seed in a.seeds):
        return "answers missing"
    labels = {c.answers[seed].labels_sha256 for c in (a, b) for seed in a.seeds}
    if (
        len(labels) > 1
        or a.row.spec.case.dataset.content_hash != b.row.spec.case.dataset.content_hash
    ):
        return "other test images"
    return None


def paired(a: SeedGroup, b: SeedGroup) -> tuple[Floats, Floats] | None:
    """Right answers (seeds, images) of both; None where they cannot be compared."""
    if unpaired(a, b) is not None:
        return None
    first, second = (np.stack([c.answers[seed].right for seed in a.seeds]) for c in (a, b))
    return first, second


def compare(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[Comparison]:
    """Comparisons of one question, corrected for their number."""
    found = [None if (p := paired(a, b)) is None else statistics.difference(*p) for a, b in pairs]
    known = [e.p for e in found if e is not None and e.p is not None]
    corrected = iter(holm(known))
    return [
        Comparison(a, b, e, next(corrected) if e is not None and e.p is not None else None,
                   len(known))
        for (a, b), e in zip(pairs, found, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Contest:
    """Policies on the same data, with the same network, in the same environment."""

    cells: tuple[SeedGroup, ...]
    """Best first, by mean accuracy."""
    comparisons: tuple[Comparison, ...]
    """Of every two."""
    passed_over: int
    """Cells of a policy beside the one that validation preferred."""
    pretended: tuple[SeedGroup, ...] = ()
    """Left out beside pretrained ones: random weights in their place."""

    @property
    def row(self) -> Row:
        """For what they have in common."""
        return self.cells[0].row

    @property
    def is_decided(self) -> bool:
        """Whether the best could be compared with every other."""
        best, *others = self.cells
        return all(self.between(best, c).verdict != "not comparable" for c in others)

    @property
    def why_not(self) -> list[str]:
        """Why the best could not be compared with every other."""
        best, *others = self.cells
        return list(dict.fromkeys(why for c in others if (why := self.between(best, c).why_not)))

    @property
    def is_telling(self) -> bool:
        """Whether policies compete, could be compared, and their accuracies say anything."""
        return bool(self.comparisons) and self.is_decided and self.shows_nothing is None

    @property
    def shows_nothing(self) -> str | None:
        """Why accuracies say nothing of policies, whatever they are: generated images, or no
        pretrained weights in what is called after them; else None."""
        if "synthetic" in self.row.spec.case.dataset.label:
            return "generated images"
        pretended = any(map(is_pretended, self.cells))
        return "random weights where pretrained ones belong" if pretended else None

    def between(self, a: SeedGroup, b: SeedGroup) -> Comparison:
        """The comparison of two of them, whichever way round."""
        return self._between[frozenset((id(a), id(b)))]

    @cached_property
    def _between(self) -> dict[frozenset[int], Comparison]:
        return {frozenset((id(c.a), id(c.b))): c for c in self.comparisons}

    @cached_property
    def leaders(self) -> tuple[SeedGroup, ...]:
        """The best, and all that none is shown to be better than, after correction."""
        return tuple(c for c in self.cells if not self.better_than(c))

    @property
    def is_won(self) -> bool:
        """Whether the best is better than every other, after correction too."""
        return len(self.leaders) == 1

    def better_than(self, cell: SeedGroup) -> tuple[SeedGroup, ...]:
        """Those that are shown to be better than one of them, best first."""
        above = self.cells[: self.cells.index(cell)]
        return tuple(c for c in above if self.between(c, cell).verdict == "real")

    @property
    def prescribed(self) -> SeedGroup | None:
        """That of the article's policy, if this is one of its cases and the policy took part; with
        weights from a file, or from a boundary of the user's own, it is the article's still."""
        return self.named(PRESCRIBED.get(self.row.spec.case.number or 0))

    def named(self, policy: str | None) -> SeedGroup | None:
        """Of a policy: as the catalogue has it, else the variant that validation prefers."""
        ours = [
            c for c in self.cells if c.row.spec.policy.name == policy and c.row.weights != "random"
        ]
        usual = (c for c in ours if contestant(c) == policy)
        return next(usual, max(ours, key=lambda c: c.val_top1, default=None))


def is_pretended(cell: SeedGroup) -> bool:
    """Whether it began from random weights and is called after pretrained ones."""
    return cell.row.weights == "random" and cell.row.spec.policy.name != "from_scratch"


def contests_of(cells: Sequence[SeedGroup]) -> list[Contest]:
    """A contest for each question, in the order of the cells; also of one policy alone."""
    groups = _grouped(cells, lambda cell: question_of(cell.row))
    found = []
    for group in groups:
        # Of random weights in the place of pretrained ones, accuracy says nothing: they compete
        # among themselves at most.
        pretended = tuple(filter(is_pretended, group))
        real = [cell for cell in group if cell not in pretended]
        if all(cell.row.spec.policy.name == "from_scratch" for cell in real):
            real, pretended = group, ()
        by_name = _grouped(real, contestant)
        kept = [max(same, key=lambda cell: cell.val_top1) for same in by_name]
        ranked = sorted(kept, key=lambda cell: -cell.top1.value)
        pairs = compare(list(combinations(ranked, 2)))
        found.append(Contest(tuple(ranked), tuple(pairs), len(real) - len(kept), pretended))
    return found


def _grouped(cells: Sequence[SeedGroup], key: Callable[[SeedGroup], Any]) -> list[list[SeedGroup]]:
    groups: dict[Any, list[SeedGroup]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())


def contestant(cell: SeedGroup) -> str:
    """Name of a policy, with what is unusual about what it starts from or trains."""
    name, boundary, weights = (
        cell.row.spec.policy.name,
        cell.row.spec.policy.boundary,
        cell.row.weights,
    )
    policy = POLICIES.get(name)
    start = "" if policy and weights == policy.initialisation else f", {weights} weights"
    return name + start + (f" from {boundary}" if policy and boundary != policy.boundary else "")


def backend_pairs(cells: Sequence[SeedGroup]) -> list[tuple[SeedGroup, SeedGroup]]:
    """Cells of one experiment on one machine in two backends, in matched mode; PyTorch or else the
    first backend comes first."""
    ignored = {"backend", "environment_id", "seed"}
    groups = _grouped(
        [c for c in cells if c.row.spec.mode == "matched"],
        lambda cell: (cell.machine, cell.circumstances, _identity_but(cell.row, ignored)),
    )
    order = {name: place for place, name in enumerate(BACKENDS)}
    return [
        (a, b)
        for group in groups
        for a, b in combinations(sorted(group, key=lambda c: order.get(c.row.spec.backend, 99)), 2)
        if a.row.spec.backend != b.row.spec.backend
    ]
