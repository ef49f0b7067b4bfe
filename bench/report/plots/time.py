"""The plot of how the time of a run is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.rows import Row
from bench.analysis.speed import is_unsteady, shares_prefix
from bench.report.labels import ANSWERS, HASH_DIGITS, choices, question_name, settings
from bench.report.plots.style import (
    COLOURS,
    HATCHED,
    UNSTEADY_NAME,
    Figure,
    axis,
    escaped,
    hatched,
    legend_of_hatching,
    one_at_a_time,
    plot,
)

PARTS = {
    "setup_s": "set-up",
    "compile_s": "compile",
    "prefix_s": "frozen part",
    "input_s": "input",
    "compute_s": "compute and validation",
    "rest_s": "compute, validation and input",
    "test_s": "test",
}
"""Part of a run's time → its name, in order."""
COLOUR_OF = {"start_s": COLOURS[7], **dict(zip(PARTS, COLOURS, strict=False))}
START = "start of a worker"


def parts_of(row: Row) -> dict[str, float]:
    """Return seconds by part, as far as measured; empty if the run has no time of its own."""
    if row.result.fit_s is None:
        return {}
    names = ("setup_s", "compile_s", "prefix_s", "test_s")
    found = {name: float(row[name]) for name in names if row[name] is not None}
    inside = found.get("compile_s", 0.0) + found.get("prefix_s", 0.0)
    rest = max(row.result.fit_s - inside, 0.0)
    if row.result.input_wait_fraction is None:
        return {**found, "rest_s": rest}
    waited = rest * row.result.input_wait_fraction
    return {**found, "input_s": waited, "compute_s": rest - waited}


def _parts_of_runs(group: SeedGroup) -> list[dict[str, float]]:
    """Return the parts of each run; input is separate if every run measured the wait for it."""
    parts = [parts_of(row) for row in group.rows]
    if not any("rest_s" in p for p in parts):
        return parts
    split = ("input_s", "compute_s", "rest_s")
    return [
        {**{n: s for n, s in p.items() if n not in split},
         "rest_s": sum(p.get(n, 0.0) for n in split)}
        for p in parts
    ]  # fmt: skip


TimedGroup = tuple[SeedGroup, Sequence[Mapping[str, float]]]


def time_parts(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return a plot with a choice for each question, without parts that were not measured."""
    kept = [c for c in groups if all(row.result.fit_s is not None for row in c.rows)]
    traces: dict[str, list[Figure]] = {}
    most = 0
    for label, members in choices(kept, ANSWERS, question_name).items():
        timed = [(c, _parts_of_runs(c)) for c in members]
        starts = _starts(members)
        most = max(most, len(members) + len(starts))
        hatch = [is_unsteady(c) for c in members]
        traces[label] = [
            *_stacks(timed, _names(members), hatch),
            *([_start_bars(starts)] if starts else []),
            *([legend_of_hatching(UNSTEADY_NAME)] if any(hatch) else []),
        ]
    made = plot(
        "time_parts",
        "Where the time goes",
        _caption(kept),
        [],
        axis("seconds"),
        {"automargin": True, "autorange": "reversed"},
    )
    made["figure"]["layout"] |= {"barmode": "stack", "height": max(320, 150 + 34 * most)}
    return one_at_a_time(made, traces)


def _names(groups: Sequence[SeedGroup]) -> list[str]:
    return [
        escaped(", ".join(filter(None, (policy_variant(c), c.row.spec.backend, apart))))
        for c, apart in zip(groups, settings(groups), strict=True)
    ]


def _stacks(
    timed: Sequence[TimedGroup], names: Sequence[str], hatch: Sequence[bool]
) -> list[Figure]:
    """Return a trace for each part, the mean over the runs that have it."""
    drawn: list[Figure] = []
    for part, title in PARTS.items():
        values = [[p[part] for p in parts if part in p] for _, parts in timed]
        means = [float(np.mean(own)) if own else 0.0 for own in values]
        if any(means):
            drawn.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": title,
                    "y": list(names),
                    "x": means,
                    "marker": hatched(COLOUR_OF[part], hatch),
                    "text": [_words(part, c, own, busy) for (c, _), own, busy
                             in zip(timed, values, hatch, strict=True)],
                    "textposition": "none",
                    "hovertemplate": "%{text}",
                }
            )  # fmt: skip
    return drawn


def _words(part: str, group: SeedGroup, values: Sequence[float], busy: bool) -> str:
    if not values:
        return ""
    some = f" in {len(values)} of {len(group.rows)} runs" if len(values) < len(group.rows) else ""
    shared = "computed once for these runs" if part == "prefix_s" and shares_prefix(group) else ""
    lines = [f"{PARTS[part]}: {np.mean(values):.2f} s{some}", shared]
    return "<br>".join(filter(None, [*lines, UNSTEADY_NAME if busy else ""]))


def _starts(groups: Sequence[SeedGroup]) -> dict[str, list[float]]:
    """Return the seconds of each start of a worker, by backend and environment."""
    rows = [row for c in groups for row in c.rows]
    places: dict[str, list[str]] = {}
    for row in rows:
        own = places.setdefault(row.spec.backend, [])
        own += [row.result.environment_id] if row.result.environment_id not in own else []
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.result.start_s is not None:
            several = len(places[row.spec.backend]) > 1
            where = f", environment {row.result.environment_id[:HASH_DIGITS]}" if several else ""
            name = escaped(f"{START}, {row.spec.backend}{where}")
            found.setdefault(name, []).append(row.result.start_s)
    return found


def _start_bars(starts: Mapping[str, Sequence[float]]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": START,
        "y": list(starts),
        "x": [float(np.mean(values)) for values in starts.values()],
        "marker": {"color": COLOUR_OF["start_s"]},
        "text": [f"{START}: {np.mean(v):.2f} s, mean of {len(v)}" for v in starts.values()],
        "textposition": "none",
        "hovertemplate": "%{text}",
    }


def _caption(groups: Sequence[SeedGroup]) -> str:
    """Return the caption: explain what is drawn, and name what was not measured."""
    rows = [row for c in groups for row in c.rows]
    found = {part for c in groups for p in _parts_of_runs(c) for part, s in p.items() if s}
    lines = ["Arithmetic means over the seeds that have the part, so that parts add up."]
    if "compile_s" in found:
        lines.append("Compile: first step − median step.")
    if "prefix_s" in found:
        lines.append("Frozen part: computing its values once.")
    if any(shares_prefix(c) for c in groups):
        lines.append("Seeds that shared these values each show the whole time, as if run alone.")
    if "input_s" in found:
        lines.append(
            "Input: the fraction of steady steps spent waiting for data, applied to the fit."
        )
    if "rest_s" in found:
        lines.append(f"“{PARTS['rest_s']}”: the wait for input was not measured.")
    if starts := sum(row.result.start_s is not None for row in rows):
        lines.append(
            "The start of a worker is separate, since a worker does many runs. It is the mean of "
            f"the runs that started one, {starts} of {len(rows)}."
        )
    if not any(row.result.compile_s is not None for row in rows):
        paid = all(row.tune for row in rows)
        lines.append(
            "Compilation was not measured"
            + (": it took place in the trials of --tune." if paid else ".")
        )
    if any(row.tune for row in rows):
        lines.append("Trials of --tune are not shown.")
    if any(is_unsteady(c) for c in groups):
        lines.append(HATCHED)
    return " ".join(lines)
