"""Plots as Plotly figures; the page sets the colours of their ground and text."""

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
    """For the page: name, title, caption and figure of each that has something to show."""
    made = [
        _scatter(found.groups, "accuracy_time", "Accuracy against training time", "fit_s",
                 "time of the fit in seconds, trials of --tune left out"),
        _scatter(found.groups, "accuracy_parameters", "Accuracy against trained parameters",
                 "trainable_parameters", "parameters that are trained"),
        learning_curves(found.groups),
        accuracy_by_size(found.groups),
        throughput(found.groups),
        time_parts(found.groups),
    ]  # fmt: skip
    return [one for one in made if one["figure"]["data"]]


@dataclass(frozen=True)
class Mark:
    """A cell in a plot of accuracy against a cost."""

    cell: SeedGroup
    cost: Estimate
    told: str
    """The cost in words."""
    is_unsteady: bool = False
    """Whether its cost is a time that is not to be compared."""


def _mark(cell: SeedGroup, field: str) -> Mark | None:
    """With an interval of the cost where it was measured and can be had, as the tables have it."""
    values = [row[field] for row in cell.rows]
    if not all(values):
        return None
    if field != "fit_s":
        mean = float(np.mean(values))
        cost = Estimate(mean, None, None, None, "models", len(values), 0)
        return Mark(cell, cost, f"{count(mean)} parameters")
    cost = intervals.mean_rate(values)
    if is_unsteady(cell):
        told = f"{spread(values, 's')}, {UNSTEADY_NAME}"
        return Mark(cell, without_interval(cost), told, is_unsteady=True)
    if shares_prefix(cell):
        cost = without_interval(cost)
    return Mark(cell, cost, measured(cost, "s"))


def _scatter(
    cells: Sequence[SeedGroup], name: str, title: str, field: str, cost: str
) -> dict[str, Any]:
    """Accuracy against a cost, a choice for each data set and recipe, with the front that nothing
    beats in both: one of other test images would say nothing."""
    looks = Looks(cells)
    marks = {id(c): mark for c in cells if (mark := _mark(c, field)) is not None}
    shown = [mark.cell for mark in marks.values()]
    traces: dict[str, list[Figure]] = {}
    for label, group in choices(shown, {*ANSWERS, *NETWORKS}, data_of).items():
        here = [marks[id(c)] for c in group]
        traces[label] = [*looks.legend(group), *_drawn(here, looks), *_fronts(here), *_struck(here)]
    caption = [
        f"Each mark is {looks.words(shown)}, seeds taken together; up and to the left is better."
    ]
    has_line = any(trace["mode"] == "lines" for group in traces.values() for trace in group)
    if has_line:
        caption.append(
            f"The grey line joins what nothing beats in both accuracy and {cost}, on the same test "
            "images and one machine. It goes by the estimates alone, whatever their intervals: "
            "points on it may be a tie."
        )
    timed = any(m.cost.low is not None for m in marks.values())
    caption.append(
        "Bars: 95% intervals" + ("; of times, over three seeds or more." if timed else ".")
    )
    if any(m.is_unsteady for m in marks.values()):
        left_out = " The line leaves them out." if has_line else ""
        caption.append(f"Crossed out: unsteady. {BUSY}{left_out}")
    across = log_axis(cost, [m.cost.value for m in marks.values()])
    made = plot(name, title, " ".join(caption), [], across, ACCURACY)
    return one_at_a_time(made, traces)


def _series(marks: Iterable[Mark]) -> dict[tuple[str, str, str], list[Mark]]:
    """By policy, backend and network."""
    groups: dict[tuple[str, str, str], list[Mark]] = {}
    for mark in marks:
        row = mark.cell.row
        key = policy_variant(mark.cell), row.spec.backend, row.spec.backbone
        groups.setdefault(key, []).append(mark)
    return groups


def _drawn(marks: Sequence[Mark], looks: Looks) -> list[Figure]:
    cells = [m.cell for m in marks]
    apart = {id(c): told for c, told in zip(cells, settings(cells), strict=True)}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": escaped(f"{policy}, {backend}"),
            "legendgroup": policy,
            "showlegend": False,
            "x": [m.cost.value for m in group],
            "y": [m.cell.top1.value for m in group],
            "error_x": error_bars([m.cost for m in group]),
            "error_y": error_bars([m.cell.top1 for m in group]),
            "text": [_words(m, apart[id(m.cell)]) for m in group],
            "hovertemplate": "%{text}",
            "marker": looks.marker(group[0].cell),
        }
        for (policy, backend, _), group in _series(marks).items()
    ]


def _words(mark: Mark, setting: str) -> str:
    """Over a mark."""
    first = [mark.cell.row.spec.backbone, setting]
    return f"{escaped(', '.join(filter(None, first)))}<br>{percent(mark.cell.top1)}, {mark.told}"


def _struck(marks: Sequence[Mark]) -> list[Figure]:
    """A cross over each that is unsteady."""
    busy = [m for m in marks if m.is_unsteady]
    one = {
        "type": "scatter",
        "mode": "markers",
        "name": UNSTEADY_NAME,
        "x": [m.cost.value for m in busy],
        "y": [m.cell.top1.value for m in busy],
        "marker": STRUCK,
        "hoverinfo": "skip",
    }
    return [one] if busy else []


def _fronts(marks: Sequence[Mark]) -> list[Figure]:
    """For each machine, for times of two have no front in common; of what is steady."""
    groups: dict[Any, list[Mark]] = {}
    for mark in marks:
        groups.setdefault(mark.cell.machine, []).append(mark)
    lines: list[Figure] = []
    for group, dash in zip(groups.values(), DASHES * len(groups), strict=False):
        front = pareto([(m.cost.value, m.cell.top1.value) for m in group if not m.is_unsteady])
        if len(front) > 1:
            place = group[0].cell.row.environment.device_model
            lines.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escaped(f"front on {place}" if len(groups) > 1 else "front"),
                    "x": [x for x, _ in front],
                    "y": [y for _, y in front],
                    "line": {"color": GREY, "width": 1.5, "dash": dash, "shape": "hv"},
                    "hoverinfo": "skip",
                }
            )
    return lines


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats, in ascending order: lower first numbers, higher second ones."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
