"""Where a case lost or gained time, from two profiled launches."""

from __future__ import annotations

import pytest

from bench.gate.attribution import MOST_OPERATIONS, cause_of
from bench.workers.tasks import SpeedAnswer


def _answer(backward_s: float, operations_s: dict[str, float]) -> SpeedAnswer:
    parts = {"input": (1e-3, 1.1e-3, 0.9e-3), "forward": (4e-3, 4.1e-3, 9e-3),
             "backward": (backward_s, backward_s + 1e-4, backward_s)}  # fmt: skip
    return SpeedAnswer(
        windows=(), images={"train_step": 8}, parts_s=parts, operations_s=operations_s,
        setup_s=0.1, compile_s=0.2, peak_host_bytes=None,
    )  # fmt: skip


FAST = _answer(8e-3, {"conv": 5e-3, "relu": 1e-3, "copy": 1e-3})
SLOW = _answer(10e-3, {"conv": 6.5e-3, "relu": 1.00001e-3, "copy": 1.5e-3, "new": 1e-3})


def test_the_part_and_the_operations_that_grew_most_are_named_first() -> None:
    cause = cause_of("case", FAST, SLOW)
    assert cause.culprit == "backward"
    assert cause.parts[0].growth_s == pytest.approx(2e-3)
    assert [one.name for one in cause.operations] == ["conv", "new", "copy"]


def test_of_a_faster_case_those_that_shrank_are_named() -> None:
    cause = cause_of("case", SLOW, FAST, "faster")
    assert (cause.verdict, cause.culprit) == ("faster", "backward")
    assert [one.name for one in cause.operations] == ["conv", "new", "copy"]


def test_where_nothing_grew_nothing_is_named() -> None:
    assert cause_of("case", FAST, FAST).culprit is None
    assert cause_of("case", FAST, FAST).operations == ()


def test_few_operations_are_named() -> None:
    many = _answer(10e-3, {f"op{i}": 1e-3 + i * 1e-4 for i in range(20)})
    cause = cause_of("case", _answer(8e-3, {}), many)
    assert [one.name for one in cause.operations] == [f"op{19 - i}" for i in range(MOST_OPERATIONS)]
