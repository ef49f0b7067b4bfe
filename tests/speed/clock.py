"""Durations measured elsewhere, in pytest-benchmark's own statistics and files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


class Clock:
    """A clock that only ``hand_over`` moves: the ``timer`` of these benchmarks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


def hand_over(benchmark: BenchmarkFixture, durations: Sequence[float]) -> None:
    """Make ``durations`` the rounds of a benchmark whose timer is ``CLOCK``."""
    assert len(durations) > 0
    assert all(duration > 0 for duration in durations)
    left = iter(durations)

    def advance() -> None:
        CLOCK.now_s += next(left)

    CLOCK.now_s = 0.0
    benchmark.pedantic(advance, rounds=len(durations), iterations=1)
    if benchmark.stats is not None:  # with --benchmark-disable there are none
        assert benchmark.stats.stats.data == pytest.approx(list(durations))
