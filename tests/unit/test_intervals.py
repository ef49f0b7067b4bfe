"""Intervals, against SciPy where it has the same, and by properties that any interval has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.intervals import accuracy, difference, holm, mean_share, ratio, widened


def answers(seeds: int, images: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, images)) < share


def test_seeds_alone_give_the_paired_t_interval() -> None:
    """If each seed judges all images alike, images add no variance."""
    a = np.zeros((4, 50))
    b = np.repeat([[0.1], [0.3], [0.2], [0.25]], 50, axis=1)
    found = difference(a, b)
    expected = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.about == "recipes"


def test_images_alone_give_the_t_interval_over_images() -> None:
    """If all seeds give the same answers, more seeds add no information: a paired t interval over
    the seeds' means would have zero width."""
    one = answers(1, 200, 0.5).astype(float) - answers(1, 200, 0.4, seed=1)
    found = difference(np.zeros((3, 200)), np.repeat(one, 3, axis=0))
    low, high = stats.ttest_1samp(one[0], 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)


def test_images_widen_what_seeds_alone_would_say() -> None:
    random = np.random.default_rng(3)
    by_seed, by_image = random.normal(0, 0.01, (3, 1)), random.normal(0, 0.5, (1, 100))
    both = difference(np.zeros((3, 100)), by_seed + by_image)
    assert both.half_width > 1.96 * by_image.std(ddof=1) / 10


@settings(deadline=None, max_examples=25)
@given(seeds=st.sampled_from([1, 2, 3, 5]), seed=st.integers(0, 99))
def test_the_other_way_round_is_the_opposite(seeds: int, seed: int) -> None:
    a, b = answers(seeds, 60, 0.7, seed), answers(seeds, 60, 0.6, seed + 100)
    there, back = difference(a, b), difference(b, a)
    assert there.value == pytest.approx(-back.value)
    assert there.low <= there.value <= there.high
    if seeds >= 3:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_one_seed_gives_the_bootstrap_over_images() -> None:
    a, b = answers(1, 300, 0.8), answers(1, 300, 0.7, seed=1)
    found = difference(a, b)
    apart = b[0].astype(float) - a[0]
    expected = stats.bootstrap(
        (apart,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.about == "models"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_means_that_are_alike_by_chance_are_no_certainty() -> None:
    """Each seed gains one image, a different one each: equal means, but different images."""
    b = np.zeros((3, 100))
    b[0, 0] = b[1, 1] = b[2, 2] = 1.0
    found = difference(np.zeros((3, 100)), b)
    assert found.value == pytest.approx(0.01)
    assert found.low < 0.0 < found.high or found.p > 0.01
    assert found.half_width > 0.005


def test_a_clear_difference_of_one_seed_stands_correction_for_many() -> None:
    a, b = np.ones((1, 300)), np.arange(300)[None] > 100
    assert holm([difference(a, b).p] * 1000)[0] < 0.001


def test_no_image_judged_otherwise_is_no_certainty() -> None:
    same = answers(1, 100, 0.8)
    few, many = difference(same, same), difference(np.tile(same, 10), np.tile(same, 10))
    assert few.low < 0.0 < few.high
    assert few.p == 1.0
    assert 0.0 < many.high < few.high < 0.05


@pytest.mark.parametrize(
    ("a", "b"), [(np.zeros((1, 3)), np.zeros((1, 4))), (np.zeros((0, 3)), np.zeros((0, 3)))]
)
def test_what_cannot_be_paired(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pair"):
        difference(a, b)


def test_accuracy_of_one_model_is_wilson_s() -> None:
    found = accuracy(np.zeros((1, 10), bool))
    assert (found.low, found.high) == pytest.approx((0.0, 0.2775), abs=1e-3)
    right = np.arange(100)[None] < 90
    assert accuracy(right).low == pytest.approx(0.8256, abs=1e-3)


def test_perfect_seeds_are_no_certainty() -> None:
    found = accuracy(np.ones((3, 50), bool))
    assert found.low < 0.95
    assert found.high == 1.0


def test_accuracies_stay_within_0_and_1() -> None:
    found = accuracy(answers(3, 20, 0.97))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_three_runs_give_the_t_interval_of_log_ratios() -> None:
    a, b = [[100.0], [110.0], [95.0]], [[120.0], [126.0], [119.0]]
    logs = np.log([y[0] / x[0] for x, y in zip(a, b, strict=True)])
    low, high = np.exp(stats.ttest_1samp(logs, 0.0).confidence_interval(0.95))
    found = ratio(a, b)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.value == pytest.approx(np.exp(logs.mean()))
    joint = widened(found, 4)  # wider by the same factor on both sides
    assert joint.high / joint.value == pytest.approx(joint.value / joint.low)
    assert joint.low < found.low


def test_one_run_gives_an_interval_over_its_windows() -> None:
    random = np.random.default_rng(0)
    a, b = 100 + random.normal(0, 2, 40), 120 + random.normal(0, 2, 40)
    found = ratio([list(a)], [list(b)])
    assert 1.15 < found.low < found.value < found.high < 1.25
    assert found.p < 0.01


@pytest.mark.parametrize("rate", [50.0, 1 / 3])
def test_runs_that_are_alike_are_no_certain_difference(rate: float) -> None:
    alike = [[rate], [rate * (1 + 1e-15)], [rate]]
    assert ratio(alike, alike[::-1]).p == 1.0
    double = [[2 * rate * r[0] / rate] for r in alike]
    assert ratio(alike, double).p == 0.0


def test_a_clear_ratio_of_one_run_stands_correction_for_many() -> None:
    random = np.random.default_rng(0)
    a, b = 100 + random.normal(0, 2, 40), 150 + random.normal(0, 2, 40)
    assert holm([ratio([list(a)], [list(b)]).p] + [1.0] * 99)[0] < 0.001


def test_too_few_windows_have_no_interval() -> None:
    found = ratio([[100.0]], [[50.0]])
    assert (found.value, found.low, found.high, found.p) == (0.5, None, None, None)


def test_a_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="pairs"):
        ratio([[1.0]], [[1.0], [2.0]])


def test_holm() -> None:
    """Holm's worked example: 0.005 × 4, 0.01 × 3, 0.03 × 2, then no smaller value."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7]) == [0.7]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_nothing_and_bonferroni(ps: list[float]) -> None:
    for raw, corrected in zip(ps, holm(ps), strict=True):
        assert raw <= corrected <= min(1.0, raw * len(ps)) or corrected == max(holm(ps))


def test_means_of_few_runs_have_no_interval() -> None:
    assert mean_share([1.0, 2.0]).low is None
    assert mean_share([1.0, 2.0, 3.0]).low < 1.0


def test_runs_that_are_alike_but_for_rounding_are_no_certainty_and_no_warning() -> None:
    same = [0.1 + 0.2, 0.3, 0.3]
    assert mean_share(same).half_width == pytest.approx(0.0, abs=1e-12)
    a, b = [[3.0], [5.0], [0.7]], [[3.0 * 1.1], [5.0 * 1.1], [0.7 * 1.1]]
    found = ratio(a, b)
    assert (found.value, found.p) == (pytest.approx(1.1), 0.0)
    assert ratio(a, a).p == 1.0


@pytest.mark.parametrize("runs", [1, 3])
def test_a_ratio_is_widened_in_its_logarithm(runs: int) -> None:
    """Added to itself, the interval of a ratio would reach below zero."""
    slow = [[100.0 + run + window for window in range(8)] for run in range(runs)]
    fast = [[2.0 * rate for rate in run] for run in slow[::-1]]
    found = ratio(slow, fast)
    assert found.is_ratio
    assert found.uncapped is None
    if found.low is not None and found.high is not None:
        wide = widened(found, 5)
        assert wide.low is not None
        assert wide.high is not None
        assert 0.0 < wide.low <= found.low <= found.high <= wide.high
