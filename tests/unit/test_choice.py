"""The choice among candidates: no winner's curse, ties called ties, differences found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.advise.choice import accuracy_interval, choose_best

IMAGES = 300


def _answers(
    accuracies: list[float], random: np.random.Generator, images: int = IMAGES
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return right and wrong answers, alike for hard and easy images as those of networks are."""
    hard = random.normal(size=images)
    own = random.normal(size=(len(accuracies), images))
    return 0.8 * hard + 0.6 * own < stats.norm.ppf(accuracies)[:, None]


def test_the_expected_accuracy_has_no_winners_curse() -> None:
    random, seen, expected = np.random.default_rng(0), [], []
    for _ in range(150):
        choice = choose_best(_answers([0.8] * 8, random), random)
        seen.append(choice.top1[choice.best] - 0.8)
        expected.append(choice.expected_top1 - 0.8)
    assert np.mean(seen) > 0.012, "the best of eight looks better than it is"
    assert abs(np.mean(expected)) < 0.006


def test_candidates_that_are_equally_good_are_called_so() -> None:
    random, together = np.random.default_rng(1), 0
    for _ in range(150):
        choice = choose_best(_answers([0.8, 0.8, 0.7], random), random)
        together += {0, 1} <= set(choice.as_good)
    assert together >= 0.96 * 150


def test_a_candidate_that_is_far_behind_is_left_out() -> None:
    random, left_out = np.random.default_rng(2), 0
    for _ in range(50):
        choice = choose_best(_answers([0.85, 0.6], random), random)
        left_out += choice.as_good == (0,)
    assert left_out == 50


def test_the_same_answers_are_never_told_apart() -> None:
    right = np.tile(np.arange(100) % 4 != 0, (3, 1))
    choice = choose_best(right, np.random.default_rng(0))
    assert choice.as_good == (0, 1, 2)
    assert choice.shortfall == pytest.approx(0.0)
    assert choice.expected_top1 == pytest.approx(0.75, abs=0.01)


def test_images_of_a_group_are_drawn_together() -> None:
    """Crops of five photographs are five images, not five hundred."""
    groups = np.repeat(np.arange(5), 100)
    right = np.stack([groups < 4, groups > 0])
    apart = choose_best(right, np.random.default_rng(0))
    together = choose_best(right, np.random.default_rng(0), groups.astype(np.int64))
    assert together.shortfall.max() > 3 * apart.shortfall.max()


def test_the_interval_holds_another_samples_accuracy() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(2000):
        seen = random.binomial(200, 0.85) / 200
        later = random.binomial(400, 0.85) / 400
        low, high = accuracy_interval(seen, 200, 0.85 * 0.15 / 400)
        held += low <= later <= high
    assert 0.87 <= held / 2000 <= 0.94
    assert accuracy_interval(1.0, 50, 0.0)[0] < 1.0, "all right is not certain"
