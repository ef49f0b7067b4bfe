"""The page of advice: accuracy against cost, the recommended set marked, and what it rests on."""

from __future__ import annotations

import datetime
import html
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from bench.advise.advice import Advice, Strategy
from bench.advise.belief import TIE_LEVEL
from bench.report.advice.words import (
    FORECAST_HEADINGS,
    HEADINGS,
    SET_TITLE,
    alternative_words,
    answer_sentence,
    data_wanted_sentence,
    end_sentence,
    forecast_rows,
    more_images_sentence,
    percent,
    refusal_sentences,
    size_sentences,
    strategy_rows,
    trained_sentence,
)
from bench.report.plots import COLOURS, GREY
from bench.storage.text_files import replace_text
from bench.system import VERSION

PLOT_PX = 420
TRANSPARENT = "rgba(0,0,0,0)"


def write_advice_page(advice: Advice, path: Path) -> None:
    """Write the page, one HTML file that needs no network, with every text escaped."""
    template = Environment(
        loader=PackageLoader("bench.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("advice.html.jinja")
    style = (files("bench.report") / "templates" / "page.css").read_text(encoding="utf-8")
    chosen = advice.recommendation
    plot = None if chosen is None else _accuracy_against_cost(advice)
    curve = _learning_curve(advice) if advice.learning_curve else None
    text = template.render(
        advice=advice,
        title=f"Advice for {advice.dataset}",
        style=Markup(style),
        version=VERSION,
        written=datetime.date.today().isoformat(),
        headline="No advice for these images" if chosen is None else answer_sentence(advice),
        subline=" ".join(refusal_sentences(advice) if chosen is None else size_sentences(advice)),
        plot=None if plot is None else _embedded(plot, with_library=True),
        caption="Each mark is a strategy that was tried for all epochs, or the recommended one, "
        "with the 90 % interval of its test accuracy. Filled marks cannot be distinguished from "
        "the best; the star is recommended.",
        notes=_notes(advice),
        tables=_tables(advice),
        tie_level=f"{TIE_LEVEL:.0%}".replace("%", " %"),
        curve=None if curve is None else _embedded(curve, with_library=plot is None),
        curve_caption="Accuracy on held-out images over the number of training images, with "
        "standard errors.",
    )
    replace_text(path, text)


def _embedded(figure: go.Figure, *, with_library: bool) -> Markup:
    return Markup(plotly.io.to_html(figure, include_plotlyjs=with_library, full_html=False))


def _notes(advice: Advice) -> list[dict[str, str]]:
    """Return the boxes below the plot."""
    notes = [
        {
            "title": f"Or {one.strategy.policy} of {one.strategy.backbone}",
            "text": alternative_words(one),
        }
        for one in advice.alternatives
    ]
    if advice.article_says is not None:
        notes.append({"title": "The article", "text": advice.article_says.words})
    if advice.more_images is not None:
        notes.append({"title": "More images", "text": more_images_sentence(advice)})
    if advice.data_wanted is not None:
        notes.append(
            {
                "title": "Images needed for the target",
                "text": data_wanted_sentence(advice.data_wanted),
            }
        )
    if advice.trained is not None:
        notes.append({"title": "The full run", "text": trained_sentence(advice.trained)})
    if advice.recommendation is not None:
        notes.append({"title": "Time", "text": end_sentence(advice)})
    if advice.would_change or advice.warnings:
        text = " ".join([*advice.would_change, *advice.warnings])
        notes.append({"title": "What could change the answer, and warnings", "text": text})
    return notes


def _tables(advice: Advice) -> list[dict[str, Any]]:
    """Return titles, headings and rows of the tables."""
    found = [
        {
            "title": title,
            "headings": HEADINGS,
            "rows": strategy_rows(own, advice.recommendation),
        }
        for title, own in (
            (
                SET_TITLE,
                advice.as_good,
            ),
            ("Everything that was tried for all epochs", advice.tried),
        )
        if own
    ]
    if advice.forecasts:
        found.append(
            {
                "title": "What more images would bring",
                "headings": FORECAST_HEADINGS,
                "rows": forecast_rows(advice),
            }
        )
    if advice.probes:
        rows = [
            [one.backbone or "pixels", one.weights or "–", one.stage or "–", one.kind,
             percent(one.top1)]
            for one in advice.probes
        ]  # fmt: skip
        headings = ["network", "weights", "stage", "probe", "accuracy"]
        found.append({"title": "Probes", "headings": headings, "rows": rows})
    if advice.signs:
        rows = [[one.message, file] for one in advice.signs for file in one.files or ("",)]
        found.append({"title": "Signs", "headings": ["what", "file"], "rows": rows})
    return found


def _accuracy_against_cost(advice: Advice) -> go.Figure:
    """Return the plot of expected accuracy against training time."""
    every = [*advice.tried, *(one for one in advice.as_good if not one.folds)]
    shown = [one for one in every if one.expected_test_top1 is not None and one.train_s]
    figure = go.Figure()
    for policy in dict.fromkeys(one.policy for one in shown):
        own = [one for one in shown if one.policy == policy]
        colour = COLOURS[list(dict.fromkeys(o.policy for o in shown)).index(policy) % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=[one.train_s for one in own],
                y=[one.expected_test_top1 for one in own],
                error_y=_bars(own),
                mode="markers",
                name=html.escape(policy),
                text=[_label(one) for one in own],
                hovertemplate="%{text}<br>%{y:.1%}, %{x:.3g} s<extra></extra>",
                marker={
                    "color": colour,
                    "size": [18 if one == advice.recommendation else 11 for one in own],
                    "symbol": [_symbol(one, advice.recommendation) for one in own],
                },
            )
        )
    figure.update_xaxes(title_text="training time of the full run, s", type="log", gridcolor=GREY)
    figure.update_yaxes(title_text="expected test accuracy", tickformat=".0%", gridcolor=GREY)
    return _styled(figure)


def _symbol(one: Strategy, recommended: Strategy | None) -> str:
    if one == recommended:
        return "star"
    return "circle" if one.is_contender else "circle-open"


def _label(one: Strategy) -> str:
    words = f"{one.policy} of {one.backbone}, {one.backend}, rate {one.learning_rate:.3g}"
    return html.escape(words)


def _bars(own: Sequence[Strategy]) -> dict[str, Any]:
    """Return the error bars of strategies."""
    ends = [one.interval or (one.expected_test_top1 or 0.0,) * 2 for one in own]
    values = [one.expected_test_top1 or 0.0 for one in own]
    return {
        "type": "data", "symmetric": False, "thickness": 1,
        "array": [high - value for (_, high), value in zip(ends, values, strict=True)],
        "arrayminus": [value - low for (low, _), value in zip(ends, values, strict=True)],
    }  # fmt: skip


def _learning_curve(advice: Advice) -> go.Figure:
    figure = go.Figure()
    for number, policy in enumerate(dict.fromkeys(p.policy for p in advice.learning_curve)):
        own = [point for point in advice.learning_curve if point.policy == policy]
        figure.add_trace(
            go.Scatter(
                x=[point.images for point in own],
                y=[point.top1 for point in own],
                error_y={"type": "data", "array": [point.standard_error for point in own]},
                mode="lines+markers",
                name=html.escape(policy),
                line={"color": COLOURS[number % len(COLOURS)]},
            )
        )
    figure.update_xaxes(title_text="training images", type="log", gridcolor=GREY)
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", gridcolor=GREY)
    return _styled(figure)


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        height=PLOT_PX, paper_bgcolor=TRANSPARENT, plot_bgcolor=TRANSPARENT,
        margin={"t": 20, "r": 20}, legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    return figure
