"""Tests of levels: how each is measured from files, and when its noise floor decides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.network.blueprint import INPUT, Blueprint, Network
from bench.parity.compare import (
    Side,
    compare_levels,
    differing,
    failure_reason,
    first_difference,
    has_constant_logits,
)
from bench.parity.exchange import RecordedValues, read, write, write_facts
from bench.parity.model import PART_OF, PARTS, Level
from bench.parity.tolerances import LEVELS, MAY_BE_NOISY, NEED_LOW_FLOOR
from tests.unit.pairs import QUIET, level, level_values

Levels = dict[str, RecordedValues]


@pytest.fixture
def values(network: Network) -> Levels:
    return level_values(network)


def side(folder: Path, values: Levels, floors: dict[str, float] | None = None) -> Side:
    for name, arrays in values.items():
        write(folder, name, arrays)
    write_facts(folder, {"floors": floors or {}})
    return Side(dict.fromkeys(PARTS, folder))


class Judged:
    """Compares recorded values with a changed copy."""

    def __init__(self, root: Path, values: Levels, blueprint: Blueprint) -> None:
        self.root, self.values, self.blueprint = root, values, blueprint

    def sides(self, changes: Levels, floors: dict[str, float] | None) -> tuple[Side, Side]:
        given = side(self.root / "a", self.values, floors)
        return given, side(self.root / "b", {**self.values, **changes})

    def __call__(
        self, changes: Levels, floors: dict[str, float] | None = None, precision: Any = "fp64"
    ) -> dict[str, Level]:
        a, b = self.sides(changes, floors)
        found = compare_levels(a, b, a, self.blueprint, precision)
        assert [level.name for level in found] == list(LEVELS)
        return {level.name: level for level in found}

    def changed(self, level: str, name: str, by: float) -> Levels:
        """Return a level with one number moved by a fraction of the largest."""
        array = np.array(self.values[level][name])
        array.flat[0] += by * np.abs(array).max()
        return {level: {**self.values[level], name: array}}


@pytest.fixture
def judge(tmp_path: Path, values: Levels, network: Network) -> Judged:
    return Judged(tmp_path, values, network.blueprint)


def test_every_level_has_a_part() -> None:
    assert set(LEVELS) == set(PART_OF)


def test_equal_sides_pass_everywhere(judge: Judged) -> None:
    found = judge({}, QUIET)
    assert all(level.passed and level.value == 0.0 for level in found.values())
    assert all(level.detail is None for level in found.values())
    assert {n for n, level in found.items() if level.floor is not None} == QUIET.keys()


CASES = [
    ("pixels", "pixels"),
    ("initial_head", "classifier.1.weight"),
    ("logits", "logits"),
    ("activations", "sum"),
    ("gradients", "conv1.weight"),
    ("state_after_one_step", "bn1.running_var"),
    ("losses", "losses"),
    ("logits_after_steps", "logits"),
    ("epoch_losses", "losses"),
    ("logits_after_epochs", "logits"),
    ("restored_losses", "losses"),
    ("resumed", "plain"),
]


@pytest.mark.parametrize(("level", "name"), CASES)
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_a_level_fails_alone_above_its_tolerance(
    judge: Judged, level: str, name: str, precision: Any
) -> None:
    tolerance = LEVELS[level][precision]
    above = judge(judge.changed(level, name, 3 * tolerance or 1e-12), precision=precision)
    assert [n for n, x in above.items() if not x.passed] == [level]
    assert (above[level].detail, above[level].differs) == (name, True)
    assert above[level].tolerance == tolerance
    if tolerance > 1e-14:
        below = judge(judge.changed(level, name, tolerance / 4), precision=precision)
        assert all(x.passed for x in below.values())
        assert (below[level].value or 0.0) > 0.0


@pytest.mark.parametrize("form", ["plain", "folded"])
def test_a_form_that_is_wrong_in_both_backends_alike_is_found(judge: Judged, form: str) -> None:
    """Both backends fold BatchNorm by the same code."""
    judge.values = {**judge.values, **judge.changed("resumed", form, 1e-3)}
    found = judge({})
    assert [name for name, level in found.items() if not level.passed] == ["resumed"]
    assert found["resumed"].differs


@pytest.mark.parametrize("level", sorted(PART_OF.keys() - {"frozen"}))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_fails_on_either_side(judge: Judged, level: str, bad: float) -> None:
    name = next(iter(judge.values[level]))
    spoiled = np.full_like(judge.values[level][name], bad)
    sound = judge.values
    changed = {level: {**sound[level], name: spoiled}}
    assert not judge(changed)[level].passed
    judge.values = {**sound, **changed}
    other = judge({level: sound[level]})[level]
    assert not other.passed
    assert other.differs


@pytest.mark.parametrize("level", NEED_LOW_FLOOR)
def test_a_figure_counts_only_where_its_floor_is_low(judge: Judged, level: str) -> None:
    tolerance = LEVELS[level]["fp64"]
    for floor, passes in ((0.09 * tolerance, True), (0.11 * tolerance, False), (math.inf, False)):
        found = judge({}, {**QUIET, level: floor})[level]
        assert found.passed is passes
        assert not found.differs
        assert found.floor == (floor if math.isfinite(floor) else None)


@pytest.mark.parametrize("level", ["logits", "activations", "logits_after_steps"])
def test_the_floors_of_other_levels_are_only_shown(judge: Judged, level: str) -> None:
    found = judge({}, {level: 1.0})[level]
    assert (found.passed, found.floor) == (True, 1.0)


@pytest.mark.parametrize("level", MAY_BE_NOISY["fp32"])
def test_in_float32_a_floor_that_accounts_for_the_figure_takes_the_level_out(
    judge: Judged, level: str
) -> None:
    tolerance = LEVELS[level]["fp32"]
    name = next(iter(judge.values[level]))
    moved = judge.changed(level, name, 3 * tolerance)
    for floor, counts, reason in (
        (tolerance / 100, True, "differs"),
        (tolerance / 4, True, "differs"),  # ten times the floor is below the value
        (tolerance, False, None),
        (math.inf, False, None),
    ):
        floors = {**QUIET, level: floor}
        found = judge(moved, floors, precision="fp32")
        assert (found[level].passed, found[level].counts) == (False, counts), floor
        said = failure_reason(tuple(found.values()), 0.5)
        assert said is None if reason is None else (said or "").startswith(reason)
        # In float64 every level counts.
        small = judge.changed(level, name, 3 * LEVELS[level]["fp64"])
        assert judge(small, floors)[level].counts


def test_the_ten_losses_always_count(judge: Judged) -> None:
    for precision in ("fp32", "fp64"):
        found = judge({}, {**QUIET, "losses": 1.0}, precision=precision)["losses"]
        assert (found.passed, found.counts) == (False, True)


@pytest.mark.parametrize("worse", ["reference", "other"])
def test_frozen_counts_the_tensors_that_changed_on_either_side(judge: Judged, worse: str) -> None:
    changed = {"frozen": {"changed": np.array([1.0, 0.0, 1.0])}}
    if worse == "reference":
        sound = {"frozen": judge.values["frozen"]}
        judge.values = {**judge.values, **changed}
        changed = sound
    found = judge(changed)["frozen"]
    assert (found.value, found.passed, found.detail) == (2.0, False, "tensors changed")


@pytest.mark.parametrize("metrics", [[0.6, 1.25, 1.25], [0.5, 1.25, 1.5], [0.5, 1.5, 1.5]])
def test_metrics_agree_between_sides_and_between_loop_and_framework(
    judge: Judged, metrics: list[float]
) -> None:
    assert not judge({"metrics": {"metrics": np.array(metrics)}})["metrics"].passed


def test_both_sides_alike_may_still_be_wrong(judge: Judged) -> None:
    """The loop's loss and the framework's differ by the same amount on both sides."""
    wrong = {"metrics": {"metrics": np.array([0.5, 1.25, 1.5])}}
    judge.values = {**judge.values, **wrong}
    assert judge(wrong)["metrics"].value == pytest.approx(0.2)


def test_the_gradient_of_an_operation_is_measured_by_its_largest(judge: Judged) -> None:
    """The gradient of a bias before a BatchNorm is zero up to rounding."""
    gradients = {n: np.array(t) for n, t in judge.values["gradients"].items()}
    gradients["layer1.0.conv.bias"] = np.full(4, 1e-18)
    judge.values = {**judge.values, "gradients": gradients}
    found = judge({"gradients": {**gradients, "layer1.0.conv.bias": np.full(4, -1e-18)}})
    assert found["gradients"].passed
    assert 0.0 < (found["gradients"].value or 0.0) < 1e-17


def test_the_first_operation_that_differs_is_named_with_its_module(judge: Judged) -> None:
    def first(changes: Levels) -> Any:
        return first_difference(*judge.sides(changes, None), judge.blueprint, "fp64")

    assert first({}) is None
    assert first(judge.changed("activations", "sum", 1e-13)) is None
    found = first({"activations": {  # the first in order, not the largest
        **judge.changed("activations", "sum", 1e-6)["activations"],
        "b": judge.values["activations"]["b"] + 1.0,
    }})  # fmt: skip
    assert (found.operation, found.module_path) == ("sum", "layer1.0")
    shorter = {n: v for n, v in judge.values["activations"].items() if n != "a"}
    assert first({"activations": shorter}).operation == "a"


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    values = {INPUT: np.arange(6.0).reshape(2, 3).T, "n": np.float32([1.5])}
    write(tmp_path / "new", "pixels", values)
    found = read(tmp_path / "new", "pixels")
    assert set(found) == set(values)
    assert len(found) == 2
    for name, array in values.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    with pytest.raises(KeyError):
        found["absent"]


def test_a_network_that_ignores_its_images_is_inconclusive(values: Levels, tmp_path: Path) -> None:
    """Its head's bias learns all the same, and alike on both sides."""
    same = np.tile(np.arange(10.0), (4, 1))
    other = same.copy()
    other[2, 3] += 1e-9
    for logits, constant in ((same, True), (other, False), (np.zeros((4, 10)), True)):
        given = side(tmp_path, {**values, "logits": {"logits": logits}})
        assert has_constant_logits(given, "fp64") == constant
    assert failure_reason((), 0.3, constant_logits=True) == (
        "inconclusive: the network gives the same logits for every image"
    )
    assert failure_reason((), 0.3) is None


@pytest.mark.parametrize("after", ["logits_after_steps", "epoch_losses", "losses"])
def test_in_chaos_nothing_after_the_steps_shows_a_difference(after: str) -> None:
    apart = level(after, value=0.5, floor=1e-15, passed=False)
    quiet = [level(name, floor=1e-15) for name in NEED_LOW_FLOOR if name != after]
    wild = [level(name, floor=0.1, passed=False) for name in NEED_LOW_FLOOR if name != after]
    assert differing([*quiet, apart]) == [apart]
    assert differing([*wild, apart]) == []
    reason = failure_reason((*wild, apart), 0.3)
    assert reason is not None
    assert reason.startswith("inconclusive: numerical noise")


def test_in_chaos_the_first_step_still_shows_a_difference() -> None:
    apart = level("state_after_one_step", value=0.5, floor=1e-15, passed=False)
    wild = level("losses", value=0.5, floor=0.1, passed=False)
    assert differing([apart, wild]) == [apart]
