"""Tests of the difference between two sets of values, and of the reason why a pair failed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.network.blueprint import Network
from bench.parity.compare import (
    Difference,
    failure_reason,
    grouping,
    max_absolute_difference,
    max_magnitude,
    max_relative_difference,
)
from tests.unit.pairs import BROKEN, INCONCLUSIVE, level

ONE = np.array([1.0, -4.0])


def test_a_gap_is_relative_to_the_largest_magnitude_of_the_reference() -> None:
    assert max_relative_difference({"a": ONE}, {"a": np.array([1.0, -3.5])}) == Difference(
        0.125, "a"
    )
    assert max_relative_difference({"a": ONE / 2}, {"a": ONE}) == Difference(1.0, "a")
    assert max_relative_difference({"a": ONE}, {"a": ONE.copy()}) == Difference(0.0, None)


def test_a_gap_names_the_value_where_it_is_largest() -> None:
    a = {"x": np.array([10.0]), "y": np.array([1.0])}
    assert max_relative_difference(a, {"x": np.array([11.0]), "y": np.array([1.05])}) == Difference(
        0.1, "x"
    )
    assert max_relative_difference(a, {"x": np.array([11.0]), "y": np.array([1.5])}) == Difference(
        0.5, "y"
    )


def test_values_of_a_group_share_their_scale() -> None:
    a = {"conv.weight": np.array([8.0]), "conv.bias": np.array([0.0]), "fc.bias": np.array([2.0])}
    b = {**a, "conv.bias": np.array([4e-3])}
    assert max_relative_difference(a, b) == Difference(math.inf, "conv.bias")
    assert max_relative_difference(a, b, lambda name: name.split(".")[0]) == Difference(
        5e-4, "conv.bias"
    )


def test_nothing_against_something_cannot_be_compared() -> None:
    zero, one = {"a": np.zeros(2)}, {"a": np.ones(2)}
    assert max_relative_difference(zero, one) == Difference(math.inf, "a")
    assert max_relative_difference(zero, zero) == Difference(0.0, None)


@pytest.mark.parametrize(("a", "b"), [({"x": ONE}, {}), ({}, {"x": ONE})])
def test_a_missing_name_is_reported(a: dict[str, object], b: dict[str, object]) -> None:
    assert max_relative_difference(a, b) == Difference(math.inf, "x is on one side only")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_agrees(bad: float) -> None:
    spoiled = np.array([1.0, bad])
    assert max_relative_difference({"a": ONE}, {"a": spoiled}) == Difference(math.inf, "a")
    assert max_relative_difference({"a": spoiled}, {"a": ONE}) == Difference(math.inf, "a")
    assert max_relative_difference({"a": spoiled}, {"a": spoiled.copy()}) == Difference(
        math.inf, "a"
    )
    group = {"a.x": spoiled, "a.y": ONE}, {"a.x": ONE, "a.y": 2 * ONE}
    assert max_relative_difference(*group, lambda name: "a") == Difference(math.inf, "a.x")
    assert max_absolute_difference(spoiled, spoiled.copy()) == math.inf


def test_other_shapes_never_agree() -> None:
    assert max_absolute_difference(np.zeros((2, 1)), np.zeros((1, 2))) == math.inf
    assert max_absolute_difference(np.zeros(1), np.zeros(2)) == math.inf


def test_differences_are_taken_in_float64() -> None:
    a, b = np.float32([16777216.0]), np.float32([16777218.0])
    assert max_absolute_difference(a, b) == 2.0
    assert max_absolute_difference(np.uint8([0]), np.uint8([255])) == 255.0


def test_of_nothing_the_largest_is_zero() -> None:
    assert max_magnitude(np.zeros((0, 3))) == 0.0
    assert max_magnitude(np.array([2.0, -3.0])) == 3.0


def test_tensors_belong_to_operations(network: Network) -> None:
    owner = grouping("gradients", network.blueprint)
    assert grouping("logits", network.blueprint)("bn1.bias") == "bn1.bias"
    assert owner("layer1.0.conv.bias") == "a"
    assert owner("bn1.weight") == owner("bn1.bias") == "bn"
    # A variance of thousands must not be the scale of the factors beside it.
    assert len({owner(f"bn1.{role}") for role in ("weight", "running_mean", "running_var")}) == 3


@pytest.mark.parametrize(
    ("value", "floor", "differs"),
    [
        (0.0, None, False),
        (1e-13, None, False),  # at the tolerance
        (1.1e-13, None, True),
        (1e-9, 1e-11, True),
        (1e-9, 1e-10, False),  # within ten times the floor
        (1e-9, 1e-3, False),
        (None, None, True),
        (None, 1.0, True),
    ],
)
def test_a_level_differs_beyond_tolerance_and_floor(
    value: float | None, floor: float | None, differs: bool
) -> None:
    assert level(value=value, floor=floor, passed=not differs).differs is differs


def test_a_reason_names_every_level_that_differs() -> None:
    missing = level("gradients", value=None, passed=False, detail="x is on one side only")
    reason = failure_reason((level("pixels"), BROKEN, missing, INCONCLUSIVE), 0.5)
    assert reason == (
        "differs: logits 0.001 (logits), gradients not comparable (x is on one side only)"
    )


def test_a_floor_that_is_too_high_is_inconclusive() -> None:
    reason = failure_reason((level(), INCONCLUSIVE), 0.5)
    assert (
        reason == "inconclusive: numerical noise exceeds the tolerance: losses (noise floor 1e-09)"
    )
    hidden = level("losses", value=0.0, floor=None, passed=False)
    assert failure_reason((hidden,), 0.5) == (
        "inconclusive: numerical noise exceeds the tolerance: losses (noise floor not finite)"
    )


@pytest.mark.parametrize(
    ("fall", "said"), [(0.049, "4.9%"), (-0.2, "-20.0%"), (None, "0.0%"), (math.nan, "nan%")]
)
def test_a_loss_that_did_not_fall_is_inconclusive(fall: float | None, said: str) -> None:
    said = f"inconclusive: the training loss fell by {said}, at least 5% is needed"
    assert failure_reason((level("losses", floor=1e-15),), fall) == said
    assert failure_reason((level("logits"),), fall) is None, "no steps were asked for"


@pytest.mark.parametrize("fall", [0.05, 0.9])
def test_a_pair_without_fault_has_no_reason(fall: float) -> None:
    assert failure_reason((level(), level("losses", floor=1e-15)), fall) is None
