"""Verdicts from launches: slower, faster, same, cannot tell; the null arm; unequal sides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.gate.decision import confirm, decide, overall, search
from bench.gate.design import Plan
from bench.gate.run import GateResult, result_of
from bench.gate.samples import ArmLaunch, block_series
from bench.speed.values import value_of
from tests.unit.made_launches import (
    CASE,
    CONDITIONS,
    made_blocks,
    made_launch,
    made_window,
)

NAME = f"train_step {CASE}"
PLAN = Plan(margin=0.03)


def _ratios(center: float, spread: float, count: int, seed: int = 0) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, spread, count)
    noise -= noise.mean()
    return [center * math.exp(x) for x in noise]


def _result(launches: list[ArmLaunch], intended: tuple[str, ...] = ()) -> GateResult:
    return result_of(launches, PLAN, ("a", "b"), True, intended)


@pytest.mark.parametrize(
    ("center", "spread", "verdict"),
    [(1.10, 0.01, "slower"), (0.9, 0.01, "faster"), (1.0, 0.01, "same"), (1.0, 0.05, "cannot tell"),
     (1.02, 0.001, "same"), (1.031, 0.0005, "slower"), (1.10, 0.2, "cannot tell")],
)  # fmt: skip
def test_verdicts(center: float, spread: float, verdict: str) -> None:
    (one,) = decide(block_series(made_blocks(_ratios(center, spread, 10)), "search", True), PLAN)
    assert one.verdict == verdict
    assert one.ratio == pytest.approx(center)
    assert one.blocks == 10
    assert one.interval is not None
    low, high = one.interval
    if verdict == "slower":
        assert low > 1
    if verdict == "same":
        assert low >= 1 / 1.03
        assert high <= 1.03
    assert (one.needed_blocks is not None) == (verdict == "cannot tell")


def test_a_real_slowdown_within_the_margin_is_not_slower() -> None:
    (one,) = decide(block_series(made_blocks(_ratios(1.025, 0.01, 10)), "search", True), PLAN)
    assert one.interval is not None
    assert one.interval[0] > 1, "it is significant"
    assert one.verdict == "cannot tell", "but not past the margin, and not surely within"


def test_one_slow_benchmark_among_many_is_found_and_holm_corrects() -> None:
    launches = []
    random = np.random.default_rng(3)
    for block in range(6):
        noise = random.normal(0, 0.01, (3, 20))
        slow = {(arm, i): 1.1 if (arm, i) == ("B", 3) else 1.0 for arm in "ABN" for i in range(20)}
        for position, arm in enumerate(("A", "B", "N")):
            cases = {
                f"case{i}": [made_window(math.exp(noise[position, i]) * slow[arm, i])]
                for i in range(20)
            }  # fmt: skip
            launch = made_launch(cases)
            launches.append(
                ArmLaunch(stage="search", block=block, position=position, arm=arm, launch=launch)  # type: ignore[arg-type]
            )
    verdicts = {
        one.name: one.verdict for one in decide(block_series(launches, "search", True), PLAN)
    }
    assert [name for name, v in verdicts.items() if v == "slower"] == ["train_step case3"]


def test_a_slowdown_is_confirmed_on_new_launches() -> None:
    slow = made_blocks(_ratios(1.1, 0.01, 6))
    again = made_blocks(_ratios(1.09, 0.01, 6), stage="confirm")
    gone = made_blocks(_ratios(1.0, 0.01, 6), stage="confirm")
    confirmed = _result(slow + again)
    assert confirmed.verdict == "slower"
    assert confirmed.benchmarks[0].confirmed_ratio == pytest.approx(1.09)
    assert (confirmed.blocks, confirmed.confirm_blocks) == (6, 6)
    taken_back = _result(slow + gone)
    assert taken_back.verdict == "cannot tell"
    assert "did not confirm" in str(taken_back.benchmarks[0].reason)
    assert "no time was left" in str(_result(slow).benchmarks[0].reason)


def test_part_of_a_confirmation_is_none() -> None:
    slow = made_blocks(_ratios(1.1, 0.01, 6))
    part = made_blocks(_ratios(1.1, 0.01, 5), stage="confirm")
    assert _result(slow + part).verdict == "cannot tell"


def test_a_look_uses_its_own_blocks_alone() -> None:
    """After an interruption there may be more blocks than the look has: no further look."""
    launches = made_blocks([*_ratios(1.0, 0.003, 6), 1.5, 1.5])
    verdicts, look = search(block_series(launches, "search", True), PLAN)
    assert (verdicts[0].verdict, verdicts[0].blocks, look) == ("same", 6, 6)
    restless = made_blocks(_ratios(1.0, 0.05, 8))
    verdicts, look = search(block_series(restless, "search", True), PLAN)
    assert (verdicts[0].verdict, verdicts[0].blocks, look) == ("cannot tell", 8, None)


def test_two_constant_arms_tell_nothing() -> None:
    launches = [
        ArmLaunch(stage="search", block=block, position=i, arm=arm,  # type: ignore[arg-type]
                  launch=made_launch([0.0105 if arm == "B" else 0.01] * 3))
        for block in range(6)
        for i, arm in enumerate("ABN")
    ]  # fmt: skip
    result = _result(launches)
    assert result.verdict == "cannot tell"
    assert "clock stands still" in str(result.benchmarks[0].reason)


def test_steps_of_other_numbers_of_images_are_not_compared() -> None:
    launches = []
    for one in made_blocks(_ratios(1.0, 0.01, 6)):
        if one.arm == "B":
            answer = one.launch.cases[CASE].model_copy(update={"images": {"train_step": 16}})
            launch = one.launch.model_copy(update={"cases": {CASE: answer}})
            one = one.model_copy(update={"launch": launch})
        launches.append(one)
    result = _result(launches)
    assert result.verdict == "cannot tell"
    assert "images of" in str(result.benchmarks[0].reason)


def test_confirmation_needs_slower_not_faster() -> None:
    verdicts = decide(block_series(made_blocks(_ratios(1.1, 0.01, 6)), "search", True), PLAN)
    faster = block_series(made_blocks(_ratios(0.8, 0.01, 6), stage="confirm"), "confirm", True)
    assert confirm(verdicts, faster)[0].verdict == "cannot tell"


def test_where_the_null_arm_moves_nothing_can_be_told() -> None:
    moved = made_blocks(_ratios(1.1, 0.005, 10), nulls=_ratios(1.05, 0.005, 10, seed=1))
    moved += made_blocks(_ratios(1.1, 0.005, 6), stage="confirm")
    result = _result(moved)
    assert not result.null_arm.passed
    assert result.null_arm.ratio == pytest.approx(1.05, rel=0.05)
    assert result.verdict == "cannot tell"
    assert "null arm moved" in str(result.benchmarks[0].reason)


def test_a_null_arm_that_moves_less_than_matters_changes_nothing() -> None:
    launches = made_blocks(_ratios(1.0, 0.005, 10), nulls=_ratios(1.004, 0.0005, 10, seed=1))
    result = _result(launches)
    assert result.null_arm.passed
    assert result.verdict == "same"


def test_unequal_sides_can_tell_nothing() -> None:
    launches = made_blocks(_ratios(1.3, 0.01, 6)) + made_blocks(
        _ratios(1.3, 0.01, 6), stage="confirm"
    )
    one_core = CONDITIONS.model_copy(update={"cpus": (0,)})
    unequal = [
        one.model_copy(update={"launch": one.launch.model_copy(update={"conditions": one_core})})
        if one.arm == "B"
        else one
        for one in launches
    ]
    result = _result(unequal)
    assert result.verdict == "cannot tell"
    words = "cores that the process may use: 0,1 at A's first launch, 0 at B"
    assert words in str(result.benchmarks[0].reason)


def test_variables_that_are_meant_to_differ_are_no_inequality() -> None:
    other = CONDITIONS.model_copy(update={"variables": {"OMP_NUM_THREADS": "1"}})
    launches = [
        one.model_copy(update={"launch": one.launch.model_copy(update={"conditions": other})})
        if one.arm == "B"
        else one
        for one in made_blocks(_ratios(1.0, 0.01, 10))
    ]
    assert _result(launches, ("OMP_NUM_THREADS",)).verdict == "same"
    refused = _result(launches)
    assert refused.verdict == "cannot tell"
    assert "OMP_NUM_THREADS=1" in str(refused.benchmarks[0].reason)


def test_disturbed_rounds_are_left_out_and_disturbed_blocks_do_not_count() -> None:
    def block(number: int, disturbed: int) -> list[ArmLaunch]:
        windows = {
            "A": [made_window(0.01)] * 4,
            "B": [made_window(0.05, disturbed=True)] * disturbed
            + [made_window(0.01)] * (4 - disturbed),
            "N": [made_window(0.01)] * 4,
        }
        return [
            ArmLaunch(stage="search", block=number, position=i, arm=arm,  # type: ignore[arg-type]
                      launch=made_launch({CASE: own}))
            for i, (arm, own) in enumerate(windows.items())
        ]  # fmt: skip

    series = block_series([*block(0, 0), *block(1, 1), *block(2, 3)], "search", True)[NAME]
    assert [one.log_ratio for one in series.blocks] == pytest.approx([0.0, 0.0])
    assert series.disturbed == ["other processes used the cores during a launch of B"]


def test_a_block_without_all_launches_does_not_count() -> None:
    launches = made_blocks([1.0, 1.0, 1.0])[:-1]
    assert len(block_series(launches, "search", True)[NAME].blocks) == 2


def test_launches_in_sequence_are_averaged() -> None:
    launches = [
        ArmLaunch(stage="search", block=0, position=i, arm=arm, launch=made_launch([seconds]))  # type: ignore[arg-type]
        for i, (arm, seconds) in enumerate(
            [("A", 1.0), ("B", 2.0), ("N", 1.0), ("N", 4.0), ("B", 8.0), ("A", 4.0)]
        )
    ]
    (block,) = block_series(launches, "search", False)[NAME].blocks
    assert block.log_ratio == pytest.approx(math.log(2))
    assert block.null_log_ratio == pytest.approx(0.0)


def test_a_slowdown_by_the_clock_of_the_gpu_is_told_as_such() -> None:
    def launches(clock_b: float, stage: str) -> list[ArmLaunch]:
        found = []
        for block, ratio in enumerate(_ratios(1.2, 0.005, 6)):
            for position, arm in enumerate("ABNNBA"):
                seconds, clock = (0.01 * ratio, clock_b) if arm == "B" else (0.01, 1800.0)
                launch = made_launch({CASE: [made_window(seconds, clock=clock)] * 3})
                found.append(
                    ArmLaunch(stage=stage, block=block, position=position, arm=arm, launch=launch)  # type: ignore[arg-type]
                )
        return found

    def answer(clock_b: float) -> GateResult:
        both = [*launches(clock_b, "search"), *launches(clock_b, "confirm")]
        return result_of(both, PLAN, ("a", "b"), False)

    assert answer(1800.0).verdict == "slower"
    assert answer(1800.0).benchmarks[0].cycles_ratio == pytest.approx(1.2)
    slow_clock = answer(1500.0)
    assert slow_clock.benchmarks[0].cycles_ratio == pytest.approx(1.0)
    assert slow_clock.verdict == "slower", "B made the clock lower: the order was drawn"
    assert "clock was lower at B" in str(slow_clock.benchmarks[0].reason)


def test_a_clock_that_stands_still_tells_nothing() -> None:
    launches = [
        ArmLaunch(stage="search", block=block, position=i, arm=arm, launch=made_launch([0.01] * 3))  # type: ignore[arg-type]
        for block in range(6)
        for i, arm in enumerate("ABN")
    ]
    result = _result(launches)
    assert result.verdict == "cannot tell"
    assert "clock stands still" in str(result.benchmarks[0].reason)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [(["same", "slower", "cannot tell"], "slower"), (["cannot tell", "faster"], "cannot tell"),
     (["same", "faster"], "faster"), (["same"], "same"), ([], "cannot tell")],
)  # fmt: skip
def test_the_overall_verdict_is_the_worst(verdicts: list[str], expected: str) -> None:
    (one,) = decide(block_series(made_blocks([1.0, 1.01, 0.99]), "search", True), PLAN)
    assert (
        overall([one.model_copy(update={"verdict": verdict}) for verdict in verdicts]) == expected
    )


def test_the_value_of_a_launch() -> None:
    calm = [made_window(s) for s in (1.0, 2.0, 3.0)]
    noisy = [made_window(9.0, disturbed=True)]
    assert value_of(calm + noisy).seconds == 2.0
    assert value_of(calm + noisy).disturbed_by is None
    assert value_of(calm[:1] + noisy * 2).disturbed_by == "other processes used the cores"
    assert value_of(calm[:1] + noisy * 2).seconds == 9.0
