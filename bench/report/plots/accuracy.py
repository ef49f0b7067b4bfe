"""Plots of accuracy against time and parameters, and the list of all plots of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from bench.analysis import intervals
from bench.analysis.findings import Findings
from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.analysis.rows import grouped
from bench.analysis.speed import is_unsteady, shares_prefix, without_interval
from bench.report.format import percent
from bench.report.labels import ANSWERS, NETWORKS, choices, data_of, settings
from bench.report.plots import style
from bench.report.plots.curves import accuracy_by_size, learning_curves
from bench.report.plots.durations import time_parts
from bench.report.plots.style import Figure
from bench.report.plots.throughput import throughput
from bench.report.tables.speeds import fit_cell


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
        return Mark(group, cost, f"{mean:,.0f} parameters")
    cost, busy = intervals.mean_rate(values), is_unsteady(group)
    if busy or shares_prefix(group):
        cost = without_interval(cost)
    return Mark(group, cost, fit_cell(group).text, busy)


def _scatter(
    groups: Sequence[SeedGroup], name: str, title: str, field: str, cost: str
) -> dict[str, Any]:
    """Return a plot of accuracy against a cost, with a Pareto front. There is a choice for each
    data set and recipe, since accuracies on other test images are not comparable."""
    looks = style.Looks(groups)
    marks = {group: mark for group in groups if (mark := _mark(group, field)) is not None}
    traces: dict[str, list[Figure]] = {}
    for label, members in choices(list(marks), {*ANSWERS, *NETWORKS}, data_of).items():
        here = [marks[group] for group in members]
        busy = [mark for mark in here if mark.is_unsteady]
        traces[label] = [*looks.legend(members), *_drawn(here, looks), *_fronts(here)]
        if busy:
            traces[label].append(style.scatter("markers", style.UNSTEADY_NAME, **_places(busy),
                                               marker=style.STRUCK, hoverinfo="skip"))  # fmt: skip
    has_line = any(trace["mode"] == "lines" for drawn in traces.values() for trace in drawn)
    timed = any(mark.cost.low is not None for mark in marks.values())
    unsteady = any(mark.is_unsteady for mark in marks.values())
    caption = {
        f"Each mark is {looks.words(list(marks))}, averaged over seeds. Up and to the left is "
        "better.": True,
        "The grey line is the Pareto front of each machine: nothing has both higher accuracy and "
        f"lower cost ({cost}). It ignores the intervals, so points on it may be tied.": has_line,
        "Bars: 95% intervals; for times, if there are three seeds or more.": timed,
        "Bars: 95% intervals.": not timed,
        f"Crossed out: unsteady. {style.BUSY}": unsteady,
        "They are not on the line.": unsteady and has_line,
    }
    across = style.log_axis(cost, [mark.cost.value for mark in marks.values()])
    return style.plot(name, title, caption, traces, (across, style.ACCURACY))


def _places(marks: Sequence[Mark]) -> dict[str, list[float]]:
    return {"x": [m.cost.value for m in marks], "y": [m.group.top1.value for m in marks]}


def _drawn(marks: Sequence[Mark], looks: style.Looks) -> list[Figure]:
    """Return a trace for each policy, backend and network."""

    def series(mark: Mark) -> tuple[str, str, str]:
        spec = mark.group.row.spec
        return policy_variant(mark.group), spec.backend, spec.backbone

    texts = {}
    for mark, setting in zip(marks, settings([mark.group for mark in marks]), strict=True):
        name = ", ".join(filter(None, (mark.group.row.spec.backbone, setting)))
        accuracy = percent(mark.group.top1)
        texts[mark.group] = f"{style.escaped(name)}<br>{accuracy}, {mark.cost_text}"
    return [
        style.scatter("markers", style.trace_name(same[0].group), **_places(same),
                      error_x=style.error_bars([mark.cost for mark in same]),
                      error_y=style.error_bars([mark.group.top1 for mark in same]),
                      marker=looks.marker(same[0].group), legendgroup=policy, showlegend=False,
                      text=[texts[mark.group] for mark in same], hovertemplate="%{text}")
        for (policy, _, _), same in grouped(marks, series).items()
    ]  # fmt: skip


def _fronts(marks: Sequence[Mark]) -> list[Figure]:
    """Return the front of the steady marks of each machine: times of two are not comparable."""
    machines = grouped(marks, lambda mark: mark.group.machine).values()
    lines = []
    for here, dash in zip(machines, cycle(style.DASHES), strict=False):
        front = pareto([(m.cost.value, m.group.top1.value) for m in here if not m.is_unsteady])
        if len(front) > 1:
            place = f" on {here[0].group.row.environment.device_model}" * (len(machines) > 1)
            line = {"color": style.GREY, "width": 1.5, "dash": dash, "shape": "hv"}
            lines.append(style.scatter("lines", style.escaped(f"front{place}"), line=line,
                                       x=[x for x, _ in front], y=[y for _, y in front],
                                       hoverinfo="skip"))  # fmt: skip
    return lines


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats, ascending; low first and high second numbers win."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
