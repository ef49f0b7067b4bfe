"""Simulated experiments with a known truth, and the tables of docs/statistics.md that they give.

``python -m tools.simulated_worlds [EXPERIMENTS]`` prints the tables: how often intervals hold the
truth, how often alike policies are called different, and how often a real difference is found.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import expit
from tabulate import tabulate

from bench.analysis.ranking import rank
from bench.analysis.scores import Floats, Kind, Scores
from bench.analysis.seed_spread import spread_of

GRID = np.linspace(-25.0, 25.0, 501)


@dataclass(frozen=True)
class World:
    """A model of right answers, in log odds: each policy's strength, each image's difficulty in
    general and for one policy, and the luck of each seed."""

    means: Sequence[float]
    """Accuracy of each policy over many images and seeds."""
    luck: Sequence[float]
    """Standard deviation over seeds of each policy's log odds."""
    kinds: Sequence[Kind]
    hard: float = 1.5
    """Standard deviation of an image's difficulty for all policies."""
    own: float = 0.5
    """Standard deviation of an image's difficulty for one policy; seeds do not average it out."""
    images: int = 1080
    blocks: float = 0.0
    """Correlation between policies of what a seed does to them."""
    tails: float = np.inf
    """Degrees of freedom of the seeds' luck, which is t distributed; infinite: normal."""
    collapse: tuple[int, float, float] | None = None
    """Policy, share of its runs that collapse, and their accuracy."""
    groups: int = 0
    """Number of groups of images with a difficulty of their own; 0: images are independent."""
    group_share: float = 0.5
    """Share of the variances of difficulty that is the groups'."""

    def truth(self, policy: int) -> float:
        """Return a policy's accuracy over many images and seeds, with its collapses."""
        mean = self.means[policy]
        if self.collapse is not None and self.collapse[0] == policy:
            _, share, low = self.collapse
            return (1 - share) * mean + share * low
        return mean

    def draw(self, random: np.random.Generator, seeds: int) -> tuple[Floats, Floats | None]:
        """Return answers (policies, seeds, images), bool, and the images' groups."""
        count, images = len(self.means), self.images
        groups = np.arange(images) * self.groups // images if self.groups else None
        hard = self._difficulty(random, self.hard, 1, groups)
        own = self._difficulty(random, self.own, count, groups)
        luck = self._luck(random, seeds)
        strength = np.array([self._strength(k) for k in range(count)])
        shares = expit(strength[:, None, None] + hard + own + luck)
        if self.collapse is not None:
            policy, share, low = self.collapse
            shares[policy, random.random(seeds) < share] = low
        return random.random(shares.shape) < shares, groups

    def _difficulty(
        self, random: np.random.Generator, sd: float, count: int, groups: Floats | None
    ) -> Floats:
        """Return (count, 1, images) difficulties."""
        alone = np.asarray(random.normal(0, sd, (count, 1, self.images)))
        if groups is None:
            return alone
        shared = random.normal(0, sd, (count, 1, self.groups))[:, :, groups]
        part = np.sqrt(self.group_share)
        return np.asarray(shared * part + alone * np.sqrt(1 - self.group_share))

    def _luck(self, random: np.random.Generator, seeds: int) -> Floats:
        """Return (policies, seeds, 1) what the seeds do."""
        count = len(self.means)

        def drawn(size: tuple[int, ...]) -> Floats:
            if np.isinf(self.tails):
                return np.asarray(random.normal(0, 1, size))
            scale = np.sqrt(self.tails / (self.tails - 2))
            return np.asarray(random.standard_t(self.tails, size) / scale)

        common, alone = drawn((1, seeds)), drawn((count, seeds))
        mixed = np.sqrt(self.blocks) * common + np.sqrt(1 - self.blocks) * alone
        return np.asarray((mixed * np.asarray(self.luck)[:, None])[:, :, None])

    def _strength(self, policy: int) -> float:
        """Return the mean log odds that give a policy's accuracy."""
        spread = float(np.sqrt(self.hard**2 + self.own**2 + self.luck[policy] ** 2))
        return float(np.interp(self.means[policy], _mean_shares(spread), GRID))


@lru_cache
def _mean_shares(spread: float) -> Floats:
    """Return the mean accuracy at each log odds of ``GRID``, over a normal spread."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return np.asarray(expit(GRID[:, None] + spread * nodes) @ weights / weights.sum())


def _pair_world(luck: float, own: float, images: int = 400, mean: float = 0.78) -> World:
    return World((mean, mean + 0.04), (luck, luck), ("all", "all"), own=own, images=images)


TWO_POLICIES = {
    "seeds differ, images do not": _pair_world(0.3, 0.0),
    "images differ, seeds do not": _pair_world(0.05, 1.0),
    "both differ": _pair_world(0.2, 0.7),
    "little of both": _pair_world(0.1, 0.3),
    "next to none": _pair_world(0.05, 0.0),
    "100 images": _pair_world(0.2, 0.7, 100),
    "1,500 images": _pair_world(0.2, 0.7, 1500),
    "easy images": _pair_world(0.2, 0.5, mean=0.95),
}
"""Worlds of two policies that train the whole network, as in earlier versions of the tests."""
KINDS: tuple[Kind, ...] = ("all", "all", "all", "part", "head", "scratch")
CALM = World(
    (0.9, 0.9, 0.875, 0.875, 0.86, 0.5), (0.2, 0.2, 0.2, 0.1, 0.05, 0.5), KINDS,
    hard=4.5, own=2.0,
)  # fmt: skip
"""Six policies whose seeds spread as those of EfficientNet-Lite0 in the suite standard."""
RESTLESS = replace(CALM, luck=(0.52, 0.42, 0.6, 0.4, 0.05, 0.75), blocks=0.6)
"""The same with the spread of SqueezeNet, where one seed is lucky for all policies."""
ALIKE = replace(CALM, means=(0.9, 0.9, 0.9, 0.9, 0.9, 0.5))


def _noisy(factor: float, policies: Sequence[int] = range(6)) -> tuple[float, ...]:
    return tuple(x * (factor if k in policies else 1.0) for k, x in enumerate(ALIKE.luck))


SIX_POLICIES = {
    "calm": ALIKE,
    "restless, with blocks": replace(RESTLESS, means=ALIKE.means),
    "heavy tails (t of 3)": replace(ALIKE, tails=3.0),
    "strong seed blocks": replace(ALIKE, blocks=0.8, luck=_noisy(1.5)),
    "calmer than usual (÷ 3)": replace(ALIKE, luck=_noisy(1 / 3)),
    "18 groups of images": replace(ALIKE, groups=18),
    "8 groups of images": replace(ALIKE, groups=8),
    "38 images": replace(ALIKE, images=38),
}
"""Worlds in which five policies are alike; the promises of docs/statistics.md hold in them."""
BEYOND = {
    "control collapses in one run of five": replace(ALIKE, collapse=(5, 0.2, 0.05)),
    "one policy 1.7 × the experience": replace(ALIKE, luck=_noisy(4.0, [1])),
    "one policy 2 × the experience": replace(ALIKE, luck=_noisy(4.8, [1])),
    "all 1.3 × the experience": replace(ALIKE, luck=_noisy(3.0)),
    "all 1.9 × the experience": replace(ALIKE, luck=_noisy(4.5)),
    "all 3 × the experience": replace(ALIKE, luck=_noisy(7.2)),
    "a policy collapses in one run of ten": replace(ALIKE, collapse=(1, 0.1, 0.05)),
}
"""Worlds more restless than any run so far, in which some promises are broken. The names say how
far the accuracies of the seeds spread, relative to ``experience.json``; the calm world has 0.55."""


def scores_of(world: World, answers: Floats, groups: Floats | None) -> list[Scores]:
    """Return the scores of drawn answers."""
    return [
        Scores.of_answers(f"policy {k}", world.kinds[k], right, None, groups)
        for k, right in enumerate(answers)
    ]


@dataclass(frozen=True)
class Outcome:
    """Shares of the experiments in one world."""

    held: float
    """Intervals of differences that hold the truth, mean over the pairs."""
    worst: float
    """The same for the worst pair."""
    false: float
    """Experiments in which one of the alike policies is ruled out."""
    half_width: float
    """Mean half-width of an interval between the first two policies."""


def simulate(world: World, seeds: int, experiments: int, random_seed: int = 0) -> Outcome:
    """Return what the statistics do in so many experiments of a world."""
    random = np.random.default_rng([random_seed, seeds])
    truths = np.array([world.truth(k) for k in range(len(world.means))])
    alike = np.flatnonzero(truths == truths.max())
    pairs = list(combinations(range(len(truths)), 2))
    held, false, width = np.zeros(len(pairs)), 0, 0.0
    for _ in range(experiments):
        policies = scores_of(world, *world.draw(random, seeds))
        ranking = rank(policies, spread_of([policies]))
        for n, (a, b) in enumerate(pairs):
            e = ranking.difference(a, b)
            assert e.low is not None
            assert e.high is not None
            held[n] += e.low <= truths[b] - truths[a] <= e.high
        false += any(ranking.ruled_out[k] for k in alike) if len(alike) > 1 else 0
        width += ranking.difference(0, 1).half_width or 0.0
    return Outcome(
        float(held.mean()) / experiments, float(held.min()) / experiments,
        false / experiments, width / experiments,
    )  # fmt: skip


def power(world: World, deficit: float, seeds: int, experiments: int) -> float:
    """Return how often the second policy is ruled out if it is so far behind the first."""
    world = replace(world, means=(world.means[0], world.means[0] - deficit, *world.means[2:]))
    random = np.random.default_rng([1, seeds])
    found = 0
    for _ in range(experiments):
        policies = scores_of(world, *world.draw(random, seeds))
        found += rank(policies, spread_of([policies])).ruled_out[1]
    return found / experiments


def alike(world: World) -> World:
    """Return a world of three policies that are all as the first one."""
    return replace(world, means=(world.means[0],) * 3, kinds=(world.kinds[0],) * 3,
                   luck=(world.luck[0],) * 3)  # fmt: skip


def main(experiments: int) -> None:
    """Print the tables of docs/statistics.md."""
    seeds = (1, 2, 3, 5)
    tables = (("Two policies", TWO_POLICIES), ("Six policies", SIX_POLICIES),
              ("More restless than ever seen", BEYOND))  # fmt: skip
    for title, worlds in tables:
        lines = [_line(name, world, seeds, experiments) for name, world in worlds.items()]
        heads = ("world", "holds the truth, %", "worst pair, %", "alike called different, %",
                 "± points")  # fmt: skip
        print(f"\n### {title}: 1 / 2 / 3 / 5 seeds\n")
        print(tabulate(lines, heads, "pipe", disable_numparse=True))
    gaps = (1, 2, 3, 5, 10, 40)
    found = [
        (name, images, count,
         *(f"{100 * power(replace(world, images=images), gap / 100, count, experiments):.0f}"
           for gap in gaps))
        for name, world in (("calm", CALM), ("restless", RESTLESS))
        for images in (1080, 1500)
        for count in (1, 3, 5)
    ]  # fmt: skip
    print("\n### Power: how often a deficit of so many points is found, %\n")
    print(tabulate(found, ("world", "images", "seeds", *map(str, gaps)), "pipe"))


def _line(name: str, world: World, seeds: Sequence[int], experiments: int) -> tuple[str, ...]:
    """Return a row of a table, and show it on stderr meanwhile."""
    found = [simulate(world, count, experiments) for count in seeds]
    null = found
    if len(world.means) == 2:
        null = [simulate(alike(world), count, experiments, 3) for count in seeds]
    line = (
        name,
        _joined([o.held for o in found]),
        _joined([o.worst for o in found]),
        _joined([o.false for o in null]),
        _joined([o.half_width for o in found]),
    )
    print(*line, sep=" | ", file=sys.stderr)
    return line


def _joined(shares: Sequence[float]) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in shares)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
