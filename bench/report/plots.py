"""Plots as Plotly figures; the page sets the colours of their ground and text."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from bench.catalog.policies import POLICIES
from bench.report.cells import Cell, alike_but, contestant
from bench.report.figures import COLOURS, Figure, axis, escaped, plot
from bench.report.findings import Findings
from bench.report.settings import settings
from bench.report.time_plots import throughput, time_parts
from bench.report.twins import Row

SYMBOLS = ("circle", "diamond-open", "square", "triangle-up-open", "cross-thin-open", "star-open")
"""Every other one is open: where two backends stand on one spot, both are seen."""
DASHES = ("solid", "dash", "dot", "dashdot")


def plots(found: Findings) -> list[dict[str, Any]]:
    """For the page: name, title, caption and figure of each that has something to show."""
    made = [
        _scatter(found.cells, "accuracy_time", "Accuracy against training time", "fit_s",
                 "time of the fit in seconds, trials of --tune left out"),
        _scatter(found.cells, "accuracy_parameters", "Accuracy against trained parameters",
                 "trainable_parameters", "parameters that are trained"),
        _curves(found.cells),
        _sizes(found.cells),
        throughput(found.cells),
        time_parts(found.cells),
    ]  # fmt: skip
    return [one for one in made if one["figure"]["data"]]


ACCURACY = axis("test top-1", tickformat=".0%")


def where(row: Row) -> str:
    """Data, network and backend."""
    return f"{row['dataset_label']}, {row['train_images']:,}, {row['backbone']}, {row['backend']}"


class _Looks:
    """Of each policy its colour, of each backend its symbol; the same in every plot."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        known = {name: place for place, name in enumerate(POLICIES)}
        names = sorted({contestant(c) for c in cells}, key=lambda n: (known.get(n, 99), n))
        self._policies = {name: place for place, name in enumerate(names)}
        self._backends = list(dict.fromkeys(c.row["backend"] for c in cells))

    def colour(self, cell: Cell) -> str:
        return COLOURS[self._policies[contestant(cell)] % len(COLOURS)]

    def symbol(self, cell: Cell) -> str:
        return SYMBOLS[self._backends.index(cell.row["backend"]) % len(SYMBOLS)]

    def dash(self, cell: Cell) -> str:
        return DASHES[self._backends.index(cell.row["backend"]) % len(DASHES)]


def _series(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """By policy and backend."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((contestant(cell), cell.row["backend"]), []).append(cell)
    return groups


def _bars(cells: Sequence[Cell]) -> dict[str, Any]:
    """Error bars: the intervals of the accuracies."""
    up = [(c.top1.high or c.top1.value) - c.top1.value for c in cells]
    down = [c.top1.value - (c.top1.low if c.top1.low is not None else c.top1.value) for c in cells]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


def _scatter(cells: Sequence[Cell], name: str, title: str, field: str, cost: str) -> dict[str, Any]:
    """Accuracy against a cost, with the front that nothing beats in both, for each data set."""
    looks = _Looks(cells)
    placed: dict[str, list[Cell]] = {}
    for cell in cells:
        if (cell.mean(field) or 0.0) > 0:
            label = f"{cell.row['dataset_label']}, {cell.row['train_images']:,} images"
            placed.setdefault(label, []).append(cell)
    traces = {
        label: [*_marks(group, field, looks), *_fronts(group, field)]
        for label, group in placed.items()
    }
    caption = (
        "Each mark is a policy in a backend, seeds taken together; up and to the left is better. "
        f"The grey line joins what nothing beats in both accuracy and {cost}, on one machine. "
        "Bars: 95 % intervals."
    )
    return _one_at_a_time(plot(name, title, caption, [], axis(cost, type="log"), ACCURACY), traces)


def _marks(cells: Sequence[Cell], field: str, looks: _Looks) -> list[Figure]:
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": escaped(f"{policy}, {backend}"),
            "x": [c.mean(field) for c in group],
            "y": [c.top1.value for c in group],
            "error_y": _bars(group),
            "text": [escaped(where(c.row)) for c in group],
            "hovertemplate": "%{text}<br>%{y:.1%}, %{x:,.4~g}",
            "marker": {
                "color": looks.colour(group[0]),
                "symbol": looks.symbol(group[0]),
                "size": 10,
                "line": {"width": 2},
            },
        }
        for (policy, backend), group in _series(cells).items()
    ]


def _fronts(cells: Sequence[Cell], field: str) -> list[Figure]:
    """For each machine: times of two have no front in common."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.machine, []).append(cell)
    lines: list[Figure] = []
    for group, dash in zip(groups.values(), DASHES * len(groups), strict=False):
        front = pareto([(x, c.top1.value) for c in group if (x := c.mean(field)) is not None])
        if len(front) > 1:
            place = group[0].row["device_model"]
            lines.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escaped(f"front on {place}" if len(groups) > 1 else "front"),
                    "x": [x for x, _ in front],
                    "y": [y for _, y in front],
                    "line": {"color": "#8c8c8c", "width": 1.5, "dash": dash, "shape": "hv"},
                    "hoverinfo": "skip",
                }
            )
    return lines


def _one_at_a_time(made: dict[str, Any], traces: dict[str, list[Figure]]) -> dict[str, Any]:
    """A plot with a choice of what is shown; of one group alone there is none.

    Args:
        made: Without data.
        traces: Of each choice.
    """
    figure = made["figure"]
    belongs = [label for label, group in traces.items() for _ in group]
    figure["data"] = [
        {**trace, "visible": label == belongs[0]}
        for label, trace in zip(belongs, (t for group in traces.values() for t in group),
                                strict=True)
    ]  # fmt: skip
    names = list(dict.fromkeys(belongs))
    if len(names) > 1:
        buttons = [
            {"label": escaped(name), "method": "restyle",
             "args": [{"visible": [label == name for label in belongs]}]}
            for name in names
        ]  # fmt: skip
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}
        figure["layout"]["updatemenus"] = [menu]
        figure["layout"]["margin"]["t"] = 60
    return made


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats, in ascending order: lower first numbers, higher second ones."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


MOST_CURVES = 24
"""Beyond which a plot of curves shows nothing."""


def _curves(cells: Sequence[Cell]) -> dict[str, Any]:
    """Validation accuracy by epoch; a choice for each question, bands over the seeds."""
    looks = _Looks(cells)
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        row = cell.row
        label = f"{row['dataset_label']}, {row['train_images']:,} images, {row['backbone']}"
        groups.setdefault(label, []).append(cell)
    traces: dict[str, list[Figure]] = {}
    left_out = 0
    for label, group in groups.items():
        shown = group[:MOST_CURVES]
        left_out += len(group) - len(shown)
        drawn = [_curve(c, looks, apart) for c, apart in zip(shown, settings(shown), strict=True)]
        traces[label] = [line for lines in drawn for line in lines]
    made = plot(
        "learning_curves",
        "Learning curves",
        "Validation accuracy after each epoch, mean over the seeds; bands from the lowest seed to "
        "the highest."
        + (f" {left_out} curves beyond {MOST_CURVES} are left out." if left_out else ""),
        [],
        axis("epoch", dtick=1, tick0=1) if _few_epochs(cells) else axis("epoch"),
        axis("validation top-1", tickformat=".0%"),
    )
    return _one_at_a_time(made, traces)


def _few_epochs(cells: Sequence[Cell]) -> bool:
    return max((c.row["epochs"] for c in cells), default=0) <= 20


def _curve(cell: Cell, looks: _Looks, apart: str) -> list[Figure]:
    curves = [r.result.val_top1_by_epoch for r in cell.runs]
    if len({len(c) for c in curves}) != 1 or any(v is None for c in curves for v in c):
        return []
    values = np.array(curves, dtype=float)
    epochs = list(range(1, values.shape[1] + 1))
    colour, name = (
        looks.colour(cell),
        escaped(", ".join(filter(None, (contestant(cell), cell.row["backend"], apart)))),
    )
    line: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": epochs,
        "y": values.mean(axis=0).tolist(),
        "line": {"color": colour, "dash": looks.dash(cell)},
        "hovertemplate": "%{y:.1%} after epoch %{x}",
    }
    if len(values) == 1:
        return [line]
    band: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [*epochs, *reversed(epochs)],
        "y": [*values.max(axis=0).tolist(), *reversed(values.min(axis=0).tolist())],
        "fill": "toself",
        "fillcolor": f"{colour}26",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [band, line]


SIZED = frozenset({"case", "size", "train_images", "val_images", "dataset_hash", "epochs", "seed"})
"""In which cells on a line of ``_sizes`` may differ."""


def _sizes(cells: Sequence[Cell]) -> dict[str, Any]:
    """Accuracy against the number of training images, where a data set has several."""
    looks = _Looks(cells)
    lines: dict[tuple[Hashable, ...], list[Cell]] = {}
    for cell in cells:
        lines.setdefault(alike_but(cell, SIZED), []).append(cell)
    data: list[Figure] = []
    for group in lines.values():
        row = group[0].row
        dataset, backbone, backend = row["dataset"], row["backbone"], row["backend"]
        policy = contestant(group[0])
        if len({c.row["train_images"] for c in group}) < 2:
            continue
        group.sort(key=lambda c: c.row["train_images"])
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escaped(f"{policy}, {dataset}, {backbone}, {backend}"),
                "x": [c.row["train_images"] for c in group],
                "y": [c.top1.value for c in group],
                "error_y": _bars(group),
                "line": {"color": looks.colour(group[0]), "dash": looks.dash(group[0])},
                "marker": {"symbol": looks.symbol(group[0])},
                "hovertemplate": "%{y:.1%} with %{x:,} images",
            }
        )
    return plot(
        "accuracy_size",
        "Accuracy against data-set size",
        "Where the lines of two policies cross, the better choice changes. Epochs may differ from "
        "size to size, as the suite has them. Bars: 95 % intervals.",
        data,
        axis("training images", type="log"),
        ACCURACY,
    )
