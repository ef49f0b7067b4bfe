"""The learning rate of each step, and the streams of all random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.network.random_streams import Stream, generator
from bench.spec.run import Recipe, RunSpec
from bench.training.schedule import learning_rate


def _rates(make_spec: Callable[..., RunSpec], steps: int, **recipe: Any) -> list[float]:
    made: Recipe = make_spec(recipe=recipe).recipe
    return [learning_rate(made, step, steps) for step in range(steps)]


def test_the_cosine_by_hand(make_spec: Callable[..., RunSpec]) -> None:
    # Two warm-up steps, then half a cosine over 8: cos(pi k / 8).
    rates = _rates(make_spec, 10, warmup_fraction=0.2, learning_rate=1.0)
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rates[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))


def test_without_warm_up_the_first_step_has_the_peak(make_spec: Callable[..., RunSpec]) -> None:
    assert _rates(make_spec, 5, warmup_fraction=0.0, learning_rate=0.3)[0] == 0.3
    constant = _rates(make_spec, 5, warmup_fraction=0.0, learning_rate=0.3, schedule="constant")
    assert constant == [0.3] * 5


@given(
    steps=st.integers(1, 200),
    warmup=st.floats(0, 1, exclude_max=True),
    schedule=st.sampled_from(["cosine", "constant"]),
    peak=st.floats(1e-6, 10),
)
def test_it_rises_to_the_peak_and_falls_and_never_stands_still(
    make_spec: Callable[..., RunSpec], steps: int, warmup: float, schedule: str, peak: float
) -> None:
    rates = _rates(make_spec, steps, warmup_fraction=warmup, schedule=schedule, learning_rate=peak)
    assert min(rates) > 0
    assert max(rates) == pytest.approx(peak, rel=1e-12)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    fall = [round(rate / peak, 12) for rate in rates[top:]]
    assert fall == sorted(fall, reverse=True)


def test_the_streams_of_one_seed_for_all_time() -> None:
    # A change here changes every number of every run.
    assert {s.name: int(s) for s in Stream} == {
        "HEAD": 1, "ORDER": 2, "AUGMENTATION": 3, "DROPOUT": 4, "VIEWS": 5,
    }  # fmt: skip
    assert generator(7, Stream.ORDER, 3).integers(0, 1000, 4).tolist() == [298, 899, 711, 135]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.sampled_from(list(Stream)), st.integers(0, 10**6)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_no_two_streams_are_the_same_and_each_repeats(
    pair: list[tuple[int, Stream, int]],
) -> None:
    first, second = (generator(*arguments).integers(0, 2**62, 8) for arguments in pair)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, generator(*pair[0]).integers(0, 2**62, 8))
