"""Intervals, against SciPy where it has the same, and by properties that any interval has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.analysis.intervals import (
    Estimate,
    accuracy,
    corrected,
    exponential,
    holm,
    median_of_pairs,
    t_interval,
)
from bench.analysis.scores import Scores


def test_a_t_interval_is_scipys() -> None:
    x = np.array([0.1, 0.3, 0.2, 0.25])
    found = t_interval(float(x.mean()), float(x.var(ddof=1)) / 4, 3)
    expected = stats.ttest_1samp(x, 0.0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)


def test_two_one_sided_tests_show_equality() -> None:
    """Within the margin exactly where the 90 % interval is."""
    e = t_interval(0.002, 0.004**2, 8)
    half = stats.t.ppf(0.95, 8) * 0.004
    assert e.is_within(0.002 + half + 1e-9)
    assert not e.is_within(0.002 + half - 1e-9)
    assert not Estimate(0.0).is_within(1.0), "without an interval nothing is shown"
    ratio = exponential(t_interval(np.log(1.01), 0.01**2, 20))
    assert ratio.is_within(float(np.log(1.05)))
    assert not ratio.is_within(float(np.log(1.02)))


def test_the_other_way_round_is_the_opposite() -> None:
    e = t_interval(0.1, 0.02**2, 5).reversed
    half = 2.5706 * 0.02
    assert (e.value, e.low, e.high) == pytest.approx((-0.1, -0.1 - half, -0.1 + half), abs=1e-5)
    ratio = Estimate(2.0, 1.6, 2.5, is_ratio=True).reversed
    assert (ratio.value, ratio.low, ratio.high) == (0.5, 0.4, 0.625)


def test_an_interval_excludes_no_difference_or_holds_it() -> None:
    assert Estimate(0.1, 0.02, 0.2).excludes_neutral
    assert not Estimate(0.1, -0.02, 0.2).excludes_neutral
    assert not Estimate(0.1).excludes_neutral
    assert Estimate(1.1, 1.02, 1.2, is_ratio=True).excludes_neutral


def scores(right: int, images: int) -> Scores:
    return Scores.of_answers("a", "head", np.arange(images)[None, :] < right)


@pytest.mark.parametrize(("right", "images"), [(38, 38), (28, 38), (0, 50), (900, 1000)])
def test_with_binomial_variance_an_accuracy_has_wilsons_interval(right: int, images: int) -> None:
    s = scores(right, images)
    variance = s.slope / images
    found = accuracy(s, 0.0, variance, np.inf)
    expected = stats.binomtest(right, images).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_variance_of_seeds_widens_an_accuracy_within_its_bounds() -> None:
    s = scores(95, 100)
    narrow = accuracy(s, 0.0, s.slope / 100, np.inf)
    wide = accuracy(s, 0.05**2, s.slope / 100, 4.0)
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.low is not None
    assert 0.0 <= wide.low < narrow.low
    assert wide.high <= 1.0


def test_pairs_of_runs_have_wilcoxons_interval() -> None:
    x = np.random.default_rng(0).normal(0.1, 0.05, 12)
    found = median_of_pairs(x.tolist())
    walsh = [(a + b) / 2 for n, a in enumerate(x) for b in x[n:]]
    assert found.value == pytest.approx(float(np.median(walsh)))
    # The interval holds exactly the shifts that the signed-rank test does not reject.
    for end, inside in ((found.low, 1e-6), (found.high, -1e-6)):
        assert stats.wilcoxon(x - (end + inside), method="approx").pvalue > 0.045
        assert stats.wilcoxon(x - (end - 40 * inside * 1e4 * 0.005), method="approx").pvalue < 0.2


@pytest.mark.parametrize("count", [6, 7, 8, 10, 12, 20])
def test_wilcoxons_interval_is_wrong_in_at_most_one_of_twenty(count: int) -> None:
    """All patterns of signs are equally likely where nothing differs: add the shares of those
    whose interval excludes 0, by the sum of the ranks of their negative numbers."""
    patterns = np.zeros(count * (count + 1) // 2 + 1)
    patterns[0] = 1.0
    for rank in range(1, count + 1):
        patterns[rank:] += patterns[:-rank].copy()
    wrong = 0.0
    for total, number in enumerate(patterns):
        x, left = np.arange(1.0, count + 1), total
        for rank in range(count, 0, -1):
            if rank <= left:
                x[rank - 1], left = -rank, left - rank
        found = median_of_pairs(x.tolist())
        assert found.low is not None
        wrong += 2 * number / 2**count * (found.low > 0)
    assert 0.02 < wrong <= 0.05


def test_a_disturbed_run_hardly_moves_the_centre_of_pairs() -> None:
    calm = [0.01, -0.01, 0.02, 0.0, -0.02, 0.01, 0.0, -0.01]
    one_slow = [*calm[:-1], -1.5]
    assert abs(median_of_pairs(one_slow).value) < 0.02


def test_holm_corrects_as_in_his_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    found = corrected([None, t_interval(1.0, 0.1, 9), None])
    assert found[0] is None
    assert found[1] == pytest.approx(t_interval(1.0, 0.1, 9).p)
