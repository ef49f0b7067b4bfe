"""The comparison with a stored baseline: it gives suspicion, never a verdict.

A machine drifts between two sessions (temperature, neighbours, the kernel's caches) without any
slowdown of the code, so launches of today against launches of last month cannot prove one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from scipy import stats

from bench.errors import UserError, number_of
from bench.gate.circumstances import Differences, condition_differences, differing_knobs
from bench.gate.decision import ComparedBenchmark
from bench.gate.design import LEVEL
from bench.gate.statistics import Estimate, holm, unpaired
from bench.spec.base import Frozen
from bench.speed.baseline import Baseline
from bench.speed.software import MUST_AGREE, software_differences
from bench.speed.values import benchmark_name, value_of
from bench.system.machine_state import MachineState
from bench.workers.tasks import Software

LEAST_LAUNCHES = 3
"""Launches of a side below which the spread between launches is unknown."""
CLOCK_SHARE = 0.02
"""Difference of clocks that is named."""
Suspicion = Literal["suspicion", "faster", "same", "cannot tell"]


class BenchmarkSuspicion(ComparedBenchmark):
    """The comparison of a benchmark with a stored baseline."""

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
    null_arm: None = Field(default=None, description="Stored launches have no null arm.")
    false_alarm_rate: None = Field(default=None, description="A suspicion has none.")


def check_machine(before: Baseline, now: Mapping[str, Software]) -> None:
    """Raise UserError if software is not on the machine of a baseline; it names the field."""
    for backend in sorted({*before.software} & {*now}):
        for field in MUST_AGREE:
            pair = [getattr(side[backend], field) for side in (before.software, now)]
            _agree(field, pair[0], pair[1], before.name)
        if before.device != "cpu" and before.software[backend].gpu_uuid is None:
            raise UserError(
                f"Baseline '{before.name}' does not know its GPU: nvidia-smi did not list it.",
                "Identical cards differ; measure where nvidia-smi works.",
            )


def check_comparable(before: Baseline, now: Baseline) -> None:
    """Raise UserError if two baselines are about two machines or two kinds of work; it names the
    field."""
    for field in ("suite", "device"):
        _agree(field, getattr(before, field), getattr(now, field), before.name)
    check_machine(before, now.software)
    check_shapes(before, now.shapes)
    first, second = (_images(side) for side in (before, now))
    for name in sorted({*first} & {*second}):
        _agree(f"images of {name}", first[name], second[name], before.name)


def check_shapes(before: Baseline, now: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if cases of the same name differ in network, input, batch or the like, or if
    none is in common; it names the field.

    Args:
        now: Name of a case → its ``TimedCase.shape``.
    """
    for case in sorted({*before.shapes} & {*now}):
        _agree_in_shape(case, before.shapes[case], now[case], before.name)
    if not {*before.shapes} & {*now}:
        for case, shape in before.shapes.items():
            for other in now.values():
                if all(shape.get(f) == other.get(f) for f in ("backbone", "policy")):
                    _agree_in_shape(case, shape, other, before.name)
        raise UserError(
            f"Baseline '{before.name}' has no case in common with what is measured now."
        )


def _agree_in_shape(
    case: str, before: Mapping[str, Any], now: Mapping[str, Any], name: str
) -> None:
    for field in sorted({*before, *now}):
        _agree(f"{field} of {case}", before.get(field), now.get(field), name)


def _images(side: Baseline) -> dict[str, int]:
    """Return the images in the seconds of each benchmark."""
    return {
        benchmark_name(measure, case): count
        for launch in side.launches
        for case, answer in launch.cases.items()
        for measure, count in answer.images.items()
    }


def check_launches(side: Baseline) -> None:
    """Raise UserError if a benchmark has too few launches to know the spread between them."""
    for name, values in side.values().items():
        disturbed = side.disturbed().get(name, 0)
        if len(values) + disturbed < LEAST_LAUNCHES:
            raise UserError(
                f"Baseline '{side.name}' has {number_of(len(values), 'launch')} of {name}; the "
                f"spread between launches needs {LEAST_LAUNCHES}.",
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
    check_launches(before)
    check_launches(now)
    first, second = before.values(), now.values()
    names = [name for name in first if name in second]
    few = {n for n in names if min(len(first[n]), len(second[n])) < LEAST_LAUNCHES}
    estimates = {
        name: unpaired(*([math.log(s) for s in side[name]] for side in (first, second)))
        for name in names
        if name not in few
    }
    stuck = {name for name, estimate in estimates.items() if estimate.standard_error == 0}
    rejected = holm({n: e.p_value() for n, e in estimates.items() if n not in stuck}, LEVEL)
    verdicts = [
        _untold(name, before, now)
        if name in few
        else _suspect(name, estimates[name], name in rejected, margin, before, now, name in stuck)
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


def _untold(name: str, before: Baseline, now: Baseline) -> BenchmarkSuspicion:
    """Return the answer about a benchmark whose launches were disturbed."""
    counts = [side.disturbed().get(name, 0) for side in (before, now)]
    return BenchmarkSuspicion(
        name=name, ratio=None, interval=None, verdict="cannot tell",
        blocks=len(now.values()[name]), detectable=None,
        reason=f"launches were disturbed: {counts[0]} of the baseline, {counts[1]} of now",
    )  # fmt: skip


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
    """Return the slowdown whose estimate is significant, and past the margin, with probability 0.8:
    the sum of the least such estimate and of the 80 % quantile of its error."""
    if not estimate.standard_error:
        return None
    needed = float(stats.t.isf(LEVEL / 2, estimate.degrees_of_freedom)) * estimate.standard_error
    lucky = float(stats.t.isf(0.2, estimate.degrees_of_freedom)) * estimate.standard_error
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
    return found | _differing_clocks(before, now)


def _differing_clocks(before: Baseline, now: Baseline) -> Differences:
    """Return the median clocks of the cores and of the GPU in MHz, where they differ."""
    found: Differences = {}
    for field, clock_of in _CLOCKS.items():
        pair = []
        for side in (before, now):
            told = [
                clock
                for name in side.values()
                for windows in side.windows(name)
                for window in windows
                if (clock := clock_of(window.after)) is not None
            ]
            pair.append(round(statistics.median(told)) if told else None)
        first, second = pair
        if first and second and abs(second / first - 1) > CLOCK_SHARE:
            found[field] = [first, second]
    return found


_CLOCKS: dict[str, Callable[[MachineState], float | None]] = {
    "CPU clock in MHz": lambda state: state.cpu_mhz,
    "GPU clock in MHz": lambda state: None if state.gpu is None else state.gpu.sm_clock_mhz,
}
"""Name in messages → the clock in a state of the machine."""


def _first_launches(side: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for launch in side.launches:
        found.setdefault(launch.backend, launch)
    return found


def _knobs(side: Baseline, case: str) -> dict[str, Any]:
    answers: Sequence[Any] = [one.cases[case] for one in side.launches if case in one.cases]
    return dict(answers[0].knobs) if answers else {}
