"""The comparison with a stored baseline: it gives suspicion, never a verdict.

A machine drifts between two sessions (temperature, neighbours, the kernel's caches) without any
slowdown of the code, so launches of today against launches of last month cannot prove one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from scipy import stats

from bench.errors import UserError
from bench.gate.circumstances import (
    MUST_AGREE,
    Differences,
    condition_differences,
    differing_knobs,
    software_differences,
)
from bench.gate.decision import ComparedBenchmark
from bench.gate.design import LEVEL
from bench.gate.statistics import Estimate, holm, unpaired
from bench.spec.base import Frozen
from bench.speed.baseline import Baseline
from bench.speed.launch import value_of

LEAST_LAUNCHES = 3
"""Launches of a side below which the spread between launches is unknown."""
Suspicion = Literal["suspicion", "faster", "same", "cannot tell"]


class BenchmarkSuspicion(ComparedBenchmark):
    """What a stored baseline lets suspect about a benchmark."""

    verdict: Suspicion


class BaselineResult(Frozen):
    """The answer of a comparison with a baseline."""

    verdict: Literal["faster", "same", "cannot tell"]
    is_suspicious: bool = Field(description="True if a benchmark seems to be slower.")
    benchmarks: tuple[BenchmarkSuspicion, ...]
    differs: Differences = Field(description="What differs, by field: before and now.")
    missing: tuple[str, ...] = Field(description="Benchmarks of the baseline alone.")
    added: tuple[str, ...] = Field(description="Benchmarks that the baseline lacks.")
    margin: float


def check_comparable(before: Baseline, now: Baseline) -> None:
    """Raise UserError if two baselines are about two machines or two kinds of work; it names the
    field."""
    for field in ("suite", "device"):
        _agree(field, getattr(before, field), getattr(now, field), before.name)
    for backend in sorted({*before.software} & {*now.software}):
        for field in MUST_AGREE:
            pair = [getattr(side.software[backend], field) for side in (before, now)]
            _agree(field, pair[0], pair[1], before.name)
    for case in sorted({*before.shapes} & {*now.shapes}):
        for field in sorted({*before.shapes[case], *now.shapes[case]}):
            pair = [side.shapes[case].get(field) for side in (before, now)]
            _agree(f"{field} of {case}", pair[0], pair[1], before.name)
    for side in (before, now):
        fewest = min((len(values) for values in side.values().values()), default=0)
        if fewest < LEAST_LAUNCHES:
            raise UserError(
                f"Baseline '{side.name}' has {fewest} launches of a benchmark; the spread between "
                f"launches needs {LEAST_LAUNCHES}.",
                f"Measure again: run_bench.py speed --launches 6 --save-baseline {side.name} "
                "--force",
            )


def _agree(field: str, before: Any, now: Any, name: str) -> None:
    if before != now:
        raise UserError(
            f"Not comparable with baseline '{name}': {field} was {before!r}, now it is {now!r}.",
            "Measure a baseline here: run_bench.py speed --save-baseline NAME",
        )


def compare_baselines(before: Baseline, now: Baseline, margin: float) -> BaselineResult:
    """Compare launches of two sessions by Welch's test on the logs of their times, with Holm's
    correction over the benchmarks.

    Raises:
        UserError: They cannot be compared.
    """
    check_comparable(before, now)
    first, second = before.values(), now.values()
    names = [name for name in first if name in second]
    estimates = {
        name: unpaired(*([math.log(s) for s in side[name]] for side in (first, second)))
        for name in names
    }
    stuck = {name for name, estimate in estimates.items() if estimate.error == 0}
    rejected = holm({n: e.p_value() for n, e in estimates.items() if n not in stuck}, LEVEL)
    verdicts = [
        _suspect(name, estimates[name], name in rejected, margin, before, now, name in stuck)
        for name in names
    ]
    given = {one.verdict for one in verdicts}
    is_suspicious = "suspicion" in given
    verdict: Literal["faster", "same", "cannot tell"] = "same"
    if is_suspicious or "cannot tell" in given or not verdicts:
        verdict = "cannot tell"
    elif "faster" in given:
        verdict = "faster"
    return BaselineResult(
        verdict=verdict,
        is_suspicious=is_suspicious,
        benchmarks=tuple(verdicts),
        differs=_differences(before, now),
        missing=tuple(sorted(first.keys() - second.keys())),
        added=tuple(sorted(second.keys() - first.keys())),
        margin=margin,
    )


def _suspect(
    name: str, estimate: Estimate, is_rejected: bool, margin: float, before: Baseline,
    now: Baseline, is_stuck: bool,
) -> BenchmarkSuspicion:  # fmt: skip
    edge = math.log1p(margin)
    low, high = estimate.interval(LEVEL)
    verdict: Suspicion = "cannot tell"
    reason = None
    if is_stuck:
        reason = "every launch took exactly the same time: the clock stands still"
    elif is_rejected and abs(estimate.mean) > edge:
        verdict = "suspicion" if estimate.mean > 0 else "faster"
    elif -edge <= math.log(low) and math.log(high) <= edge:
        verdict = "same"
    else:
        reason = "the launches vary too much"
    return BenchmarkSuspicion(
        name=name, ratio=estimate.ratio, interval=(low, high), verdict=verdict,
        blocks=len(now.values()[name]), detectable=_detectable(estimate, margin),
        cycles_ratio=_cycles_ratio(name, estimate, before, now), reason=reason,
    )  # fmt: skip


def _detectable(estimate: Estimate, margin: float) -> float | None:
    """Return the slowdown whose estimate is significant, and past the margin, in 80 %."""
    if not estimate.error:
        return None
    needed = float(stats.t.isf(LEVEL / 2, estimate.freedom)) * estimate.error
    lucky = float(stats.t.isf(0.2, estimate.freedom)) * estimate.error
    return math.expm1(max(needed, math.log1p(margin)) + lucky)


def _cycles_ratio(name: str, estimate: Estimate, before: Baseline, now: Baseline) -> float | None:
    clocks = []
    for side in (before, now):
        found = [value_of(windows).sm_clock_mhz for windows in side.windows(name)]
        told = [clock for clock in found if clock is not None]
        if not told:
            return None
        clocks.append(statistics.median(told))
    return estimate.ratio * clocks[1] / clocks[0]


def _differences(before: Baseline, now: Baseline) -> Differences:
    found: Differences = {}
    if before.commit != now.commit:
        found["commit"] = [before.commit, now.commit]
    for backend in sorted({*before.software} & {*now.software}):
        for field, pair in software_differences(
            before.software[backend], now.software[backend]
        ).items():
            found.setdefault(field, pair)
    first, second = (_first_launches(side) for side in (before, now))
    for backend in sorted({*first} & {*second}):
        a, b = first[backend].conditions, second[backend].conditions
        if a is not None and b is not None:
            found |= condition_differences(a, b)
    for case in sorted({*before.shapes} & {*now.shapes}):
        found |= differing_knobs(_knobs(before, case), _knobs(now, case))
    return found


def _first_launches(side: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for launch in side.launches:
        found.setdefault(launch.backend, launch)
    return found


def _knobs(side: Baseline, case: str) -> dict[str, Any]:
    answers: Sequence[Any] = [one.cases[case] for one in side.launches if case in one.cases]
    return dict(answers[0].knobs) if answers else {}
