"""Seed groups: runs that differ in the seed alone; and contests between them.

Runs of different machines, devices, versions or specs are never grouped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np

from bench.analysis import intervals
from bench.analysis.intervals import Estimate, Floats, corrected
from bench.analysis.predictions import Answers, answers_of
from bench.analysis.rows import DIFFERING, Row, backend_place, grouped, identity
from bench.analysis.same_experiment import CONTRADICTIONS, THREADS
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES, PRESCRIBED
from bench.data.registry import GENERATED, qualifier_of
from bench.spec.run import RECIPE_OPTIONS

Verdict = Literal["real", "tie", "tie after correction", "not comparable"]
NotPaired = Literal[
    "seeds failed", "other seeds", "answers missing", "other test images", "not the same experiment"
]
Meaningless = Literal["generated images", "random weights where pretrained ones belong"]
COMPETING_FIELDS = frozenset(
    {"policy", "boundary", "policy_digest", "tune", "sweep"}
    | {"weights", "weights_sha256", "reading_digest"}
    | {name for name, declared in RECIPE_OPTIONS.items() if declared.option.competes}
)
"""Fields that go with a policy: seed groups that differ in these alone compete."""
OUTCOME_FIELDS = DIFFERING - {"backend", "environment_id"}
"""Fields of a row that are outcomes, not settings."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs of one experiment in one environment that are ok, one for each seed."""

    rows: tuple[Row, ...]
    """By ascending seed."""
    lost: int = 0
    """Seeds of the same experiment that are not ok, without which the others may be biased."""

    @property
    def row(self) -> Row:
        """The first row, for what they have in common."""
        return self.rows[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(row.spec.seed for row in self.rows)

    @cached_property
    def answers(self) -> dict[int, Answers]:
        """Seed → right and wrong answers to the test images, as far as they can be read."""
        found = {}
        for row in self.rows:
            top1 = row.result.test_top1
            if top1 is None or (answers := answers_of(row)) is None:
                continue
            # Answers that do not add up to the run's own accuracy belong to another run.
            if abs(float(answers.right.mean()) - top1) < 1.5 / answers.right.size:
                found[row.spec.seed] = answers
        return found

    @property
    def right(self) -> Floats:
        """Right answers of all seeds, (seeds, images)."""
        return np.stack([self.answers[seed].right for seed in self.seeds])

    @cached_property
    def top1(self) -> Estimate:
        """Test accuracy; without an interval if answers are missing."""
        if _unlike_answers(self) is None:
            return intervals.accuracy(self.right)
        shares = (row.result.test_top1 for row in self.rows)
        return intervals.mean_share([share for share in shares if share is not None])

    def mean(self, field: str) -> float | None:
        """Return the mean of a measured field; None if a run lacks it."""
        values = [row[field] for row in self.rows]
        return None if any(v is None for v in values) else float(np.mean(values))

    @property
    def machine(self) -> tuple[Any, ...]:
        """Machine and device, without versions."""
        e = self.row.environment
        return e.system, e.processor, e.cores, e.device, e.device_model

    @property
    def circumstances(self) -> tuple[Any, ...]:
        """Parts of the environment that concern every backend: Thawbench's shared code, and the
        variables that no backend sets for itself."""
        e = self.row.environment
        own = BACKENDS[e.backend].variables if e.backend in BACKENDS else {}
        variables = ((name, v) for name, v in e.variables.items() if name not in own)
        return e.shared_code, tuple(sorted(variables))

    @property
    def val_top1(self) -> float:
        """Mean validation accuracy after the last epoch; -1 counts for an unknown one."""
        last = [(row.result.val_top1_by_epoch or (None,))[-1] for row in self.rows]
        return float(np.mean([-1.0 if v is None else v for v in last]))


LostSeeds = Mapping[tuple[Hashable, ...], int]
"""Experiment → number of its seeds that are not ok."""


def lost_seeds(rows: Iterable[Row]) -> LostSeeds:
    """Count the seeds that are not ok, of rows before a filter left any out."""
    return Counter(experiment_of(row) for row in rows if not row.is_ok)


def seed_groups_of(rows: Sequence[Row], lost: LostSeeds | None = None) -> list[SeedGroup]:
    """Group the rows that are ok by experiment, in the order of the rows; ``lost`` is by default
    that of these rows. Of two runs of one seed, such as those with one file of weights from two
    places, the last counts."""
    lost = lost_seeds(rows) if lost is None else lost
    ok = (row for row in rows if row.is_ok and row.result.test_top1 is not None)
    return [
        SeedGroup(_one_for_each_seed(members), lost.get(key, 0))
        for key, members in grouped(ok, experiment_of).items()
    ]


def _one_for_each_seed(rows: Iterable[Row]) -> tuple[Row, ...]:
    by_seed = {row.spec.seed: row for row in rows}
    return tuple(by_seed[seed] for seed in sorted(by_seed))


def settings_of(row: Row, without: Iterable[str]) -> tuple[Hashable, ...]:
    """Return a row's settings, apart from some fields."""
    return identity(row, OUTCOME_FIELDS.union(without))


def experiment_of(row: Row) -> tuple[Hashable, ...]:
    """Return what the seeds of an experiment have in common."""
    return settings_of(row, {"seed"})


def question_of(row: Row) -> tuple[Hashable, ...]:
    """Return what competing policies have in common."""
    return settings_of(row, {*COMPETING_FIELDS, "seed"})


def question_of_any_backend(row: Row) -> tuple[Hashable, ...]:
    """Return what a question has in common with the same one for another backend."""
    where = {"backend", "environment_id", "device_model"}
    return settings_of(row, {*COMPETING_FIELDS, *where, "seed"})


@dataclass(frozen=True, eq=False)
class Comparison:
    """The accuracies of two seed groups, paired by image."""

    a: SeedGroup
    b: SeedGroup
    top1: Estimate | None
    """Accuracy of ``b`` − that of ``a``; None if they cannot be paired."""
    p: float | None
    """p value, corrected for all comparisons of the question."""
    of: int
    """Number of comparisons of the question."""

    @property
    def verdict(self) -> Verdict:
        if self.top1 is None or self.p is None:
            return "not comparable"
        if self.top1.is_real(self.p):
            return "real"
        return "tie" if self.top1.holds_neutral else "tie after correction"

    def over(self, group: SeedGroup) -> Estimate | None:
        """Return the accuracy of the other group − that of ``group``."""
        e = self.top1
        if e is None or self.a is group:
            return e
        low, high = (end if end is None else -end for end in (e.high, e.low))
        return replace(e, value=-e.value, low=low, high=high)

    @property
    def detectable(self) -> float | None:
        """Smallest difference in accuracy that would be significant, given this one's spread."""
        return None if self.top1 is None else intervals.detectable(self.top1, self.of)

    @property
    def why_not(self) -> NotPaired | None:
        """Reason that they cannot be compared; None if they can."""
        return unpaired(self.a, self.b)


def unpaired(a: SeedGroup, b: SeedGroup) -> NotPaired | None:
    """Return why two seed groups cannot be paired image by image; None if they can.

    Lost seeds count as a reason: the remaining ones may be the lucky ones.
    """
    across = a.row.spec.backend != b.row.spec.backend
    differs = {name for group in (a, b) for row in group.rows for name in row.differs}
    if differs & CONTRADICTIONS or (across and differs - {THREADS}):
        return "not the same experiment"
    if a.lost or b.lost:
        return "seeds failed"
    if a.seeds != b.seeds:
        return "other seeds"
    other_data = a.row.dataset.content_hash != b.row.dataset.content_hash
    return _unlike_answers(a, b) or ("other test images" if other_data else None)


def _unlike_answers(*groups: SeedGroup) -> NotPaired | None:
    """Return why the answers of all seeds are not to the same images; None if they are."""
    if not all(seed in group.answers for group in groups for seed in group.seeds):
        return "answers missing"
    found = [group.answers[seed] for group in groups for seed in group.seeds]
    labels = {(answers.labels_sha256, answers.right.size) for answers in found}
    return "other test images" if len(labels) > 1 else None


def difference(a: SeedGroup, b: SeedGroup) -> Estimate | None:
    """Return the accuracy of ``b`` − that of ``a``, paired by image; None if that cannot be."""
    return intervals.difference(a.right, b.right) if unpaired(a, b) is None else None


def compare(pairs: Sequence[tuple[SeedGroup, SeedGroup]]) -> list[Comparison]:
    """Compare pairs of one question, corrected for their number."""
    found = [difference(a, b) for a, b in pairs]
    ps = corrected(found)
    known = sum(p is not None for p in ps)
    return [Comparison(*pair, e, p, known) for pair, e, p in zip(pairs, found, ps, strict=True)]


@dataclass(frozen=True, eq=False)
class Contest:
    """Policies on the same data, with the same network, in the same environment."""

    groups: tuple[SeedGroup, ...]
    """Best first, by mean accuracy."""
    comparisons: tuple[Comparison, ...]
    """Every pair of them."""
    passed_over: int
    """Variants of a policy left out because another had better validation accuracy."""
    unpretrained: tuple[SeedGroup, ...] = ()
    """Seed groups left out because random weights stand in for pretrained ones."""

    @property
    def row(self) -> Row:
        """A row, for what they have in common."""
        return self.groups[0].row

    @property
    def why_not(self) -> list[NotPaired]:
        """Reasons that the best could not be compared with every other."""
        best, *others = self.groups
        return list(dict.fromkeys(why for c in others if (why := self.between(best, c).why_not)))

    @property
    def is_decided(self) -> bool:
        """True if the best could be compared with every other."""
        return not self.why_not

    @property
    def is_telling(self) -> bool:
        """True if policies compete, were compared, and their accuracies mean something."""
        return bool(self.comparisons) and self.is_decided and self.shows_nothing is None

    @property
    def shows_nothing(self) -> Meaningless | None:
        """Reason that these accuracies mean nothing for policies; None if they do."""
        if qualifier_of(self.row.dataset.name) == GENERATED:
            return "generated images"
        random = any(map(is_unpretrained, self.groups))
        return "random weights where pretrained ones belong" if random else None

    def between(self, a: SeedGroup, b: SeedGroup) -> Comparison:
        """Return the comparison of two of them, in either order."""
        return self._between[frozenset((a, b))]

    @cached_property
    def _between(self) -> dict[frozenset[SeedGroup], Comparison]:
        return {frozenset((c.a, c.b)): c for c in self.comparisons}

    @cached_property
    def leaders(self) -> tuple[SeedGroup, ...]:
        """Seed groups that none is significantly better than, after correction."""
        return tuple(c for c in self.groups if not self.better_than(c))

    @property
    def is_won(self) -> bool:
        """True if the best is significantly better than every other, after correction."""
        return len(self.leaders) == 1

    def better_than(self, group: SeedGroup) -> tuple[SeedGroup, ...]:
        """Return the groups that are significantly better than one of them, best first."""
        above = self.groups[: self.groups.index(group)]
        return tuple(c for c in above if self.between(c, group).verdict == "real")

    @property
    def prescribed(self) -> SeedGroup | None:
        """The group of the article's policy, with weights from a file or a user's boundary too;
        None if the data are of no case, or that policy did not take part."""
        return self.named(PRESCRIBED.get(self.row.spec.case.number or 0))

    def named(self, policy: str | None) -> SeedGroup | None:
        """Return a policy's group: as in the catalogue, else the variant that validation prefers;
        None if it did not take part."""
        known = (c for c in self.groups if c.row.weights != "random")
        ours = [c for c in known if c.row.spec.policy.name == policy]
        usual = (c for c in ours if policy_variant(c) == policy)
        return next(usual, max(ours, key=lambda c: c.val_top1, default=None))


def is_unpretrained(group: SeedGroup) -> bool:
    """Return True if random weights stand in for the pretrained ones of its policy."""
    return group.row.weights == "random" and group.row.spec.policy.name != "from_scratch"


def contests_of(groups: Sequence[SeedGroup]) -> list[Contest]:
    """Return a contest for each question, in the order of the groups, also for a single policy."""
    found = []
    for question in grouped(groups, lambda group: question_of(group.row)).values():
        # Accuracies with random weights for pretrained ones compete among themselves at most.
        unpretrained = tuple(filter(is_unpretrained, question))
        real = [group for group in question if group not in unpretrained]
        if all(group.row.spec.policy.name == "from_scratch" for group in real):
            real, unpretrained = question, ()
        variants = grouped(real, policy_variant).values()
        kept = [max(same, key=lambda group: group.val_top1) for same in variants]
        ranked = sorted(kept, key=lambda group: -group.top1.value)
        pairs = compare(list(combinations(ranked, 2)))
        found.append(Contest(tuple(ranked), tuple(pairs), len(real) - len(kept), unpretrained))
    return found


def policy_variant(group: SeedGroup) -> str:
    """Return a policy's name, with weights, boundary and definition where they are not the
    catalogue's."""
    used, weights = group.row.spec.policy, group.row.weights
    name, policy = used.name, POLICIES.get(used.name)
    if policy is None or weights != policy.initialisation:
        name += f", {weights} weights"
    if policy and used.boundary != policy.boundary:
        name += f" from {used.boundary}"
    if policy and used != policy.model_copy(update={"boundary": used.boundary}):
        name += f", definition {used.digest[:8]}"
    return name


def backend_pairs(groups: Sequence[SeedGroup]) -> list[tuple[SeedGroup, SeedGroup]]:
    """Pair the seed groups in matched mode that differ in the backend alone, on one machine; the
    first of a pair is the backend that the catalogue lists first."""
    ignored = {"backend", "environment_id", "seed"}
    experiments = grouped(
        (group for group in groups if group.row.spec.mode == "matched"),
        lambda group: (group.machine, group.circumstances, settings_of(group.row, ignored)),
    )
    return [
        (a, b)
        for same in experiments.values()
        for a, b in combinations(sorted(same, key=lambda g: backend_place(g.row.spec.backend)), 2)
        if a.row.spec.backend != b.row.spec.backend
    ]
