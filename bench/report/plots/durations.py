"""The plot of how the time of a run is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.analysis.groups import SeedGroup
from bench.analysis.rows import Row
from bench.analysis.speed import is_unsteady, shares_prefix
from bench.report.labels import ANSWERS, HASH_DIGITS, choices, question_name, settings
from bench.report.plots import style
from bench.report.plots.style import Figure

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
START, START_COLOUR = "start of a worker", style.COLOURS[7]


def _parts_of_runs(group: SeedGroup) -> list[dict[str, float]]:
    """Return the seconds of each run by part, as far as measured; input is separate if every run
    measured the wait for it. Each run must have a time of its own."""
    waits = [row.result.input_wait_fraction for row in group.rows]
    runs = []
    for row, wait in zip(group.rows, waits, strict=True):
        names = ("setup_s", "compile_s", "prefix_s", "test_s")
        parts = {name: float(row[name]) for name in names if row[name] is not None}
        inside = parts.get("compile_s", 0.0) + parts.get("prefix_s", 0.0)
        rest = max(row["fit_s"] - inside, 0.0)
        if wait is None or None in waits:
            runs.append({**parts, "rest_s": rest})
        else:
            runs.append({**parts, "input_s": rest * wait, "compute_s": rest - rest * wait})
    return runs


def time_parts(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return a plot with a choice for each question, without parts that were not measured."""
    kept = [c for c in groups if all(row.result.fit_s is not None for row in c.rows)]
    traces: dict[str, list[Figure]] = {}
    most = 0
    for label, members in choices(kept, ANSWERS, question_name).items():
        starts = _starts([row for c in members for row in c.rows])
        most = max(most, len(members) + len(starts))
        means = [float(np.mean(values)) for values in starts.values()]
        texts = [f"{START}: {np.mean(v):.2f} s, mean of {len(v)}" for v in starts.values()]
        traces[label] = _stacks(members)
        if starts:
            traces[label].append(style.bars(START, y=list(starts), x=means, text=texts,
                                            marker={"color": START_COLOUR}))  # fmt: skip
        if any(map(is_unsteady, members)):
            traces[label].append(style.legend_of_hatching())
    axes = style.axis("seconds"), style.DOWNWARD
    return style.plot("time_parts", "Where the time goes", _caption(kept), traces, axes,
                      barmode="stack", height=max(320, 150 + 34 * most))  # fmt: skip


def _stacks(groups: Sequence[SeedGroup]) -> list[Figure]:
    """Return a trace for each part, the mean over the runs that have it."""
    names = [style.trace_name(c, own) for c, own in zip(groups, settings(groups), strict=True)]
    parts_of_runs = [_parts_of_runs(c) for c in groups]
    unsteady = [is_unsteady(c) for c in groups]
    drawn = []
    for (part, title), colour in zip(PARTS.items(), style.COLOURS, strict=False):
        values = [[parts[part] for parts in runs if part in parts] for runs in parts_of_runs]
        means = [float(np.mean(own)) if own else 0.0 for own in values]
        if any(means):
            texts = [_words(part, c, own) for c, own in zip(groups, values, strict=True)]
            marker = style.hatched(colour, unsteady)
            drawn.append(style.bars(title, y=names, x=means, marker=marker, text=texts))
    return drawn


def _words(part: str, group: SeedGroup, values: Sequence[float]) -> str:
    """Return the text on hovering over a part of a group's time."""
    if not values:
        return ""
    some = f" in {len(values)} of {len(group.rows)} runs" if len(values) < len(group.rows) else ""
    shared = "computed once for these runs" if part == "prefix_s" and shares_prefix(group) else ""
    unsteady = style.UNSTEADY_NAME if is_unsteady(group) else ""
    mean = f"{PARTS[part]}: {np.mean(values):.2f} s{some}"
    return "<br>".join(filter(None, [mean, shared, unsteady]))


def _starts(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the seconds of each start of a worker, by backend and environment."""
    environments = {(row.spec.backend, row.result.environment_id) for row in rows}
    several = Counter(backend for backend, _ in environments)
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.result.start_s is not None:
            name = f"{START}, {row.spec.backend}"
            if several[row.spec.backend] > 1:
                name += f", environment {row.result.environment_id[:HASH_DIGITS]}"
            found.setdefault(style.escaped(name), []).append(row.result.start_s)
    return found


def _caption(groups: Sequence[SeedGroup]) -> dict[str, object]:
    """Return the caption: explain what is drawn, and name what was not measured."""
    rows = [row for c in groups for row in c.rows]
    found = {part for c in groups for p in _parts_of_runs(c) for part, s in p.items() if s}
    starts = sum(row.result.start_s is not None for row in rows)
    compiled = any(row.result.compile_s is not None for row in rows)
    tuned = [bool(row.tune) for row in rows]
    return {
        "Arithmetic means over the seeds that have the part, so that parts add up.": True,
        "Compile: first step − median step.": "compile_s" in found,
        "Frozen part: computing its values once.": "prefix_s" in found,
        "Seeds that shared these values each show the whole time, as if run alone.":
            any(map(shares_prefix, groups)),
        "Input: the fraction of steady steps spent waiting for data, applied to the fit.":
            "input_s" in found,
        f"“{PARTS['rest_s']}”: the wait for input was not measured.": "rest_s" in found,
        "The start of a worker is separate, since a worker does many runs. It is the mean of the "
        f"runs that started one, {starts} of {len(rows)}.": starts,
        "Compilation was not measured: it took place in the trials of --tune.":
            not compiled and all(tuned),
        "Compilation was not measured.": not compiled and not all(tuned),
        "Trials of --tune are not shown.": any(tuned),
        style.HATCHED: any(map(is_unsteady, groups)),
    }  # fmt: skip
