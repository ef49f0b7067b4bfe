"""What the plots have in common: Plotly figures without colours of ground and text, which the page
sets."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.statistics import Estimate

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a6761d")
"""Okabe and Ito 2008, told apart with any eyes; the last two are grey and brown for its black and
yellow, which one ground or the other would swallow."""
GREY = "#8c8c8c"
"""Seen on either ground."""
UNSTEADY_NAME = "unsteady"
BUSY = "The machine was probably busy with other work in some of these runs; compare no speeds."
"""For captions."""
HATCHED = f"Hatched: unsteady. {BUSY}"
HATCH = {"fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.35, "size": 7}
"""Of bars."""


def plot(name: str, title: str, caption: str, data: list[Figure], x: Any, y: Any) -> dict[str, Any]:
    """A plot for the page."""
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
    """A plot with a choice of what is shown; one that is alone is named all the same.

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
    """Plotly reads some HTML in its texts; of entities it does not know those of quotes."""
    return html.escape(str(value), quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": escaped(title)}, **more}


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis whose ticks are whole numbers: plotly's own are digits without a power.

    Args:
        title: Of the axis.
        values: All above 0, that are drawn along it; of none, the ticks are plotly's.
    """
    if not values:
        return axis(title, type="log")
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    ticks = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    texts = [_short(tick) for tick in ticks]
    return axis(title, type="log", tickmode="array", tickvals=ticks, ticktext=texts)


def _short(value: float) -> str:
    """``0.5``, ``2,000``, ``50k``, ``1M``."""
    for least, unit, end in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / unit:,.0f}{end}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Intervals, of length 0 where there is none."""
    up = [0.0 if e.high is None else e.high - e.value for e in estimates]
    down = [0.0 if e.low is None else e.value - e.low for e in estimates]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}


def hatched(colour: str, which: Sequence[bool]) -> dict[str, Any]:
    """Look of bars, some of them hatched."""
    shapes = ["/" if one else "" for one in which]
    return {"color": colour, **({"pattern": {"shape": shapes, **HATCH}} if any(which) else {})}


def legend_of_hatching(name: str, slot: str | None = None) -> Figure:
    """A bar that stands in the legend alone.

    Args:
        name: What is hatched.
        slot: Of bars beside one another, one whose place it takes: it needs none of its own.
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
