"""Numbers as text, rounded to their uncertainty."""

from __future__ import annotations

import pytest

from bench.analysis.intervals import Estimate
from bench.errors import number_of
from bench.report.format import listed, measured, percent, places, points, times


def estimate(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value, low, high, None, "models", 1, 100)


@pytest.mark.parametrize(
    ("half_width", "digits"),
    [
        (3.13, 0),
        (2.13, 1),
        (1.94, 1),
        (0.96, 1),
        (0.14, 2),
        (0.03, 2),
        (25.0, 0),
        (0.00001, 3),
        (0.0, 1),
    ],
)
def test_one_digit_of_the_uncertainty_two_where_it_begins_with_1_or_2(
    half_width: float, digits: int
) -> None:
    assert places(half_width) == digits


def test_accuracies_and_differences() -> None:
    assert percent(estimate(0.8581, 0.8386, 0.8766)) == "85.8 ± 1.9%"
    assert percent(estimate(0.8581, 0.81, 0.91)) == "86 ± 5%"
    assert percent(estimate(1.0, 0.912, 1.0)) == "100% (91 to 100)"  # ± would hide half of it
    assert percent(estimate(0.75, None, None)) == "75.0%"
    assert points(estimate(0.0141, -0.0031, 0.0311)) == "+1.4 points (−0.3 to 3.1)"
    assert points(estimate(-0.2, -0.22, -0.18)) == "−20.0 points (−22.0 to −18.0)"
    assert points(estimate(0.0, None, None)) == "0.0 points"


def test_an_interval_that_leaves_out_none_shows_it() -> None:
    assert points(estimate(0.03, 0.002, 0.058)) == "+3.0 points (0.2 to 5.8)"
    assert points(estimate(-0.03, -0.058, -0.0004)) == "−3.00 points (−5.80 to −0.04)"
    assert points(estimate(0.03, -0.002, 0.06)) == "+3 points (0 to 6)"
    assert times(estimate(1.1, 1.02, 20.0)) == "1.10 × (1.02 to 20.00)"
    assert times(estimate(0.7, 0.3, 0.99)) == "0.70 × (0.30 to 0.99)"


def test_ratios_and_rates() -> None:
    assert times(estimate(1.234, 1.18, 1.29)) == "1.23 × (1.18 to 1.29)"
    assert times(estimate(0.5, None, None)) == "0.5 ×"
    assert measured(estimate(1234.5, 1200.0, 1270.0)) == "1,230 ± 40"
    assert measured(estimate(250.0, 225.0, 275.0)) == "250 ± 25"
    assert measured(estimate(1000.0, 980.0, 1100.0)) == "1,000 (980 to 1,100)"
    assert measured(estimate(18.1, 6.5, 50.2), "s") == "18 (6 to 51) s"
    assert measured(estimate(1234.5, 1219.5, 1249.5)) == "1,234 ± 15"
    assert measured(estimate(1234.5, 1199.0, 1270.0), "s") == "1,230 ± 40 s"
    assert measured(estimate(673.2, 84.3, 5712.0)) == "670 (80 to 5,720)"
    assert measured(estimate(205.4, None, None)) == "205"


def test_lists_and_numbers() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert (number_of(1, "run"), number_of(1200, "run")) == ("1 run", "1,200 runs")
