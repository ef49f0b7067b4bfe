"""Shared parts of the plots: axes, legends, and the look of policies, networks and backends.

Figures name no colours of background and text; the page sets them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.catalog.policies import POLICIES

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


def plot(name: str, title: str, caption: str, data: list[Figure], x: Any, y: Any) -> dict[str, Any]:
    """Return a plot for the page."""
    layout = {
        "xaxis": x,
        "yaxis": y,
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.3, "traceorder": "normal"},
        "margin": {"t": 24, "r": 16},
    }
    figure = {"data": data, "layout": layout}
    return {"name": name, "title": title, "caption": caption, "figure": figure}


def one_at_a_time(made: dict[str, Any], traces: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Return a plot with a menu that shows one choice at a time; a single choice is named too.

    Args:
        made: The plot, without data.
        traces: Name of each choice → its traces.
    """
    figure = made["figure"]
    belongs = [label for label, group in traces.items() for _ in group]
    figure["data"] = [
        {**trace, "visible": label == belongs[0]}
        for label, trace in zip(belongs, (t for group in traces.values() for t in group),
                                strict=True)
    ]  # fmt: skip
    names = list(dict.fromkeys(belongs))
    if names:
        buttons = [
            {"label": escaped(name), "method": "restyle",
             "args": [{"visible": [label == name for label in belongs]}]}
            for name in names
        ]  # fmt: skip
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}
        figure["layout"]["updatemenus"] = [menu]
        figure["layout"]["margin"]["t"] = 60
    return made


def escaped(value: object) -> str:
    """Escape text for Plotly, which reads some HTML, but does not know the entities of quotes."""
    return html.escape(str(value), quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with its title."""
    return {"title": {"text": escaped(title)}, **more}


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis with readable ticks: Plotly's are digits without their power.

    Args:
        title: Title of the axis.
        values: Positive values along it; if empty, the ticks are Plotly's.
    """
    if not values:
        return axis(title, type="log")
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    ticks = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    texts = [_short(tick) for tick in ticks]
    return axis(title, type="log", tickmode="array", tickvals=ticks, ticktext=texts)


def _short(value: float) -> str:
    """Return ``0.5``, ``2,000``, ``50k`` or ``1M``."""
    for least, unit, end in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / unit:,.0f}{end}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Return error bars of the intervals, of length 0 where there is none."""
    up = [0.0 if e.high is None else e.high - e.value for e in estimates]
    down = [0.0 if e.low is None else e.value - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


def hatched(colour: str, which: Sequence[bool]) -> dict[str, Any]:
    """Return the marker of bars of which some are hatched."""
    shapes = ["/" if one else "" for one in which]
    return {"color": colour, **({"pattern": {"shape": shapes, **HATCH}} if any(which) else {})}


def legend_of_hatching(name: str, slot: str | None = None) -> Figure:
    """Return a bar that appears only in the legend.

    Args:
        name: Name in the legend.
        slot: ``offsetgroup`` of other bars, so that this one takes no space of its own.
    """
    own = {} if slot is None else {"offsetgroup": slot}
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [None],
        "y": [None],
        "marker": hatched(GREY, [True]),
        "hoverinfo": "skip",
        **own,
    }


SHAPES = ("circle", "square", "triangle-up", "star", "diamond", "cross", "pentagon",
          "triangle-down", "hexagon", "x", "hourglass", "bowtie", "star-diamond",
          "star-triangle-up")  # fmt: skip
"""Marks of networks; each exists in the variants of ``FILLS``."""
FILLS = (("", 9), ("-open", 14), ("-open-dot", 19), ("-dot", 9))
"""Marks of backends and their size in pixels: where two coincide, both are visible."""
FILL_WORDS = ("filled", "open", "open with a dot", "filled with a dot")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Line styles of backends."""
STRUCK = {"symbol": "x-thin-open", "size": 18, "color": GREY, "line": {"width": 2}}
"""Cross over marks whose speeds must not be compared."""


class Looks:
    """The colour of each policy, shape of each network and fill of each backend."""

    def __init__(self, groups: Sequence[SeedGroup]) -> None:
        known = {name: place for place, name in enumerate(POLICIES)}
        names = sorted({policy_variant(c) for c in groups}, key=lambda n: (known.get(n, 99), n))
        self._policies = {name: place for place, name in enumerate(names)}
        self._networks = list(dict.fromkeys(c.row.spec.backbone for c in groups))
        self._backends = list(dict.fromkeys(c.row.spec.backend for c in groups))

    def colour(self, group: SeedGroup) -> str:
        """Return the colour of its policy."""
        return COLOURS[self._policies[policy_variant(group)] % len(COLOURS)]

    def dash(self, group: SeedGroup) -> str:
        """Return the line style of its backend."""
        return DASHES[self._backends.index(group.row.spec.backend) % len(DASHES)]

    def marker(self, group: SeedGroup) -> dict[str, object]:
        """Return the mark of its policy, network and backend."""
        return self._marker(self.colour(group), group.row.spec.backbone, group.row.spec.backend)

    def _marker(self, colour: str, network: str | None, backend: str | None) -> dict[str, object]:
        shape = 0 if network is None else self._networks.index(network) % len(SHAPES)
        fill = 0 if backend is None else self._backends.index(backend) % len(FILLS)
        ending, size = FILLS[fill]
        line = {"width": 2 if ending else 0}
        return {"color": colour, "symbol": SHAPES[shape] + ending, "size": size, "line": line}

    def legend(self, groups: Sequence[SeedGroup]) -> list[Figure]:
        """Return legend entries for colours, and for shapes and fills if there are several."""
        policies = {policy_variant(c): self.colour(c) for c in groups}
        found = [
            _entry(name, self._marker(policies[name], None, None), name)
            for name in sorted(policies, key=lambda n: self._policies[n])
        ]
        networks = dict.fromkeys(c.row.spec.backbone for c in groups)
        backends = dict.fromkeys(c.row.spec.backend for c in groups)
        if len(networks) > 1:
            found += [_entry(name, self._marker(GREY, name, None)) for name in networks]
        if len(backends) > 1:
            found += [_entry(name, self._marker(GREY, None, name)) for name in backends]
        return found

    def words(self, groups: Sequence[SeedGroup]) -> str:
        """Return the meaning of a mark, for a caption."""
        networks = {c.row.spec.backbone for c in groups}
        backends = dict.fromkeys(c.row.spec.backend for c in groups)
        network = " with a network (shape)" if len(networks) > 1 else ""
        fills = ", ".join(
            f"{FILL_WORDS[self._backends.index(name) % len(FILLS)]}: {name}" for name in backends
        )
        backend = f" in a backend ({fills})" if len(backends) > 1 else ""
        return f"a policy (colour){network}{backend}"


def _entry(name: str, marker: dict[str, object], group: str | None = None) -> Figure:
    """Return a mark that appears only in the legend."""
    own = {} if group is None else {"legendgroup": group}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(name),
        "x": [None],
        "y": [None],
        "marker": marker,
        "hoverinfo": "skip",
        **own,
    }
