"""The plots of a page, as Plotly figures without colours of background and text, which the page
sets."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from bench.analysis.findings import Findings
from bench.analysis.groups import SeedGroup, policy_variant, settings_of
from bench.analysis.intervals import Estimate
from bench.analysis.rows import grouped
from bench.analysis.speed import mean_of
from bench.catalog.policies import POLICIES
from bench.errors import number_of
from bench.report.format import applicable, percent, seconds, three_digits
from bench.report.labels import (
    ANSWERS,
    NETWORKS,
    choices,
    data_of,
    question_name,
    settings,
    values_of,
)

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a6761d")
"""Colours for colour-blind readers (Okabe and Ito 2008), but with grey and brown for its black and
yellow, which are invisible on a dark or a light background."""
GREY = "#8c8c8c"
SHAPES = ("circle", "square", "triangle-up", "star", "diamond", "cross", "pentagon",
          "triangle-down", "hexagon", "x", "hourglass", "bowtie")  # fmt: skip
"""Marks of networks; each also exists open."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""Line styles of backends."""
MOST_CURVES = 24
"""Most curves in a plot; more are unreadable."""
ACCURACY = {"title": {"text": "test top-1"}, "tickformat": ".0%", "maxallowed": 1.02}
SIZED = frozenset({"case", "size", "train_images", "val_images", "dataset_hash", "epochs", "seed"})
"""Fields in which seed groups on a line of ``accuracy_by_size`` may differ."""


def plots(found: Findings) -> list[dict[str, Any]]:
    """Return name, title, caption and figure of each plot that is not empty."""
    made = [
        accuracy_against(
            found, "accuracy_time", "Accuracy against training time", "fit_s",
            "time of the fit in seconds, without trials of --tune", seconds,
        ),
        accuracy_against(
            found, "accuracy_speed", "Accuracy against inference speed", "infer_images_per_s",
            "inference in images/s", lambda rate: f"{three_digits(rate)} images/s", low_wins=False,
        ),
        learning_curves(found.groups),
        accuracy_by_size(found),
    ]  # fmt: skip
    return [one for one in made if one["figure"]["data"]]


def plot(
    name: str, title: str, caption: Mapping[str, object], traces: Mapping[str, Sequence[Figure]],
    across: Figure, upward: Figure,
) -> dict[str, Any]:  # fmt: skip
    """Return a plot for the page.

    Args:
        caption: Sentence → a value that is true if the sentence belongs to the caption.
        traces: Name → traces of each choice of a menu that shows one at a time.
    """
    belongs = [(label, trace) for label, group in traces.items() for trace in group]
    labels = list(dict.fromkeys(label for label, _ in belongs))
    data = [{**trace, "visible": label == labels[0]} for label, trace in belongs]
    buttons = [
        {"label": escaped(label), "method": "restyle",
         "args": [{"visible": [own == label for own, _ in belongs]}]}
        for label in labels
    ]  # fmt: skip
    layout: Figure = {
        "xaxis": across, "yaxis": upward, "hovermode": "closest", "margin": {"t": 60, "r": 16},
        "legend": {"orientation": "h", "y": -0.3, "traceorder": "normal"},
    }  # fmt: skip
    if buttons:
        layout["updatemenus"] = [{"buttons": buttons}]
    figure = {"data": data, "layout": layout}
    return {
        "name": name,
        "title": title,
        "caption": " ".join(applicable(caption)),
        "figure": figure,
    }


def escaped(value: object) -> str:
    """Escape text for Plotly, which reads some HTML, but does not know the entities of quotes."""
    return html.escape(str(value), quote=False)


def scatter(mode: str, name: str, **more: Any) -> Figure:
    """Return a trace of markers, lines or both; ``name`` is escaped."""
    return {"type": "scatter", "mode": mode, "name": name, **more}


def trace_name(group: SeedGroup, setting: str = "") -> str:
    """Return policy, backend, and what distinguishes a seed group from others, escaped."""
    parts = (policy_variant(group), group.row.spec.backend, setting)
    return escaped(", ".join(filter(None, parts)))


def log_axis(title: str, values: Sequence[float]) -> Figure:
    """Return a logarithmic axis for positive values, with ticks at 1, 2 and 5."""
    axis: Figure = {"title": {"text": escaped(title)}, "type": "log"}
    if not values:
        return axis
    first, last = (int(np.floor(np.log10(end))) for end in (min(values), max(values)))
    ticks = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    texts = [f"{t / 1e6:,.0f}M" if t >= 1e6 else f"{t / 1e3:,.0f}k" if t >= 1e4
             else f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks]  # fmt: skip
    return {**axis, "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def error_bars(estimates: Sequence[Estimate]) -> Figure:
    """Return error bars of the intervals, of length 0 where there is none."""
    up = [0.0 if e.high is None else e.high - e.value for e in estimates]
    down = [0.0 if e.low is None else e.value - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


class Looks:
    """The colour of each policy, the shape of each network, and filled or open for each backend."""

    def __init__(self, groups: Sequence[SeedGroup]) -> None:
        known = {name: place for place, name in enumerate(POLICIES)}
        names = sorted({policy_variant(c) for c in groups}, key=lambda n: (known.get(n, 99), n))
        self.colours = dict(zip(names, cycle(COLOURS), strict=False))
        rows = [group.row for group in groups]
        self.shapes = dict(zip(values_of(rows, "backbone"), cycle(SHAPES), strict=False))
        self.backends = values_of(rows, "backend")

    def line(self, group: SeedGroup) -> dict[str, str]:
        """Return the line of its policy and backend."""
        dash = DASHES[self.backends.index(group.row.spec.backend) % len(DASHES)]
        return {"color": self.colours[policy_variant(group)], "dash": dash}

    def marker(self, group: SeedGroup) -> dict[str, object]:
        """Return the mark of its policy, network and backend."""
        spec = group.row.spec
        return self._mark(self.colours[policy_variant(group)], spec.backbone, spec.backend)

    def _mark(self, colour: str, network: str, backend: str) -> dict[str, object]:
        is_open = bool(self.backends.index(backend)) if backend in self.backends else False
        shape = self.shapes.get(network, SHAPES[0]) + ("-open" if is_open else "")
        return {"color": colour, "symbol": shape, "size": 14 if is_open else 9,
                "line": {"width": 2 if is_open else 0}}  # fmt: skip

    def legend(self, groups: Sequence[SeedGroup]) -> Iterator[Figure]:
        """Yield legend entries for colours, and for shapes and fills if there are several."""

        def entry(
            name: str, colour: str, network: str = "", backend: str = "", **more: Any
        ) -> Figure:
            mark = self._mark(colour, network, backend)
            return scatter("markers", escaped(name), marker=mark, x=[None], y=[None],
                           hoverinfo="skip", **more)  # fmt: skip

        rows, policies = [g.row for g in groups], {policy_variant(g) for g in groups}
        for name, colour in self.colours.items():
            if name in policies:
                yield entry(name, colour, legendgroup=name)
        networks, backends = values_of(rows, "backbone"), values_of(rows, "backend")
        for name in networks if len(networks) > 1 else ():
            yield entry(name, GREY, network=name)
        for name in backends if len(backends) > 1 else ():
            yield entry(name, GREY, backend=name)


def accuracy_against(
    found: Findings, name: str, title: str, field: str, cost: str, words: Any,
    low_wins: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Return a plot of accuracy against a cost or speed, with a Pareto front for each machine.
    There is a choice for each data set and recipe, since accuracies on other test images are not
    comparable. Seed groups whose speed other work has disturbed are left out."""
    groups = [g for g in found.groups if all(row[field] for row in g.rows)]
    steady = [g for g in groups if not g.is_unsteady]
    looks, traces = Looks(steady), dict[str, list[Figure]]()
    costs = {g: mean_of(g, field) or 0.0 for g in steady}
    for label, members in choices(steady, {*ANSWERS, *NETWORKS}, data_of).items():
        drawn = list(looks.legend(members))
        named = dict(zip(members, settings(members), strict=True))
        series = grouped(
            members, lambda g: (policy_variant(g), g.row.spec.backend, g.row.spec.backbone)
        )
        for same in series.values():
            top1 = [found.top1(g) for g in same]
            texts = [
                f"{escaped(', '.join(filter(None, (g.row.spec.backbone, named[g]))))}<br>"
                f"{percent(e)}, {words(costs[g])}"
                for g, e in zip(same, top1, strict=True)
            ]
            drawn.append(
                scatter("markers", trace_name(same[0]), x=[costs[g] for g in same],
                        y=[e.value for e in top1], error_y=error_bars(top1),
                        marker=looks.marker(same[0]), legendgroup=policy_variant(same[0]),
                        showlegend=False, text=texts, hovertemplate="%{text}")
            )  # fmt: skip
        for here, dash in zip(
            grouped(members, lambda g: g.machine).values(), cycle(DASHES), strict=False
        ):
            front = pareto([(costs[g], found.top1(g).value) for g in here], low_wins)
            if len(front) > 1:
                line = {
                    "color": GREY,
                    "width": 1.5,
                    "dash": dash,
                    "shape": "hv" if low_wins else "vh",
                }
                drawn.append(scatter("lines", "front", line=line, x=[x for x, _ in front],
                                     y=[y for _, y in front], hoverinfo="skip"))  # fmt: skip
        traces[label] = drawn
    side = "left" if low_wins else "right"
    caption = {
        f"A mark is a policy (colour), network (shape) and backend (filled or open), averaged over "
        f"seeds. Up and to the {side} is better. Bars: 95 % intervals.": True,
        "The grey line is the front of each machine: nothing beats its points in both. It ignores "
        "the "
        "intervals.": any(t["mode"] == "lines" for drawn in traces.values() for t in drawn),
        f"{number_of(len(groups) - len(steady), 'experiment')} left out: the machine was busy.":
            len(groups) - len(steady),
    }  # fmt: skip
    return plot(name, title, caption, traces, log_axis(cost, list(costs.values())), ACCURACY)


def pareto(
    points: Sequence[tuple[float, float]], low_wins: bool = True
) -> list[tuple[float, float]]:
    """Return the points that no other beats, by ascending first number; high second numbers win,
    and low or high first ones."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0] if low_wins else -p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front if low_wins else front[::-1]


def learning_curves(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return validation accuracy by epoch, with bands over seeds and a choice for each question."""
    looks, traces, left_out = Looks(groups), dict[str, list[Figure]](), 0
    for label, members in choices(groups, ANSWERS, question_name).items():
        curves = {g: [row.result.val_top1_by_epoch for row in g.rows] for g in members}
        whole = [
            g for g, rows in curves.items()
            if rows[0] and len({len(c) for c in rows}) == 1 and not any(None in c for c in rows)
        ]  # fmt: skip
        shown = whole[:MOST_CURVES]
        left_out += len(members) - len(shown)
        names = [trace_name(g, own) for g, own in zip(shown, settings(shown), strict=True)]
        traces[label] = [
            line
            for g, name in zip(shown, names, strict=True)
            for line in _curve(np.array(curves[g], dtype=np.float64), name, looks.line(g))
        ]
    caption = {
        "Validation accuracy after each epoch, mean over the runs of an experiment.": True,
        "Bands: from the lowest run to the highest.": any(len(g.rows) > 1 for g in groups),
        f"{number_of(left_out, 'curve')} left out: a run lacks an epoch, or there are more than "
        f"{MOST_CURVES}.": left_out,
    }
    upward = {**ACCURACY, "title": {"text": "validation top-1"}}
    return plot("learning_curves", "Learning curves", caption, traces,
                {"title": {"text": "epoch"}, "tickformat": "d"}, upward)  # fmt: skip


def _curve(values: np.ndarray[Any, Any], name: str, look: dict[str, str]) -> list[Figure]:
    """Return the means over the seeds of values (seeds, epochs), on a band if there are several."""
    epochs = list(range(1, values.shape[1] + 1))
    line = scatter(
        "lines+markers", name, x=epochs, y=values.mean(axis=0).tolist(), legendgroup=name,
        line=look, hovertemplate="%{y:.1%} after epoch %{x}",
    )  # fmt: skip
    if len(values) == 1:
        return [line]
    ends = [*values.max(axis=0).tolist(), *reversed(values.min(axis=0).tolist())]
    band = scatter("lines", name, x=[*epochs, *reversed(epochs)], y=ends, fill="toself",
                   legendgroup=name, line={"width": 0}, fillcolor=f"{look['color']}26",
                   hoverinfo="skip", showlegend=False)  # fmt: skip
    return [band, line]


def accuracy_by_size(found: Findings) -> dict[str, Any]:
    """Return accuracy by number of training images, for data sets with several; there is a choice
    for each data set and network."""
    looks, traces = Looks(found.groups), dict[str, list[Figure]]()
    named = choices(
        found.groups, SIZED | ANSWERS, lambda r: f"{r.dataset.label}, {r.spec.backbone}"
    )
    for label, members in named.items():
        lines = [
            line for line in _lines_by_size(members)
            if len(line) > 1 and len({g.row.dataset.train_images for g in line}) == len(line)
        ]  # fmt: skip
        drawn = []
        for line in lines:
            top1 = [found.top1(g) for g in line]
            images = [g.row.dataset.train_images for g in line]
            drawn.append(
                scatter("lines+markers", trace_name(line[0]), x=images, y=[e.value for e in top1],
                        error_y=error_bars(top1), line=looks.line(line[0]),
                        text=[percent(e) for e in top1],
                        hovertemplate="%{text} with %{x:,} images")
            )  # fmt: skip
        if drawn:
            traces[label] = drawn
    caption = {
        "Where the lines of two policies cross, the better choice changes, unless their bars (95 % "
        "intervals) overlap. The number of epochs may differ between sizes, as in the suite.": True
    }
    across = log_axis("training images", [g.row.dataset.train_images for g in found.groups])
    return plot(
        "accuracy_size", "Accuracy against data-set size", caption, traces, across, ACCURACY
    )


def _lines_by_size(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Group seed groups that differ in size alone, on the same test images; smallest first."""

    def line_of(group: SeedGroup) -> Hashable:
        return group.test_set, settings_of(group.row, SIZED)

    return [
        sorted(line, key=lambda g: g.row.dataset.train_images)
        for line in grouped(groups, line_of).values()
    ]
