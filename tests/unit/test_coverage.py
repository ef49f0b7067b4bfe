"""Coverage of the 95 % intervals and their rate of false positives, by simulated experiments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit

from bench.analysis.intervals import difference, holm

EXPERIMENTS = 1000


@dataclass(frozen=True)
class World:
    """A model of right answers, in log odds: the recipe's strength, the image's difficulty in
    general and for this recipe, and the seed's luck."""

    gap: float
    """Difference between the strengths of the two recipes."""
    own: float
    """Standard deviation of an image's difficulty for one recipe; seeds do not average it out."""
    luck: float
    """Standard deviation between seeds."""
    hard: float = 1.5
    """Standard deviation of an image's difficulty for both recipes."""
    base: float = 1.5
    """Mean log odds of a right answer."""
    images: int = 400

    def shares(
        self, random: np.random.Generator, seeds: int, images: int, recipes: int = 2
    ) -> np.ndarray:
        """Return (recipes, seeds, images) probabilities of a right answer."""
        hard = random.normal(0, self.hard, images)
        own = random.normal(0, self.own, (recipes, 1, images))
        luck = random.normal(0, self.luck, (recipes, seeds, 1))
        gap = self.gap * (np.arange(recipes) > 0).reshape(recipes, 1, 1)
        return expit(self.base + gap + hard + own + luck)

    def truth(self) -> float:
        """Return the difference between the recipes over many images and seeds."""
        shares = self.shares(np.random.default_rng(0), 2000, 2000)
        a, b = shares.mean(axis=(1, 2))
        return float(b - a)


WORLDS = {
    "seeds": World(gap=0.3, own=0.0, luck=0.3),
    "images": World(gap=0.3, own=1.0, luck=0.05),
    "both": World(gap=0.3, own=0.7, luck=0.2),
    "little of both": World(gap=0.3, own=0.3, luck=0.1),
    "next to none": World(gap=0.3, own=0.0, luck=0.05),
    "few images": World(gap=0.3, own=0.7, luck=0.2, images=100),
    "many images": World(gap=0.3, own=0.7, luck=0.2, images=1500),
    "easy images": World(gap=0.3, own=0.5, luck=0.2, base=4.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_seeds_hold_the_difference_of_the_recipes(world: str, seeds: int) -> None:
    random, truth = np.random.default_rng(seeds), WORLDS[world].truth()
    held = 0
    for _ in range(EXPERIMENTS):
        shares = WORLDS[world].shares(random, seeds, WORLDS[world].images)
        a, b = random.random(shares.shape) < shares
        found = difference(a, b)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / EXPERIMENTS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_one_seed_holds_the_difference_of_the_models(world: str) -> None:
    """The two models are fixed, seeds included; only the images are drawn anew."""
    random, held = np.random.default_rng(7), 0
    for _ in range(EXPERIMENTS):
        luck = random.normal(0, WORLDS[world].luck, (2, 1, 1))
        models = World(WORLDS[world].gap, WORLDS[world].own, 0.0)
        many = expit(np.log(1 / (1 / models.shares(random, 1, 20_000) - 1)) + luck)
        truth = float(many[1].mean() - many[0].mean())
        shares = many[:, :, :400]
        a, b = random.random(shares.shape) < shares
        found = difference(a, b)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / EXPERIMENTS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_ties_are_declared_different_in_at_most_one_of_twenty(seeds: int) -> None:
    """Over all worlds (4,000 experiments) the share is near 4 %; in a single world of a thousand it
    exceeds 5 % by chance now and then. With one seed the trained models are equal: no luck."""
    wrong = 0
    for world in WORLDS.values():
        alike = replace(world, gap=0.0, luck=world.luck if seeds > 1 else 0.0)
        wrong += _count_false_positives(alike, seeds, EXPERIMENTS // 2)
    assert wrong / (EXPERIMENTS // 2 * len(WORLDS)) <= 0.05


def _count_false_positives(alike: World, seeds: int, experiments: int) -> int:
    """Count the experiments in which any two of three equal recipes differ significantly, compared
    in pairs and corrected as in ``Comparison.verdict``."""
    random, wrong = np.random.default_rng(11 + seeds), 0
    for _ in range(experiments):
        shares = alike.shares(random, seeds, alike.images, recipes=3)
        found = [difference(a, b) for a, b in combinations(random.random(shares.shape) < shares, 2)]
        corrected = holm([e.p for e in found])
        wrong += any(
            p < 0.05 and not e.low <= 0.0 <= e.high for e, p in zip(found, corrected, strict=True)
        )
    return wrong
