"""Seed groups: runs that differ in the seed alone, or in the fold of a cross-validation.

Runs of different machines, devices, versions or specs are never grouped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

import numpy as np

from bench.analysis.predictions import Answers, answers_of
from bench.analysis.rows import DIFFERING, UNSTEADY, Row, backend_place, grouped, identity
from bench.analysis.same_experiment import CONTRADICTIONS, HARMLESS, THREADS
from bench.analysis.scores import Floats, Kind, Scores
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.spec.run import RECIPE_OPTIONS, Policy

NotPaired = Literal[
    "seeds failed",
    "answers missing",
    "other test images",
    "other learning rates",
    "not the same experiment",
]
SEED = frozenset({"seed"})
COMPETING_FIELDS = frozenset(
    {"policy", "boundary", "policy_digest", "tune", "sweep"}
    | {"weights", "weights_sha256", "reading_digest"}
    | {name for name, declared in RECIPE_OPTIONS.items() if declared.option.competes}
)
"""Fields that go with a policy: seed groups that differ in these alone compete."""
QUESTION_FIELDS = COMPETING_FIELDS | SEED
"""Fields in which runs of one question may differ."""
OUTCOME_FIELDS = DIFFERING - {"backend", "environment_id"}
"""Fields of a row that are outcomes, not settings."""
WHOLE_FIELDS = frozenset({"train_images", "val_images", "test_images", "dataset_hash", "fold"})
"""Fields that differ between the folds of one cross-validation."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs of one experiment in one environment that are ok: one for each seed, or one for each
    seed and fold."""

    rows: tuple[Row, ...]
    """By ascending seed, then by fold."""
    lost: int = 0
    """Seeds of the same experiment that are not ok, without which the others may be biased."""

    @property
    def row(self) -> Row:
        """The first row, for what they have in common."""
        return self.rows[0]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(row.spec.seed for row in self.rows))

    @cached_property
    def answers(self) -> list[list[Answers]] | None:
        """Right and wrong answers to the test images of each seed and fold; None if they cannot be
        read for every run, or are not to the same images."""
        by_seed: list[list[Answers]] = []
        for same in grouped(self.rows, lambda row: row.spec.seed).values():
            found = [_own_answers(row) for row in same]
            known = [answers for answers in found if answers is not None]
            if len(known) < len(found):
                return None
            by_seed.append(known)
        looks = [[(a.labels_sha256, a.right.size) for a in each] for each in by_seed]
        return by_seed if all(look == looks[0] for look in looks) else None

    @cached_property
    def test_set(self) -> Hashable:
        """Identity of the test images: the name of the data set and the hashes of the true classes.
        The content hash of the data set would differ with the number of training images."""
        if self.answers is None:
            return self.row.dataset.content_hash
        return (self.row.dataset.name, *(answers.labels_sha256 for answers in self.answers[0]))

    @cached_property
    def scores(self) -> Scores:
        """Test accuracies of these runs, as the statistics take them."""
        name, kind = policy_variant(self), kind_of(self.row)
        if self.answers is not None:
            right = np.stack([np.concatenate([a.right for a in each]) for each in self.answers])
            return Scores.of_answers(name, kind, right, self.seeds, _image_groups(self.answers[0]))
        by_seed = grouped(self.rows, lambda row: row.spec.seed).values()
        images = max(sum(row.dataset.test_images for row in next(iter(by_seed))), 1)
        shares = [
            np.average([row.result.test_top1 or 0.0 for row in same],
                       weights=[max(row.dataset.test_images, 1) for row in same])
            for same in by_seed
        ]  # fmt: skip
        return Scores(name, kind, self.seeds, np.array(shares), images)

    def mean(self, field: str) -> float | None:
        """Return the mean of a measured field; None if a run lacks it."""
        values = [row[field] for row in self.rows]
        return None if any(v is None for v in values) else float(np.mean(values))

    @cached_property
    def machine(self) -> tuple[Any, ...]:
        """Machine and device, without versions."""
        e = self.row.environment
        settings = tuple(sorted(e.device_settings.items()))
        return e.system, e.processor, e.cores, e.device, e.device_model, settings

    @cached_property
    def circumstances(self) -> tuple[Any, ...]:
        """Parts of the environment that concern every backend: Thawbench's shared code, and the
        variables that no backend sets for itself."""
        e = self.row.environment
        entry = BACKENDS.get(e.backend)
        own = () if entry is None else (*entry.own_variables(), *entry.replaced)
        variables = ((name, v) for name, v in e.variables.items() if name not in own)
        return e.shared_code, tuple(sorted(variables))

    @cached_property
    def is_unsteady(self) -> bool:
        """True if a run is marked unsteady, or the fit of one, compilation left out, took
        ``UNSTEADY`` times that of another seed."""
        if any(row.unsteady for row in self.rows):
            return True
        fits = [row.result.fit_s for row in self.rows if row.result.fit_s]
        rests = [rest for row in self.rows if (rest := row.steady_fit_s) is not None]
        # A small difference beside whole fits that are mostly compilation does not count.
        gap = max(rests, default=0.0) - min(rests, default=0.0)
        return bool(fits) and max(rests) > UNSTEADY * min(rests) and gap > min(fits)

    @property
    def val_top1(self) -> float:
        """Mean validation accuracy after the last epoch; -1 counts for an unknown one."""
        last = [(row.result.val_top1_by_epoch or (None,))[-1] for row in self.rows]
        return fmean(-1.0 if v is None else v for v in last)


LostSeeds = Mapping[tuple[Hashable, ...], int]
"""Experiment → number of its seeds that are not ok."""


def lost_seeds(rows: Iterable[Row]) -> LostSeeds:
    """Count the seeds that are not ok, of rows before a filter left any out."""
    failed = {(experiment_of(row), row.spec.seed) for row in rows if not row.is_ok}
    return Counter(experiment for experiment, _ in failed)


def seed_groups_of(rows: Sequence[Row], lost: LostSeeds | None = None) -> list[SeedGroup]:
    """Group the rows that are ok by experiment, in the order of the rows; ``lost`` is by default
    that of these rows. Of two runs of one seed and fold, such as those with one file of weights
    from two places, the last counts. A seed that lacks a fold is left out and counts as lost."""
    lost = lost_seeds(rows) if lost is None else lost
    ok = (row for row in rows if row.is_ok and row.result.test_top1 is not None)
    found = []
    for key, members in grouped(ok, experiment_of).items():
        whole, partial = whole_seeds(members)
        if whole:
            found.append(SeedGroup(whole, max(lost.get(key, 0), partial)))
    return found


def whole_seeds(rows: Iterable[Row]) -> tuple[tuple[Row, ...], int]:
    """Return one run for each seed and fold, and the number of seeds that lack a fold."""
    by_place = {(row.spec.seed, row.fold or 0): row for row in rows}
    by_seed = grouped(sorted(by_place), lambda place: place[0])
    folds = max((fold.of for row in by_place.values() if (fold := row.dataset.fold)), default=1)
    whole = [place for places in by_seed.values() if len(places) == folds for place in places]
    return tuple(by_place[place] for place in whole), len(by_seed) - len({s for s, _ in whole})


def _own_answers(row: Row) -> Answers | None:
    """Return a run's answers; None if they cannot be read, or do not add up to the run's own
    accuracy and so belong to another run."""
    top1 = row.result.test_top1
    if top1 is None or (answers := answers_of(row)) is None:
        return None
    gap = np.count_nonzero(answers.right) - top1 * answers.right.size
    return answers if abs(gap) < 1.5 else None


def _image_groups(folds: Sequence[Answers]) -> Floats | None:
    """Return the number of the group of each test image, over all folds; None without groups."""
    found, first = [], 0
    for answers in folds:  # a group never lies in two folds
        if answers.groups is None:
            return None
        numbers = np.unique(answers.groups, return_inverse=True)[1]
        found.append(numbers + first)
        first += int(numbers.max()) + 1
    return np.concatenate(found)


def kind_of(row: Row) -> Kind:
    """Return how much of the network a run's policy trains."""
    if row.weights == "random":
        return "scratch"
    boundary = row.spec.policy.boundary
    return "head" if boundary == "head" else "all" if boundary == "all" else "part"


def settings_of(row: Row, without: Iterable[str]) -> tuple[Hashable, ...]:
    """Return a row's settings, apart from some fields; without the seed, the folds of one
    cross-validation have the same settings."""
    fold, left_out = row.dataset.fold, _with_outcomes(frozenset(without))
    if fold is None or "seed" not in left_out:
        return identity(row, left_out)
    return (*identity(row, left_out | WHOLE_FIELDS), fold.images_sha256, fold.of)


@lru_cache
def _with_outcomes(fields: frozenset[str]) -> frozenset[str]:
    return OUTCOME_FIELDS | fields


def experiment_of(row: Row) -> tuple[Hashable, ...]:
    """Return what the seeds of an experiment have in common."""
    return settings_of(row, SEED)


def question_of(row: Row) -> tuple[Hashable, ...]:
    """Return what competing policies have in common."""
    return settings_of(row, QUESTION_FIELDS)


def question_of_any_backend(row: Row) -> tuple[Hashable, ...]:
    """Return what a question has in common with the same one for another backend."""
    return settings_of(row, QUESTION_FIELDS | {"backend", "environment_id", "device_model"})


def unpaired(
    a: SeedGroup, b: SeedGroup, harmless: Collection[str] = (THREADS,)
) -> NotPaired | None:
    """Return why the accuracies of two seed groups cannot be compared; None if they can.

    Lost seeds count as a reason: the remaining ones may be the lucky ones. ``harmless`` are the
    differences between backends that do not count.
    """
    across = a.row.spec.backend != b.row.spec.backend
    differs = {name for group in (a, b) for row in group.rows for name in row.differs}
    if differs & CONTRADICTIONS or (across and differs - HARMLESS):
        return "not the same experiment"
    if across and differs.difference(harmless):
        return "other learning rates"
    if a.lost or b.lost:
        return "seeds failed"
    if a.test_set != b.test_set or a.scores.images != b.scores.images:
        return "other test images" if a.answers and b.answers else "answers missing"
    return None


def is_unpretrained(group: SeedGroup) -> bool:
    """Return True if random weights stand in for the pretrained ones of its policy."""
    return group.row.weights == "random" and group.row.spec.policy.name != "from_scratch"


def policy_variant(group: SeedGroup) -> str:
    """Return a policy's name, with weights, boundary and definition where they are not the
    catalogue's."""
    return _variant(group.row.spec.policy, group.row.weights)


@lru_cache
def _variant(used: Policy, weights: str) -> str:
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
