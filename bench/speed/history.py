"""The history of a benchmark over stored baselines, and where it changed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ruptures
from pydantic import Field

from bench.errors import UserError, number_of
from bench.spec.base import Frozen
from bench.speed.baseline import Baseline, read_baseline
from bench.speed.software import software_differences
from bench.speed.values import case_of

LEAST_BASELINES = 2
PENALTY = 3.0
"""Gain in log-likelihood, in units of log n, that a further change must bring (a modified BIC:
Zhang and Siegmund 2007, Biometrics 63)."""
LEAST_CHANGE = 0.01
"""A change by less than this fraction is not reported."""


class Point(Frozen):
    """A benchmark in a baseline."""

    baseline: str
    recorded_at: str
    commit: str
    seconds: float = Field(description="Median over launches.")
    spread: float | None = Field(description="Standard deviation of the logs of launches.")
    launches: int


class Change(Frozen):
    """A moment at which a benchmark became slower or faster."""

    after: str = Field(description="Last baseline before it.")
    at: str = Field(description="First baseline after it.")
    recorded_at: str
    ratio: float = Field(description="Median time after it over that before it.")
    differs: dict[str, list[Any]] = Field(description="What differs between the two baselines.")


class BenchmarkHistory(Frozen):
    """A benchmark over time."""

    name: str
    machine: str = Field(description="Model, and on a GPU the identity, of the device.")
    points: tuple[Point, ...]
    changes: tuple[Change, ...]


def read_baselines(folder: Path) -> list[Baseline]:
    """Read all baselines of a folder, the oldest first.

    Raises:
        UserError: There are fewer than two, or one is damaged.
    """
    found = [read_baseline(path) for path in sorted(folder.glob("*.json"))]
    if len(found) < LEAST_BASELINES:
        raise UserError(
            f"'{folder}' holds {number_of(len(found), 'baseline')}; a history needs "
            f"{LEAST_BASELINES}.",
            "Store one: run_bench.py speed --save-baseline NAME",
        )
    return sorted(found, key=lambda baseline: baseline.recorded_at)


def histories(baselines: Sequence[Baseline]) -> list[BenchmarkHistory]:
    """Return the history of each benchmark on each machine; a benchmark with other shapes is
    another one."""
    series: dict[tuple[str, str, str], list[Baseline]] = {}
    for baseline in baselines:
        for name in baseline.values():
            case = case_of(name)
            shape = str(sorted(baseline.shapes[case].items()))
            series.setdefault((name, machine_words(baseline, case), shape), []).append(baseline)
    return [_history(name, machine, own) for (name, machine, _), own in sorted(series.items())]


def machine_words(baseline: Baseline, case: str) -> str:
    """Return what a case was measured on."""
    launch = next(one for one in baseline.launches if case in one.cases)
    software = baseline.software[launch.backend]
    identity = "" if software.gpu_uuid is None else f" ({software.gpu_uuid})"
    return f"{software.device_model}{identity}"


def _history(name: str, machine: str, baselines: Sequence[Baseline]) -> BenchmarkHistory:
    points = []
    for baseline in baselines:
        seconds = baseline.all_values()[name]
        logs = [math.log(value) for value in seconds]
        points.append(
            Point(
                baseline=baseline.name,
                recorded_at=baseline.recorded_at,
                commit=baseline.commit,
                seconds=statistics.median(seconds),
                spread=statistics.stdev(logs) if len(logs) > 1 else None,
                launches=len(seconds),
            )
        )
    changes = []
    edges = change_points([math.log(p.seconds) for p in points], [p.spread for p in points])
    bounds = [0, *edges, len(points)]
    for left, at, right in zip(bounds, bounds[1:], bounds[2:], strict=False):
        before = statistics.median(p.seconds for p in points[left:at])
        after = statistics.median(p.seconds for p in points[at:right])
        if abs(after / before - 1) < LEAST_CHANGE:
            continue
        changes.append(
            Change(
                after=points[at - 1].baseline,
                at=points[at].baseline,
                recorded_at=points[at].recorded_at,
                ratio=after / before,
                differs=_software_changes(baselines[at - 1], baselines[at], name),
            )
        )
    return BenchmarkHistory(
        name=name, machine=machine, points=tuple(points), changes=tuple(changes)
    )


def change_points(logs: Sequence[float], spreads: Sequence[float | None]) -> list[int]:
    """Return the indices at which a series of log times begins a new level.

    The levels that minimise the squared error plus a penalty for each are found exactly (PELT:
    Killick et al. 2012, JASA 107). The penalty is in units of the noise of a point: that between
    launches, or that between neighbouring points if it is larger.

    Args:
        logs: Log of the median time of each baseline.
        spreads: Standard deviation of the log times of each baseline's launches, if known.
    """
    if len(logs) < LEAST_BASELINES:
        return []
    known = [spread for spread in spreads if spread]
    steps = np.abs(np.diff(logs))
    # The median step between neighbours, as a standard deviation: changes are rare.
    neighbours = float(np.median(steps)) / (0.6745 * math.sqrt(2)) if len(steps) > 2 else 0.0
    noise = max(statistics.median(known) if known else 0.0, neighbours, 1e-4)
    signal = np.asarray(logs, np.float64).reshape(-1, 1)
    search = ruptures.Pelt(model="l2", min_size=1, jump=1).fit(signal)
    found = search.predict(pen=PENALTY * 2 * noise**2 * max(math.log(len(logs)), 1.0))
    return [int(index) for index in found[:-1]]


def _software_changes(before: Baseline, now: Baseline, name: str) -> dict[str, list[Any]]:
    case = case_of(name)
    backend = next(one.backend for one in now.launches if case in one.cases)
    found: dict[str, list[Any]] = {}
    if before.commit != now.commit:
        found["commit"] = [before.commit, now.commit]
    a, b = before.software.get(backend), now.software[backend]
    if a is not None:
        found |= software_differences(a, b)
    return found
