"""Plots of accuracy against time and parameters, and the list of all plots of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.analysis import intervals
from bench.analysis.findings import Findings
from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.analysis.speed import is_unsteady, shares_prefix, without_interval
from bench.report.format import count, measured, percent, spread
from bench.report.labels import ANSWERS, NETWORKS, choices, data_of, settings
from bench.report.plots.curves import accuracy_by_size, learning_curves
from bench.report.plots.style import (
    BUSY,
    DASHES,
    GREY,
    STRUCK,
    UNSTEADY_NAME,
    Figure,
    Looks,
    axis,
    error_bars,
    escaped,
    log_axis,
    one_at_a_time,
    plot,
)
from bench.report.plots.throughput import throughput
from bench.report.plots.time import time_parts

ACCURACY = axis("test top-1", tickformat=".0%")


def plots(found: Findings) -> list[dict[str, Any]]:
    """Return name, title, caption and Plotly figure of each plot that is not empty."""
    made = [
        _scatter(found.groups, "accuracy_time", "Accuracy against training time", "fit_s",
                 "time of the fit in seconds, without trials of --tune"),
        _scatter(found.groups, "accuracy_parameters", "Accuracy against trained parameters",
                 "trainable_parameters", "trained parameters"),
        learning_curves(found.groups),
        accuracy_by_size(found.groups),
        throughput(found.groups),
        time_parts(found.groups),
    ]  # fmt: skip
    return [one for one in made if one["figure"]["data"]]


@dataclass(frozen=True)
class Mark:
    """A seed group in a plot of accuracy against a cost."""

    group: SeedGroup
    cost: Estimate
    cost_text: str
    """The cost in words."""
    is_unsteady: bool = False
    """True if the cost is a time that must not be compared."""


def _mark(group: SeedGroup, field: str) -> Mark | None:
    """Return a mark with the cost as the tables have it; None if a run lacks the cost."""
    values = [row[field] for row in group.rows]
    if not all(values):
        return None
    if field != "fit_s":
        mean = float(np.mean(values))
        cost = Estimate(mean, None, None, None, "models", len(values), 0)
        return Mark(group, cost, f"{count(mean)} parameters")
    cost = intervals.mean_rate(values)
    if is_unsteady(group):
        cost_text = f"{spread(values, 's')}, {UNSTEADY_NAME}"
        return Mark(group, without_interval(cost), cost_text, is_unsteady=True)
    if shares_prefix(group):
        cost = without_interval(cost)
    return Mark(group, cost, measured(cost, "s"))


def _scatter(
    groups: Sequence[SeedGroup], name: str, title: str, field: str, cost: str
) -> dict[str, Any]:
    """Return a plot of accuracy against a cost, with a Pareto front. There is a choice for each
    data set and recipe, since accuracies on other test images are not comparable."""
    looks = Looks(groups)
    marks = {id(c): mark for c in groups if (mark := _mark(c, field)) is not None}
    shown = [mark.group for mark in marks.values()]
    traces: dict[str, list[Figure]] = {}
    for label, members in choices(shown, {*ANSWERS, *NETWORKS}, data_of).items():
        here = [marks[id(c)] for c in members]
        traces[label] = [
            *looks.legend(members),
            *_drawn(here, looks),
            *_fronts(here),
            *_struck(here),
        ]
    caption = [
        f"Each mark is {looks.words(shown)}, averaged over seeds. Up and to the left is better."
    ]
    has_line = any(trace["mode"] == "lines" for drawn in traces.values() for trace in drawn)
    if has_line:
        caption.append(
            "The grey line is the Pareto front of each machine: nothing has both higher accuracy "
            f"and lower cost ({cost}). It ignores the intervals, so points on it may be tied."
        )
    timed = any(m.cost.low is not None for m in marks.values())
    caption.append(
        "Bars: 95% intervals" + ("; for times, if there are three seeds or more." if timed else ".")
    )
    if any(m.is_unsteady for m in marks.values()):
        left_out = " They are not on the line." if has_line else ""
        caption.append(f"Crossed out: unsteady. {BUSY}{left_out}")
    across = log_axis(cost, [m.cost.value for m in marks.values()])
    made = plot(name, title, " ".join(caption), [], across, ACCURACY)
    return one_at_a_time(made, traces)


def _series(marks: Iterable[Mark]) -> dict[tuple[str, str, str], list[Mark]]:
    """Group marks by policy, backend and network."""
    series: dict[tuple[str, str, str], list[Mark]] = {}
    for mark in marks:
        row = mark.group.row
        key = policy_variant(mark.group), row.spec.backend, row.spec.backbone
        series.setdefault(key, []).append(mark)
    return series


def _drawn(marks: Sequence[Mark], looks: Looks) -> list[Figure]:
    groups = [m.group for m in marks]
    setting = {id(c): text for c, text in zip(groups, settings(groups), strict=True)}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": escaped(f"{policy}, {backend}"),
            "legendgroup": policy,
            "showlegend": False,
            "x": [m.cost.value for m in series],
            "y": [m.group.top1.value for m in series],
            "error_x": error_bars([m.cost for m in series]),
            "error_y": error_bars([m.group.top1 for m in series]),
            "text": [_words(m, setting[id(m.group)]) for m in series],
            "hovertemplate": "%{text}",
            "marker": looks.marker(series[0].group),
        }
        for (policy, backend, _), series in _series(marks).items()
    ]


def _words(mark: Mark, setting: str) -> str:
    first = [mark.group.row.spec.backbone, setting]
    return (
        f"{escaped(', '.join(filter(None, first)))}<br>{percent(mark.group.top1)}, {mark.cost_text}"
    )


def _struck(marks: Sequence[Mark]) -> list[Figure]:
    """Return a cross over each unsteady mark."""
    busy = [m for m in marks if m.is_unsteady]
    one = {
        "type": "scatter",
        "mode": "markers",
        "name": UNSTEADY_NAME,
        "x": [m.cost.value for m in busy],
        "y": [m.group.top1.value for m in busy],
        "marker": STRUCK,
        "hoverinfo": "skip",
    }
    return [one] if busy else []


def _fronts(marks: Sequence[Mark]) -> list[Figure]:
    """Return the front of the steady marks of each machine: times of two are not comparable."""
    by_machine: dict[Any, list[Mark]] = {}
    for mark in marks:
        by_machine.setdefault(mark.group.machine, []).append(mark)
    lines: list[Figure] = []
    for here, dash in zip(by_machine.values(), DASHES * len(by_machine), strict=False):
        front = pareto([(m.cost.value, m.group.top1.value) for m in here if not m.is_unsteady])
        if len(front) > 1:
            place = here[0].group.row.environment.device_model
            lines.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escaped(f"front on {place}" if len(by_machine) > 1 else "front"),
                    "x": [x for x, _ in front],
                    "y": [y for _, y in front],
                    "line": {"color": GREY, "width": 1.5, "dash": dash, "shape": "hv"},
                    "hoverinfo": "skip",
                }
            )
    return lines


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats, ascending; low first and high second numbers win."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
