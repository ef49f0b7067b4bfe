"""Rules by which others call a benchmark slower, on the samples of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from scipy import stats


class Sample(NamedTuple):
    """The seconds of all windows of a benchmark, by launch."""

    a: list[list[float]]
    b: list[list[float]]


@dataclass(frozen=True)
class Rule:
    """A rule with its source."""

    name: str
    source: str
    is_slower: Callable[[Sample], bool]
    """Return True if the rule calls B slower than A."""


def _all(launches: Sequence[Sequence[float]]) -> list[float]:
    return [seconds for launch in launches for seconds in launch]


def _ratio_above(limit: float, average: Callable[[list[float]], float]) -> Callable[[Sample], bool]:
    """Return the rule that compares the averages of all windows with a limit."""
    return lambda sample: average(_all(sample.b)) > limit * average(_all(sample.a))


def _first_launch(sample: Sample) -> bool:
    """Compare one launch of each side with a limit of 7 %."""
    return median(sample.b[0]) > 1.07 * median(sample.a[0])


def _mann_whitney(sample: Sample) -> bool:
    """Test all windows by ranks at 0.002, and ask for a factor of 1.1."""
    a, b = _all(sample.a), _all(sample.b)
    is_significant = stats.mannwhitneyu(a, b, alternative="two-sided").pvalue < 0.002
    return bool(is_significant) and median(b) > 1.1 * median(a)


def _welch(sample: Sample) -> bool:
    """Test all windows at 5 %, as if they were independent."""
    found = stats.ttest_ind(_all(sample.b), _all(sample.a), equal_var=False)
    return bool(found.pvalue < 0.05 and found.statistic > 0)


RULES = (
    Rule("one launch, 7 % (torchbench)", "pytorch/benchmark, regression detector", _first_launch),
    Rule("means, 5 %", "a rule of thumb", _ratio_above(1.05, fmean)),
    Rule("medians, 15 %", "PyTorch's performance dashboard", _ratio_above(1.15, median)),
    Rule("Mann–Whitney and 10 % (asv)", "asv, commands/compare.py", _mann_whitney),
    Rule("median:5% (pytest-benchmark)", "--benchmark-compare-fail", _ratio_above(1.05, median)),
    Rule("Welch over windows", "common practice", _welch),
)
