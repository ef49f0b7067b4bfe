"""What the plots have in common: Plotly figures without colours of ground and text, which the page
sets."""

from __future__ import annotations

import html
from typing import Any

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a6761d")
"""Okabe and Ito 2008, told apart with any eyes; the last two are grey and brown for its black and
yellow, which one ground or the other would swallow."""


def plot(name: str, title: str, caption: str, data: list[Figure], x: Any, y: Any) -> dict[str, Any]:
    """A plot for the page."""
    layout = {
        "xaxis": x,
        "yaxis": y,
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.3},
        "margin": {"t": 24, "r": 16},
    }
    figure = {"data": data, "layout": layout}
    return {"name": name, "title": title, "caption": caption, "figure": figure}


def escaped(value: object) -> str:
    """Plotly reads some HTML in its texts; of entities it does not know those of quotes."""
    return html.escape(str(value), quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": escaped(title)}, **more}
