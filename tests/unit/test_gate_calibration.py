"""The gate's own errors: false alarms, power, and what is stored of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.cli.gate_compare import calibrated_name
from bench.cli.options import GateOptions
from bench.errors import UserError
from bench.gate.calibration import (
    calibrate,
    calibration_path,
    drawn_comparisons,
    false_alarm_rate,
    launches_needed,
    machine_of,
    save_calibration,
    upper_bound,
)
from bench.gate.design import Plan
from tests.unit.made_launches import CASE, SOFTWARE, made_blocks

SOFT = {"torch": SOFTWARE}


def _ratios(spread: float, blocks: int = 60, benchmarks: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(0, spread, (blocks, benchmarks))


def test_there_are_hardly_any_false_alarms() -> None:
    random = np.random.default_rng(1)
    for spread in (0.005, 0.02, 0.1):
        found = drawn_comparisons(_ratios(spread), 0.0, Plan(margin=0.03), random, 300)
        assert sum(f is not None for f in found) <= 3, spread


def test_a_slowdown_is_found_the_sooner_the_quieter_the_machine() -> None:
    random, plan = np.random.default_rng(1), Plan(margin=0.03)
    quiet = drawn_comparisons(_ratios(0.005), 0.1, plan, random, 100)
    assert all(blocks == 6 for blocks in quiet)
    noisy = drawn_comparisons(_ratios(0.1), 0.1, plan, random, 100)
    found = [blocks for blocks in noisy if blocks is not None]
    assert len(found) > 50
    assert min(found) >= 6
    assert np.mean(found) > 10
    assert not any(drawn_comparisons(_ratios(0.2), 0.01, plan, random, 50))


def test_five_percent_is_found_within_twelve_blocks_at_a_spread_of_two() -> None:
    found = drawn_comparisons(
        _ratios(0.02, 500), 0.05, Plan(margin=0.03), np.random.default_rng(2), 400
    )
    assert sum(f is not None and f <= 12 for f in found) / len(found) >= 0.95


def test_the_calibration_of_blocks(tmp_path: Path) -> None:
    ratios = np.exp(np.random.default_rng(0).normal(0, 0.01, 30))
    found = calibrate(made_blocks(list(ratios)), "small", "cpu", SOFT, 0.03, True)
    assert found.blocks == 30
    spread = found.spreads[f"train_step {CASE}"]
    assert spread.block == pytest.approx(np.log(ratios).std(ddof=1))
    assert spread.within == pytest.approx(0.02, rel=0.05)
    assert spread.between == pytest.approx(0.007, rel=0.3)
    assert found.false_alarm_rate == 0
    assert (found.disjoint, found.disjoint_alarms) == (5, 0)
    assert found.disjoint_bound == pytest.approx(upper_bound(0, 5))
    assert found.power["0.1"]["6"] > 0.99
    assert found.needed_blocks["0.1"] == 6
    assert found.needed_launches["0.1"] == launches_needed(0.1, spread.between, 1, 0.03)
    assert found.power["0.01"]["6"] <= found.power["0.01"]["40"]
    path = save_calibration(found, tmp_path)
    assert path == calibration_path(tmp_path, "small", "cpu", machine_of(SOFT), 0.03)
    assert false_alarm_rate("small", "cpu", SOFT, 0.03, tmp_path) == found.false_alarm_rate
    assert false_alarm_rate("small", "cpu", SOFT, 0.01, tmp_path) is None, "another margin"
    assert false_alarm_rate("usual", "cpu", SOFT, 0.03, tmp_path) is None
    other = SOFTWARE.model_copy(update={"gpu_uuid": "GPU-1"})
    assert false_alarm_rate("small", "cpu", {"torch": other}, 0.03, tmp_path) is None
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match="is damaged"):
        false_alarm_rate("small", "cpu", SOFT, 0.03, tmp_path)


def test_the_launches_that_a_baseline_needs_are_those_of_simulation() -> None:
    needed = launches_needed(0.05, 0.03)
    assert needed is not None
    random = np.random.default_rng(0)

    def power(count: int) -> float:
        before = random.normal(0, 0.03, (4000, count))
        now = random.normal(np.log(1.05), 0.03, (4000, count))
        return float((stats.ttest_ind(now, before, axis=1, equal_var=False).pvalue < 0.05).mean())

    assert power(needed) >= 0.94
    assert power(needed - 2) < 0.95
    assert launches_needed(0.001, 0.5) is None
    assert (launches_needed(0.05, 0.03, benchmarks=6) or 0) > needed, "they share the level"
    assert (launches_needed(0.05, 0.03, margin=0.045) or 0) > needed, "the margin is near"


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(UserError, match="9 blocks .* too few"):
        calibrate(
            made_blocks([1.0 + 0.001 * i for i in range(9)]), "small", "cpu", SOFT, 0.03, True
        )


def test_the_upper_bound_is_that_of_clopper_and_pearson() -> None:
    reference = stats.binomtest(3, 100).proportion_ci(0.90, method="exact").high
    assert upper_bound(3, 100) == pytest.approx(reference)
    assert upper_bound(0, 150) == pytest.approx(1 - 0.05 ** (1 / 150))
    assert upper_bound(0, 150) < 0.02
    assert upper_bound(5, 5) == 1.0


def test_turns_on_a_gpu_are_calibrated_apart() -> None:
    turns, alone = GateOptions(turns=True), GateOptions()
    assert calibrated_name("small", "cuda:0", turns) != calibrated_name("small", "cuda:0", alone)
    assert calibrated_name("small", "cpu", turns) == calibrated_name("small", "cpu", alone)
