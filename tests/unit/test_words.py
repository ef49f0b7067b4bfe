"""Numbers as text."""

from __future__ import annotations

import pytest

from bench.analysis.intervals import Estimate
from bench.errors import number_of
from bench.report.format import (
    ends,
    listed,
    margin_words,
    percent,
    points,
    ratio,
    relative_time,
    seconds,
    share,
    some_of,
    times,
)


def test_accuracies_and_differences() -> None:
    assert percent(Estimate(0.8581, 0.8386, 0.8766)) == "85.8 ± 1.9%"
    assert percent(Estimate(0.8581, 0.74, 0.98)) == "86 ± 12%"
    assert percent(Estimate(1.0, 0.912, 1.0)) == "100.0% (91.2 to 100.0)"  # ± would hide half of it
    assert percent(Estimate(0.75)) == "75.0%"
    assert points(Estimate(0.0141, -0.0031, 0.0311)) == "+1.4 points (−0.3 to 3.1)"
    assert points(Estimate(-0.2, -0.22, -0.18)) == "−20.0 points (−22.0 to −18.0)"
    assert points(Estimate(0.0)) == "0.0 points"


def test_an_interval_that_leaves_out_none_shows_it() -> None:
    assert points(Estimate(0.03, 0.002, 0.058)) == "+3.0 points (0.2 to 5.8)"
    assert points(Estimate(-0.03, -0.058, -0.0004)) == "−3.0 points (−5.80 to −0.04)"
    assert ends(Estimate(1.1, 1.002, 1.2, is_ratio=True), 1.0, 1.0, 2) == "(1.002 to 1.200)"
    assert ends(Estimate(0.03, -0.0002, 0.06)) == "(0.0 to 6.0)"
    assert ends(Estimate(0.03)) == ""


def test_ratios_and_times() -> None:
    assert times(Estimate(1.234, 1.18, 1.29, is_ratio=True)) == "1.23 × (1.18 to 1.29)"
    assert times(Estimate(0.5, is_ratio=True)) == "0.50 ×"
    assert [ratio(value) for value in (0.012, 1.0, 12.34)] == ["0.012", "1.00", "12.3"]
    assert [seconds(value) for value in (0.5, 41.94, 1234.0, 25_000.0, 90_000.0)] == [
        "0.5 s", "41.9 s", "21 minutes", "6.9 hours", "25 hours"
    ]  # fmt: skip
    assert [share(value) for value in (0.0, 0.004, 0.394, 1.02)] == [
        "<1 %",
        "<1 %",
        "39 %",
        "102 %",
    ]
    assert [relative_time(value) for value in (0.394, 1.02, 2.0, 19.81)] == [
        "39 %", "102 %", "2 ×", "19.8 ×"
    ]  # fmt: skip


@pytest.mark.parametrize(("margin", "words"), [(0.01, "1 point"), (0.005, "0.5 points"),
                                               (0.02, "2 points")])  # fmt: skip
def test_a_margin_is_in_points(margin: float, words: str) -> None:
    assert margin_words(margin) == words


def test_lists_and_numbers() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert some_of(["a", "b", "c"], 2) == "a, b and 1 more"
    assert (number_of(1, "run"), number_of(1200, "run")) == ("1 run", "1,200 runs")
