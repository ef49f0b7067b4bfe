"""The statistics of the gate, against references and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.errors import UserError
from bench.gate.design import LEVEL, LOOKS, Plan, block_orders, plan_for
from bench.gate.statistics import (
    blocks_to_settle,
    holm,
    paired,
    power_of,
    smallest_found,
    unpaired,
)

VALUES = [0.01, -0.02, 0.035, 0.04, 0.012, 0.02]


def test_the_paired_estimate_is_that_of_scipy() -> None:
    estimate = paired(VALUES)
    reference = stats.ttest_1samp(VALUES, 0.0)
    assert estimate.p_value() == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval(0.99)
    assert estimate.interval(0.01) == pytest.approx((math.exp(low), math.exp(high)))


def test_the_unpaired_estimate_is_that_of_scipy() -> None:
    before, now = [0.0, 0.01, 0.03, -0.01], [0.05, 0.07, 0.02]
    reference = stats.ttest_ind(now, before, equal_var=False)
    estimate = unpaired(before, now)
    assert estimate.p_value() == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval(0.95)
    assert estimate.interval(0.05) == pytest.approx((math.exp(low), math.exp(high)))


def test_holm_rejects_step_by_step() -> None:
    # The example of Holm (1979) with level 0.05: 0.01 <= 0.05/4, 0.02 > 0.05/3.
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.5}, 0.05) == {"a"}
    assert holm({"a": 0.01, "b": 0.016, "c": 0.024, "d": 0.5}, 0.05) == {"a", "b", "c"}
    assert holm({}, 0.05) == set()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_more_than_bonferroni_and_less_than_no_correction(p: list[float]) -> None:
    values = {str(i): value for i, value in enumerate(p)}
    rejected = holm(values, 0.05)
    assert {n for n, v in values.items() if v <= 0.05 / len(p)} <= rejected
    assert rejected <= {n for n, v in values.items() if v <= 0.05}


def test_identical_ratios_have_no_error() -> None:
    assert paired([0.0] * 6).p_value() == 1.0
    assert paired([0.125] * 6).p_value() == 0.0
    assert paired([0.1] * 6).interval(0.05) == pytest.approx((math.exp(0.1),) * 2)


def test_power_is_what_simulation_gives() -> None:
    random, slowdown, blocks, spread, level, margin = (
        np.random.default_rng(0),
        0.05,
        6,
        0.02,
        0.01,
        0.03,
    )
    drawn = random.normal(math.log1p(slowdown), spread, (20_000, blocks))
    means, errors = drawn.mean(1), drawn.std(1, ddof=1) / math.sqrt(blocks)
    found = (means / errors > stats.t.isf(level / 2, blocks - 1)) & (means > math.log1p(margin))
    assert power_of(slowdown, blocks, spread, level, margin) == pytest.approx(
        found.mean(), abs=0.01
    )


def test_power_with_confirmation_is_what_simulation_gives() -> None:
    random, blocks, spread = np.random.default_rng(0), 6, 0.03
    drawn = random.normal(math.log1p(0.05), spread, (2, 20_000, blocks))
    means, errors = drawn.mean(2), drawn.std(2, ddof=1) / math.sqrt(blocks)
    found = (means[0] / errors[0] > stats.t.isf(0.005, blocks - 1)) & (means[0] > math.log1p(0.03))
    confirmed = means[1] / errors[1] > stats.t.isf(0.05, blocks - 1)
    assert power_of(0.05, blocks, spread, 0.01, 0.03, 0.05) == pytest.approx(
        (found & confirmed).mean(), abs=0.01
    )


def test_the_smallest_slowdown_found_has_that_power() -> None:
    smallest = smallest_found(10, 0.02, 0.01, 0.03, power=0.8)
    assert smallest is not None
    assert power_of(smallest, 10, 0.02, 0.01, 0.03) == pytest.approx(0.8, abs=1e-3)
    assert smallest > 0.03
    assert smallest_found(1, 0.02, 0.01, 0.03, power=0.8) is None
    assert smallest_found(10, 0.0, 0.01, 0.03, power=0.8) == pytest.approx(0.03, abs=1e-3)


def test_blocks_that_settle_a_question() -> None:
    needed = blocks_to_settle(0.0, 0.03, 0.01, 0.03)
    assert needed is not None
    half = stats.t.isf(0.005, needed - 1) * 0.03 / math.sqrt(needed)
    before = stats.t.isf(0.005, needed - 2) * 0.03 / math.sqrt(needed - 1)
    assert half < math.log1p(0.03) <= before
    assert blocks_to_settle(math.log1p(0.03), 0.5, 0.01, 0.03) is None


def test_the_looks_together_keep_the_level() -> None:
    """Simulated comparisons of a commit with itself, of four benchmarks and all looks: the chance
    that any test rejects is at most the level."""
    random, plan = np.random.default_rng(1), Plan(margin=0.0)
    alarms, repeats = 0, 400
    for _ in range(repeats):
        drawn = random.standard_t(3, (LOOKS[-1], 4)) * 0.02  # heavy tails
        for look in LOOKS:
            p = {str(i): paired(drawn[:look, i]).p_value() for i in range(4)}
            if holm(p, plan.level_per_look):
                alarms += 1
                break
    assert stats.binomtest(alarms, repeats, LEVEL, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("together", [True, False])
def test_blocks_are_balanced(together: bool) -> None:
    from random import Random

    random = Random(0)
    seen = set()
    for _ in range(200):
        orders = block_orders(random, together)
        flat = [arm for order in orders for arm in order]
        seen.add("".join(flat))
        if together:
            assert sorted(flat) == ["A", "B", "N"]
        else:
            assert flat == flat[::-1]
            assert "".join(a for a in flat if a != "N") in ("ABBA", "BAAB")
    assert len(seen) == 6


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_plan_that_can_never_fail_is_refused(blocks: int) -> None:
    with pytest.raises(UserError, match="can never fail") as caught:
        plan_for(0.03, benchmarks=6, most_blocks=blocks)
    assert "--blocks" in str(caught.value.hint)


def test_the_looks_of_a_plan() -> None:
    assert plan_for(0.03, 4).looks == LOOKS
    with pytest.raises(UserError, match="can never fail"):
        plan_for(0.03, benchmarks=1, most_blocks=2)
    assert plan_for(0.03, 4, 12).looks == (6, 10, 12)
    assert plan_for(0.03, 4, 6).looks == (6,)
    plan = plan_for(0.03, 4)
    assert plan.level_per_look * len(plan.looks) == pytest.approx(plan.level)


def test_a_quiet_gpu_shows_one_percent_within_14_blocks() -> None:
    """Spread 0.5 %, one benchmark, margin 0.5 %: found at the look after 10 blocks."""
    level = Plan(margin=0.005).level_per_look
    assert power_of(0.01, 10, 0.005, level, 0.005) > 0.95


def test_five_and_ten_percent_are_found_at_a_spread_of_two_percent() -> None:
    level = Plan(margin=0.03).level_per_look / 4
    assert power_of(0.05, 10, 0.02, level, 0.03) > 0.95
    assert power_of(0.10, 6, 0.02, level, 0.03) > 0.95
