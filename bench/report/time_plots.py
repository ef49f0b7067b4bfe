"""Plots of speed and of where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.report.cells import Cell, contestant
from bench.report.figures import COLOURS, Figure, axis, escaped, plot
from bench.report.settings import settings
from bench.report.speeds import rate_of
from bench.report.twins import Row


def _by_backend(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.row["backend"], []).append(cell)
    return groups


def _labels(cells: Sequence[Cell]) -> list[str]:
    """A name for each bar; no two of a backend the same, or they would stand on one another."""
    return [
        f"{escaped(contestant(c))}<br>{escaped(c.row['dataset'])}, {c.row['train_images']:,}, "
        f"{escaped(c.row['backbone'])}" + (f"<br>{escaped(apart)}" if apart else "")
        for c, apart in zip(cells, settings(cells), strict=True)
    ]


def throughput(cells: Sequence[Cell]) -> dict[str, Any]:
    """Whole steps only: effective rates never stand beside them."""
    whole = [c for c in cells if c.row["train_images_per_s"] is not None]
    labels = {id(c): label for c, label in zip(whole, _labels(whole), strict=True)}
    data: list[Figure] = []
    for place, (backend, group) in enumerate(_by_backend(whole).items()):
        windows = [[w for r in c.runs for w in r.result.train_images_per_s_windows] for c in group]
        middle = [found.value if (found := rate_of(c).whole) else 0.0 for c in group]
        ends = [np.quantile(w or [m], [0.05, 0.95]) for w, m in zip(windows, middle, strict=True)]
        both = list(zip(ends, middle, strict=True))
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escaped(backend),
                "y": [labels[id(c)] for c in group],
                "x": middle,
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(float(e[1]) - m, 0.0) for e, m in both],
                    "arrayminus": [max(m - float(e[0]), 0.0) for e, m in both],
                    "thickness": 1,
                    "color": "#8c8c8c",
                },
                "marker": {"color": COLOURS[place % len(COLOURS)]},
                "hovertemplate": "%{x:,.0f} images/s",
            }
        )
    made = plot(
        "throughput",
        "Throughput",
        "Training images/s of whole steps, the median window; bars from the 5th to the 95th "
        "percentile of the windows. Runs whose frozen part was computed once are left out.",
        data,
        axis("images/s", rangemode="tozero"),
        {"automargin": True, "autorange": "reversed"},
    )
    made["figure"]["layout"] |= {"barmode": "group", "height": _height(len(set(labels.values())))}
    return made


def _height(bars: int) -> int:
    """In pixels, so that no label stands on the next: each has up to three lines."""
    return max(320, 120 + 54 * bars)


PARTS = (
    ("start_s", "start of the worker"),
    ("setup_s", "set-up"),
    ("compile_s", "compile"),
    ("prefix_s", "frozen part"),
    ("input_s", "input"),
    ("compute_s", "compute and validation"),
    ("test_s", "test"),
)
"""Of a run's time, in order."""


def parts_of(row: Row) -> dict[str, float]:
    """What the time of a run went to, in seconds; nothing where it has no time of its own."""
    if row["fit_s"] is None:
        return {}
    compiled, prefix = row["compile_s"] or 0.0, row["prefix_s"] or 0.0
    rest = max(row["fit_s"] - compiled - prefix, 0.0)
    waited = rest * (row["input_wait_fraction"] or 0.0)
    found = {name: row.get(name) or 0.0 for name in ("start_s", "setup_s", "test_s")}
    return {**found, "compile_s": compiled, "prefix_s": prefix, "input_s": waited,
            "compute_s": rest - waited}  # fmt: skip


def time_parts(cells: Sequence[Cell]) -> dict[str, Any]:
    timed = [(c, [parts_of(row) for row in c.rows]) for c in cells]
    timed = [(c, parts) for c, parts in timed if all(parts)]
    labels = _labels([c for c, _ in timed])
    names = [f"{n}, {escaped(c.row['backend'])}" for n, (c, _) in zip(labels, timed, strict=True)]
    data: list[Figure] = []
    for place, (name, title) in enumerate(PARTS):
        means = [float(np.mean([p[name] for p in parts])) for _, parts in timed]
        if any(means):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": title,
                    "y": names,
                    "x": means,
                    "marker": {"color": COLOURS[place % len(COLOURS)]},
                    "hovertemplate": f"{title}: %{{x:.2f}} s",
                }
            )
    made = plot(
        "time_parts",
        "Where the time of a run goes",
        "Means over the seeds. Input: the share of the training that steps waited for data. "
        "Compile: the first step less the median one. Trials of --tune are not in it.",
        data,
        axis("seconds"),
        {"automargin": True, "autorange": "reversed"},
    )
    made["figure"]["layout"] |= {"barmode": "stack", "height": _height(len(timed))}
    return made
