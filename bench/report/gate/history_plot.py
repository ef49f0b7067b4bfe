"""The page of a history: one plot for each benchmark, its changes marked."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go
import plotly.io
from plotly.subplots import make_subplots

from bench.report.plots import COLOURS
from bench.speed.history import BenchmarkHistory

ROW_PX = 280


def history_page(found: Sequence[BenchmarkHistory]) -> str:
    """Return an HTML page that needs no network."""
    titles = [html.escape(f"{one.name} on {one.machine}") for one in found]
    figure = make_subplots(rows=len(found), cols=1, subplot_titles=titles)
    for row, one in enumerate(found, 1):
        times = [point.recorded_at for point in one.points]
        figure.add_trace(
            go.Scatter(
                x=times,
                y=[point.seconds * 1000 for point in one.points],
                mode="lines+markers",
                line={"color": COLOURS[0]},
                text=[html.escape(f"{p.baseline} ({p.commit[:10]})") for p in one.points],
                hovertemplate="%{text}<br>%{y:.2f} ms<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
        for change in one.changes:
            colour = COLOURS[1] if change.ratio > 1 else COLOURS[2]
            figure.add_vline(x=change.recorded_at, line={"color": colour, "dash": "dash"},
                             row=row, col=1)  # fmt: skip
        figure.update_yaxes(title_text="ms", rangemode="tozero", row=row, col=1)
    figure.update_layout(
        height=ROW_PX * len(found) + 100, title="Training speed over stored baselines"
    )
    return str(plotly.io.to_html(figure, include_plotlyjs=True, full_html=True))
