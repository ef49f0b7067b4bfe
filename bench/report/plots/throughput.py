"""The plot of speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.speed import is_unsteady, rate_of
from bench.report.labels import settings
from bench.report.plots.style import (
    COLOURS,
    GREY,
    HATCHED,
    UNSTEADY_NAME,
    Figure,
    axis,
    escaped,
    hatched,
    legend_of_hatching,
    plot,
)


def _labels(cells: Sequence[SeedGroup]) -> list[str]:
    """A name for each bar; no two of a backend the same, or they would stand on one another."""
    return [
        f"{escaped(policy_variant(c))}<br>{escaped(c.row.dataset.name)}, "
        f"{c.row.dataset.train_images:,}, {escaped(c.row.spec.backbone)}"
        + (f"<br>{escaped(apart)}" if apart else "")
        for c, apart in zip(cells, settings(cells), strict=True)
    ]


def throughput(cells: Sequence[SeedGroup]) -> dict[str, Any]:
    """Whole steps only: effective rates never stand beside them."""
    whole = [c for c in cells if rate_of(c).whole is not None]
    drawn = [_bar(c, label) for c, label in zip(whole, _labels(whole), strict=True)]
    bars: dict[str, list[ThroughputBar]] = {}
    for cell, bar in zip(whole, drawn, strict=True):
        bars.setdefault(cell.row.spec.backend, []).append(bar)
    data = [
        _trace(backend, COLOURS[place % len(COLOURS)], group)
        for place, (backend, group) in enumerate(bars.items())
    ]
    unsteady = any(bar.is_unsteady for bar in drawn)
    if unsteady:
        data.append(legend_of_hatching(UNSTEADY_NAME, slot=data[0]["offsetgroup"]))
    caption = [
        "Training images/s of whole steps. Bars: the median window of each run, geometric mean "
        "over the seeds, as in the tables."
    ]
    if any(len(bar.rates) > 1 for bar in drawn):
        caption.append(
            "Thin lines: from the median window of the slowest run to that of the fastest."
        )
    if len(drawn) < len(cells):
        caption.append(
            "Left out: runs whose frozen part was computed once, that were over too soon or that "
            "were trained at once with others."
        )
    if unsteady:
        caption.append(HATCHED)
    made = plot(
        "throughput",
        "Throughput",
        " ".join(caption),
        data,
        axis("images/s", rangemode="tozero"),
        {"automargin": True, "autorange": "reversed"},
    )
    made["figure"]["layout"] |= {
        "barmode": "group",
        "height": _height(len({bar.label for bar in drawn})),
    }
    return made


@dataclass(frozen=True)
class ThroughputBar:
    """Of a cell."""

    label: str
    rates: Sequence[float]
    """Median window of each run that states it."""
    mean: float
    """Of these."""
    is_unsteady: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Of the slowest run and of the fastest."""
        return (min(self.rates), max(self.rates)) if len(self.rates) > 1 else (self.mean, self.mean)

    @property
    def words(self) -> str:
        """What is seen over it."""
        runs = ", ".join(f"{one:,.0f}" for one in self.rates)
        each = f"runs: {runs}" if len(self.rates) > 1 else ""
        unsteady = UNSTEADY_NAME if self.is_unsteady else ""
        return "<br>".join(filter(None, [f"{self.mean:,.0f} images/s", each, unsteady]))


def _bar(cell: SeedGroup, label: str) -> ThroughputBar:
    found = rate_of(cell).whole
    assert found is not None
    rates = [rate for row in cell.rows if (rate := row.result.train_images_per_s)]
    return ThroughputBar(label, rates, found.value, is_unsteady(cell))


def _trace(backend: str, colour: str, bars: Sequence[ThroughputBar]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": escaped(backend),
        "offsetgroup": backend,
        "y": [bar.label for bar in bars],
        "x": [bar.mean for bar in bars],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [bar.ends[1] - bar.mean for bar in bars],
            "arrayminus": [bar.mean - bar.ends[0] for bar in bars],
            "thickness": 1,
            "color": GREY,
        },
        "marker": hatched(colour, [bar.is_unsteady for bar in bars]),
        "text": [bar.words for bar in bars],
        "textposition": "none",
        "hovertemplate": "%{text}",
    }


def _height(bars: int) -> int:
    """In pixels, so that no label stands on the next: each has up to three lines."""
    return max(320, 120 + 54 * bars)
