"""Rules by which others call a benchmark slower, on the samples of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from scipy import stats


class Sample(NamedTuple):
    """The seconds of all windows of a benchmark, by launch."""

    a: Sequence[Sequence[float]]
    b: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Rule:
    """A rule with its source."""

    name: str
    is_slower: Callable[[Sample], bool]


def _all(launches: Sequence[Sequence[float]]) -> list[float]:
    return [seconds for launch in launches for seconds in launch]


def _torchbench(sample: Sample) -> bool:
    """Compare one launch of each side (pytorch/benchmark, regression detector: 7 %)."""
    return median(sample.b[0]) > 1.07 * median(sample.a[0])


def _means(sample: Sample) -> bool:
    return fmean(_all(sample.b)) > 1.05 * fmean(_all(sample.a))


def _medians(sample: Sample) -> bool:
    return median(_all(sample.b)) > 1.15 * median(_all(sample.a))


def _asv(sample: Sample) -> bool:
    """Mann and Whitney's test at 0.002 and a factor of 1.1 (asv, commands/compare.py)."""
    a, b = _all(sample.a), _all(sample.b)
    is_significant = stats.mannwhitneyu(a, b, alternative="two-sided").pvalue < 0.002
    return bool(is_significant) and median(b) > 1.1 * median(a)


def _pytest_benchmark(sample: Sample) -> bool:
    """``--benchmark-compare-fail=median:5%``."""
    return median(_all(sample.b)) > 1.05 * median(_all(sample.a))


def _welch(sample: Sample) -> bool:
    """Welch's test over windows at 5 %, as if they were independent."""
    found = stats.ttest_ind(_all(sample.b), _all(sample.a), equal_var=False)
    return bool(found.pvalue < 0.05 and found.statistic > 0)


RULES = (
    Rule("one launch, 7 % (torchbench)", _torchbench),
    Rule("means, 5 %", _means),
    Rule("medians, 15 %", _medians),
    Rule("Mann–Whitney and 10 % (asv)", _asv),
    Rule("median:5% (pytest-benchmark)", _pytest_benchmark),
    Rule("Welch over windows", _welch),
)
