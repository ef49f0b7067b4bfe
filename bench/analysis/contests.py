"""Contests: policies on the same data with the same network, and which of them may be the best."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from bench.analysis.groups import (
    NotPaired,
    SeedGroup,
    is_unpretrained,
    policy_variant,
    question_of,
    question_of_any_backend,
    unpaired,
)
from bench.analysis.intervals import Estimate, accuracy
from bench.analysis.ranking import MARGIN, Ranking, average, own_variances, rank
from bench.analysis.rows import Row, grouped
from bench.analysis.same_experiment import HARMLESS
from bench.analysis.scores import Scores
from bench.analysis.seed_spread import USUAL, SeedSpread, spread_of
from bench.catalog.policies import PRESCRIBED
from bench.data.registry import GENERATED, qualifier_of

Word = Literal["best", "as good as the best", "open", "ruled out"]
"""best: the only one that may be; as good as the best: within the margin with 95 % chance; open:
may be the best; ruled out: shown not to be the best."""
Meaningless = Literal["generated images", "random weights where pretrained ones belong"]
SURE = 0.95
"""Least chance of a policy that is called as good as the best."""
SURE_WIDTH = 0.05
"""Half-width of an interval above which a chance is not printed."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A policy in a contest."""

    name: str
    groups: tuple[SeedGroup, ...]
    """Its runs, one group for each backend that is averaged."""
    scores: Scores

    @property
    def row(self) -> Row:
        return self.groups[0].row

    @property
    def policy(self) -> str:
        """Name of the policy in the catalogue."""
        return self.row.spec.policy.name


@dataclass(frozen=True, eq=False)
class Standing:
    """Verdict on one policy in a contest."""

    name: str
    top1: float
    """Accuracy, as a fraction of 1."""
    behind: Estimate | None
    """Accuracy of the leader − its own; None for the leader."""
    chance: float
    """Chance to be within the margin of the best."""
    is_sure: bool
    """False if intervals are so wide that the chance says more of the prior than of the runs."""
    word: Word
    entry: Entry | None = None
    """Its runs; None for an average over several contests."""


def standings_of(
    names: Sequence[str], ranking: Ranking, margin: float, entries: Sequence[Entry] = ()
) -> list[Standing]:
    """Return the verdict on each policy, the most accurate one first."""
    leader = int(np.argmax(ranking.means))
    chances, out = ranking.chances(margin), ranking.ruled_out
    found = []
    for place in np.argsort(-ranking.means, kind="stable"):
        behind = None if place == leader else ranking.difference(int(place), leader)
        word: Word = "open"
        if out[place]:
            word = "ruled out"
        elif sum(out) == len(names) - 1:
            word = "best"
        elif chances[place] >= SURE:
            word = "as good as the best"
        entry = entries[place] if entries else None
        top1, chance = float(ranking.means[place]), float(chances[place])
        is_narrow = behind is None or (behind.half_width or 0.0) <= SURE_WIDTH
        is_sure = is_narrow or (word == "ruled out" and chance < 0.01)
        found.append(Standing(names[place], top1, behind, chance, is_sure, word, entry))
    rivals = [s for s in found[1:] if s.word != "ruled out"]
    leads = replace(found[0], is_sure=not rivals or any(s.is_sure for s in rivals))
    return [leads, *found[1:]]


@dataclass(frozen=True, eq=False)
class Contest:
    """Policies on the same data, with the same network, in one backend or averaged over several."""

    entries: tuple[Entry, ...]
    """Policies that are compared; best first, by mean accuracy."""
    apart: tuple[tuple[Entry, NotPaired], ...] = ()
    """Policies that cannot be compared with the others, and why."""
    passed_over: int = 0
    """Variants of a policy left out because another had better validation accuracy."""
    unpretrained: tuple[SeedGroup, ...] = ()
    """Seed groups left out because random weights stand in for pretrained ones."""
    spread: SeedSpread = USUAL
    margin: float = MARGIN

    @property
    def row(self) -> Row:
        """A row, for what they have in common."""
        return self.all_entries[0].row

    @property
    def all_entries(self) -> tuple[Entry, ...]:
        """All policies that took part, those that are compared first."""
        return (*self.entries, *(entry for entry, _ in self.apart))

    @property
    def backends(self) -> list[str]:
        """Backends that are averaged."""
        groups = self.all_entries[0].groups
        return [group.row.spec.backend for group in groups]

    @property
    def place(self) -> tuple[Hashable, ...]:
        """Machine, versions of the shared code, and mode; tests of two places have the same seeds
        and are never averaged."""
        group = self.all_entries[0].groups[0]
        return group.machine, group.circumstances, self.row.spec.mode

    @property
    def is_compared(self) -> bool:
        """True if several policies are compared, and their accuracies mean something."""
        return len(self.entries) > 1 and self.shows_nothing is None

    @property
    def shows_nothing(self) -> Meaningless | None:
        """Reason that these accuracies mean nothing for policies; None if they do."""
        if qualifier_of(self.row.dataset.name) == GENERATED:
            return "generated images"
        groups = (group for entry in self.all_entries for group in entry.groups)
        random = any(map(is_unpretrained, groups))
        return "random weights where pretrained ones belong" if random else None

    @cached_property
    def ranking(self) -> Ranking:
        return rank([entry.scores for entry in self.entries], self.spread)

    @cached_property
    def standings(self) -> list[Standing]:
        """Verdict on each policy that is compared, the most accurate one first; none if no policy
        can be compared."""
        if not self.entries:
            return []
        names = [entry.name for entry in self.entries]
        return standings_of(names, self.ranking, self.margin, self.entries)

    def standing(self, entry: Entry | None) -> Standing | None:
        """Return the verdict on an entry; None if it is not compared."""
        return next((s for s in self.standings if s.entry is entry), None)

    @property
    def prescribed(self) -> Entry | None:
        """The entry of the article's policy, with weights from a file or a user's boundary too;
        None if the data are of no case, or that policy did not take part."""
        return self.named(PRESCRIBED.get(self.row.spec.case.number or 0))

    def named(self, policy: str | None) -> Entry | None:
        """Return a policy's entry: as in the catalogue, else the variant that validation prefers;
        None if it did not take part."""
        ours = [
            e for e in self.all_entries if e.policy == policy and e.row.weights != "random"
        ]  # fmt: skip
        usual = (e for e in ours if e.name == policy)
        return next(usual, max(ours, key=lambda e: e.groups[0].val_top1, default=None))


def contests_of(groups: Sequence[SeedGroup], margin: float = MARGIN) -> list[Contest]:
    """Return a contest for each question and backend, in the order of the groups, also for a single
    policy."""
    found = []
    for question in grouped(groups, lambda group: question_of(group.row)).values():
        # Accuracies with random weights for pretrained ones compete among themselves at most.
        unpretrained = tuple(filter(is_unpretrained, question))
        real = [group for group in question if group not in unpretrained]
        if all(group.row.spec.policy.name == "from_scratch" for group in real):
            real, unpretrained = question, ()
        variants = grouped(real, policy_variant).values()
        kept = [max(same, key=lambda group: group.val_top1) for same in variants]
        entries, apart = _comparable([Entry(policy_variant(g), (g,), g.scores) for g in kept])
        passed_over = len(real) - len(kept)
        found.append(Contest(entries, apart, passed_over, unpretrained, margin=margin))
    return _with_spread(found)


def _comparable(
    entries: Sequence[Entry],
) -> tuple[tuple[Entry, ...], tuple[tuple[Entry, NotPaired], ...]]:
    """Return the entries that can be compared, best first, and the others with the reasons. Seeds
    may be missing or differ, but none may have failed: the others may be the lucky ones."""
    alone = [(entry, unpaired(entry.groups[0], entry.groups[0])) for entry in entries]
    apart = [(entry, why) for entry, why in alone if why]
    sound = [entry for entry, why in alone if not why]
    by_images = grouped(sound, lambda e: (e.groups[0].test_set, e.scores.images))
    largest = max(by_images.values(), key=len, default=[])
    for entry in sound:
        if entry not in largest:
            why = unpaired(entry.groups[0], largest[0].groups[0]) or "other test images"
            apart.append((entry, why))
    ranked = sorted(largest, key=lambda entry: -entry.scores.mean)
    return tuple(ranked), tuple(apart)


def _with_spread(contests: Sequence[Contest]) -> list[Contest]:
    """Return the contests with the spread over seeds of their network in their backends."""

    def network(contest: Contest) -> Hashable:
        spec = contest.row.spec
        return spec.backbone, spec.network_digest, tuple(contest.backends), contest.place

    spreads = {
        key: spread_of([[entry.scores for entry in contest.entries] for contest in same])
        for key, same in grouped(contests, network).items()
    }
    return [replace(contest, spread=spreads[network(contest)]) for contest in contests]


def joined(contests: Sequence[Contest]) -> list[Contest]:
    """Return the contests with those of several backends on one machine averaged into one: in
    matched mode, which policy is best does not depend on the backend, and backends are not
    independent seeds. Policies that not all backends have in the same seeds stay apart."""

    def question(contest: Contest) -> Hashable:
        own = id(contest) if contest.row.spec.mode != "matched" else 0
        return own, contest.place, question_of_any_backend(contest.row)

    found = []
    for same in grouped(contests, question).values():
        one_each = {tuple(contest.backends): contest for contest in same}
        merged = _merged(list(one_each.values())) if len(one_each) == len(same) > 1 else None
        found += [merged] if merged else same
    return _with_spread(found)


def _merged(contests: Sequence[Contest]) -> Contest | None:
    """Return contests of several backends as one; None if they have no policy in common that can be
    averaged."""
    entries, apart = [], [pair for contest in contests for pair in contest.apart]
    by_name = [{entry.name: entry for entry in contest.entries} for contest in contests]
    for name in dict.fromkeys(name for names in by_name for name in names):
        same = [names[name] for names in by_name if name in names]
        groups = _of_common_seeds([entry.groups[0] for entry in same])
        pairs = [unpaired(groups[0], other, HARMLESS) for other in groups[1:]]
        if len(same) < len(contests) or not groups or any(pairs):
            why = next((why for why in pairs if why), None)
            apart += [(entry, why or "not the same experiment") for entry in same]
        else:
            entries.append(Entry(name, groups, _mean_scores([group.scores for group in groups])))
    if not entries or (len(entries) < 2 and any(len(c.entries) > 1 for c in contests)):
        return None
    entries.sort(key=lambda entry: -entry.scores.mean)
    return Contest(
        tuple(entries), tuple(apart), max(contest.passed_over for contest in contests),
        tuple(group for contest in contests for group in contest.unpretrained),
        margin=contests[0].margin,
    )  # fmt: skip


def _of_common_seeds(groups: Sequence[SeedGroup]) -> tuple[SeedGroup, ...]:
    """Return the seed groups with the seeds that all have; none if they have none in common."""
    common = set.intersection(*(set(group.seeds) for group in groups))
    if not common:
        return ()
    return tuple(
        group if len(group.seeds) == len(common)
        else replace(group, rows=tuple(r for r in group.rows if r.spec.seed in common))
        for group in groups
    )  # fmt: skip


def _mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean over backends of scores with the same seeds and test images."""
    first = scores[0]
    images = [s.by_image for s in scores if s.by_image is not None]
    by_image = np.mean(images, axis=0) if len(images) == len(scores) else None
    # Variances of an image's answer over seeds are those of one backend: the backends' seeds are
    # hardly independent.
    rests = [s.rest for s in scores if s.rest is not None]
    rest = float(np.mean(rests)) if len(rests) == len(scores) else None
    by_seed = np.mean([s.by_seed for s in scores], axis=0)
    return replace(first, by_seed=by_seed, by_image=by_image, rest=rest)


@dataclass(frozen=True, eq=False)
class Overall:
    """Policies on average over several contests."""

    contests: tuple[Contest, ...]
    names: tuple[str, ...]
    """Policies that every contest compares."""
    ranking: Ranking
    margin: float

    @cached_property
    def standings(self) -> list[Standing]:
        return standings_of(self.names, self.ranking, self.margin)

    def ruled_out(self, name: str) -> int:
        """Return the number of contests in which a policy is ruled out."""
        return sum(
            out for contest in self.contests
            for entry, out in zip(contest.entries, contest.ranking.ruled_out, strict=True)
            if entry.name == name
        )  # fmt: skip

    def single(self, name: str) -> list[Standing]:
        """Return the verdict of each contest on a policy."""
        return [s for contest in self.contests for s in contest.standings if s.name == name]


def tests_of(contests: Sequence[Contest]) -> list[Contest]:
    """Return the contests that compare policies, on the machine, version and mode with most of
    them; of backends that cannot be averaged, one counts. The others repeat the same seeds."""
    places = grouped((c for c in contests if c.is_compared), lambda c: c.place)
    same = max(places.values(), key=len, default=[])
    questions = grouped(same, lambda c: question_of_any_backend(c.row)).values()
    return [max(each, key=lambda contest: len(contest.entries)) for each in questions]


def overall(contests: Sequence[Contest]) -> Overall | None:
    """Return the policies that all contests (see ``tests_of``) compare, on average; None if there
    are fewer than two of them."""
    if not contests:
        return None
    sets = [{entry.name for entry in contest.entries} for contest in contests]
    names = [entry.name for entry in contests[0].entries if all(entry.name in s for s in sets)]
    if len(names) < 2:
        return None
    rankings = []
    for contest in contests:
        by_name = {entry.name: entry.scores for entry in contest.entries}
        rankings.append(rank([by_name[name] for name in names], contest.spread))
    test_sets = [contest.entries[0].groups[0].test_set for contest in contests]
    margin = contests[0].margin
    return Overall(tuple(contests), tuple(names), average(rankings, test_sets), margin)


def accuracy_of(group: SeedGroup, spread: SeedSpread = USUAL) -> Estimate:
    """Return the accuracy of a seed group, with its interval over seeds and test images."""
    scores = group.scores
    if scores.images < 1 or group.row.dataset.test_images < 1:
        return Estimate(scores.mean)
    return accuracy(scores, *own_variances(scores, spread))
