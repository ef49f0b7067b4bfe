"""Shared parts of the plots. They name no colours of background and text: the page sets them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.catalog.policies import POLICIES
from bench.report.format import applicable
from bench.report.labels import values_of

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a6761d")
"""Colours for colour-blind readers (Okabe and Ito 2008), but with grey and brown for its black and
yellow, which are invisible on a dark or a light background."""
GREY = "#8c8c8c"
"""Grey that is visible on light and dark."""
UNSTEADY_NAME = "unsteady"
BUSY = "The machine was probably busy with other work in some of these runs. Compare no speeds."
HATCHED = f"Hatched: unsteady. {BUSY}"
HATCH = {"fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.35, "size": 7}
DOWNWARD = {"automargin": True, "autorange": "reversed"}
"""Axis of bars, the first at the top."""
ONLY_IN_LEGEND: Figure = {"x": [None], "y": [None], "hoverinfo": "skip"}


def plot(
    name: str, title: str, caption: Mapping[str, object],
    traces: Sequence[Figure] | Mapping[str, Sequence[Figure]], axes: tuple[Figure, Figure],
    **layout: object,
) -> dict[str, Any]:  # fmt: skip
    """Return a plot for the page.

    Args:
        caption: Sentence → a value that is true if the sentence belongs to the caption.
        traces: Traces, or name → traces of each choice of a menu that shows one at a time; a single
            choice is named too.
        axes: Horizontal and vertical axis.
    """
    margin = {"t": 24, "r": 16}
    if isinstance(traces, Mapping):
        belongs = [(label, trace) for label, group in traces.items() for trace in group]
        labels = list(dict.fromkeys(label for label, _ in belongs))
        data = [{**trace, "visible": label == labels[0]} for label, trace in belongs]
        buttons = [
            {"label": escaped(name), "method": "restyle",
             "args": [{"visible": [label == name for label, _ in belongs]}]}
            for name in labels
        ]  # fmt: skip
        if buttons:
            menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}
            layout, margin = {"updatemenus": [menu], **layout}, {"t": 60, "r": 16}
    else:
        data = list(traces)
    layout |= {
        "xaxis": axes[0],
        "yaxis": axes[1],
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.3, "traceorder": "normal"},
        "margin": margin,
    }
    words, figure = " ".join(applicable(caption)), {"data": data, "layout": layout}
    return {"name": name, "title": title, "caption": words, "figure": figure}


def escaped(value: object) -> str:
    """Escape text for Plotly, which reads some HTML, but does not know the entities of quotes."""
    return html.escape(str(value), quote=False)


def trace_name(group: SeedGroup, setting: str = "") -> str:
    """Return policy, backend, and what distinguishes a seed group from others, escaped."""
    parts = (policy_variant(group), group.row.spec.backend, setting)
    return escaped(", ".join(filter(None, parts)))


def scatter(mode: str, name: str, **more: Any) -> Figure:
    """Return a trace of markers, lines or both; ``name`` is escaped."""
    return {"type": "scatter", "mode": mode, "name": name, **more}


def bars(name: str, **more: Any) -> Figure:
    """Return a trace of horizontal bars with ``text`` on hovering; ``name`` is escaped."""
    hover = {"textposition": "none", "hovertemplate": "%{text}"} if "text" in more else {}
    return {"type": "bar", "orientation": "h", "name": name, **hover, **more}


def axis(title: str, **more: Any) -> Figure:
    """Return an axis with its title."""
    return {"title": {"text": escaped(title)}, **more}


ACCURACY = axis("test top-1", tickformat=".0%")


def log_axis(title: str, values: Sequence[float]) -> Figure:
    """Return a logarithmic axis for positive values; Plotly's ticks are digits without powers."""
    if not values:
        return axis(title, type="log")
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    ticks = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    texts = [_short(tick) for tick in ticks]
    return axis(title, type="log", tickmode="array", tickvals=ticks, ticktext=texts)


def _short(value: float) -> str:
    """Return ``0.5``, ``2,000``, ``50k`` or ``1M``."""
    if value >= 1e4:
        return f"{value / 1e6:,.0f}M" if value >= 1e6 else f"{value / 1e3:,.0f}k"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def error_bars(estimates: Sequence[Estimate]) -> Figure:
    """Return error bars of the intervals, of length 0 where there is none."""
    up = [0.0 if e.high is None else e.high - e.value for e in estimates]
    down = [0.0 if e.low is None else e.value - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


def hatched(colour: str, which: Sequence[bool]) -> Figure:
    """Return the marker of bars of which some are hatched."""
    shapes = ["/" if one else "" for one in which]
    return {"color": colour, **({"pattern": {"shape": shapes, **HATCH}} if any(which) else {})}


def legend_of_hatching(**more: str) -> Figure:
    """Return a bar that appears only in the legend."""
    return bars(UNSTEADY_NAME, marker=hatched(GREY, [True]), **ONLY_IN_LEGEND, **more)


SHAPES = ("circle", "square", "triangle-up", "star", "diamond", "cross", "pentagon",
          "triangle-down", "hexagon", "x", "hourglass", "bowtie", "star-diamond",
          "star-triangle-up")  # fmt: skip
"""Marks of networks; each exists in the variants of ``FILLS``."""
FILLS = (("filled", "", 9), ("open", "-open", 14), ("open with a dot", "-open-dot", 19),
         ("filled with a dot", "-dot", 9))  # fmt: skip
"""Marks of backends in words, as ending of a shape's name, and their size in pixels: where two
coincide, both are visible."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""Line styles of backends."""
STRUCK = {"symbol": "x-thin-open", "size": 18, "color": GREY, "line": {"width": 2}}
"""Cross over marks whose speeds must not be compared."""


class Looks:
    """The colour of each policy, shape of each network and fill of each backend."""

    def __init__(self, groups: Sequence[SeedGroup]) -> None:
        known = {name: place for place, name in enumerate(POLICIES)}
        names = sorted({policy_variant(c) for c in groups}, key=lambda n: (known.get(n, 99), n))
        self._colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
        networks, backends = _names(groups)
        self._shapes = {name: SHAPES[n % len(SHAPES)] for n, name in enumerate(networks)}
        self._fills = {name: FILLS[n % len(FILLS)] for n, name in enumerate(backends)}
        self._dashes = {name: DASHES[n % len(DASHES)] for n, name in enumerate(backends)}

    def line(self, group: SeedGroup) -> dict[str, str]:
        """Return the line of its policy and backend."""
        backend = group.row.spec.backend
        return {"color": self._colours[policy_variant(group)], "dash": self._dashes[backend]}

    def marker(self, group: SeedGroup) -> dict[str, object]:
        """Return the mark of its policy, network and backend."""
        spec = group.row.spec
        return self._marker(self._colours[policy_variant(group)], spec.backbone, spec.backend)

    def _marker(self, colour: str, network: str = "", backend: str = "") -> dict[str, object]:
        shape = self._shapes.get(network, SHAPES[0])
        _, ending, size = self._fills.get(backend, FILLS[0])
        line = {"width": 2 if ending else 0}
        return {"color": colour, "symbol": shape + ending, "size": size, "line": line}

    def legend(self, groups: Sequence[SeedGroup]) -> list[Figure]:
        """Return legend entries for colours, and for shapes and fills if there are several."""

        def entry(name: str, marker: dict[str, object], **more: str) -> Figure:
            return scatter("markers", escaped(name), marker=marker, **ONLY_IN_LEGEND, **more)

        policies = {policy_variant(c) for c in groups}
        networks, backends = _names(groups)
        return [
            *(entry(name, self._marker(colour), legendgroup=name)
              for name, colour in self._colours.items() if name in policies),
            *(entry(name, self._marker(GREY, network=name))
              for name in networks if len(networks) > 1),
            *(entry(name, self._marker(GREY, backend=name))
              for name in backends if len(backends) > 1),
        ]  # fmt: skip

    def words(self, groups: Sequence[SeedGroup]) -> str:
        """Return the meaning of a mark, for a caption."""
        networks, backends = _names(groups)
        network = " with a network (shape)" if len(networks) > 1 else ""
        fills = ", ".join(f"{self._fills[name][0]}: {name}" for name in backends)
        backend = f" in a backend ({fills})" if len(backends) > 1 else ""
        return f"a policy (colour){network}{backend}"


def _names(groups: Sequence[SeedGroup]) -> tuple[list[str], list[str]]:
    """Return the names of networks and of backends, in order of appearance."""
    rows = [group.row for group in groups]
    return values_of(rows, "backbone"), values_of(rows, "backend")
