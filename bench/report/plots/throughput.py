"""The plot of training speed."""

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


def _labels(groups: Sequence[SeedGroup]) -> list[str]:
    """Return a name for each bar, unique within a backend, or the bars would overlap."""
    return [
        f"{escaped(policy_variant(c))}<br>{escaped(c.row.dataset.name)}, "
        f"{c.row.dataset.train_images:,}, {escaped(c.row.spec.backbone)}"
        + (f"<br>{escaped(apart)}" if apart else "")
        for c, apart in zip(groups, settings(groups), strict=True)
    ]


def throughput(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return training speed in whole steps; effective rates are never shown beside them."""
    whole = [c for c in groups if rate_of(c).whole is not None]
    drawn = [_bar(c, label) for c, label in zip(whole, _labels(whole), strict=True)]
    bars: dict[str, list[ThroughputBar]] = {}
    for group, bar in zip(whole, drawn, strict=True):
        bars.setdefault(group.row.spec.backend, []).append(bar)
    data = [
        _trace(backend, COLOURS[place % len(COLOURS)], own)
        for place, (backend, own) in enumerate(bars.items())
    ]
    unsteady = any(bar.is_unsteady for bar in drawn)
    if unsteady:
        data.append(legend_of_hatching(UNSTEADY_NAME, slot=data[0]["offsetgroup"]))
    caption = [
        "Training images/s of whole steps. Bars: the median window of each run, as a geometric "
        "mean over the seeds."
    ]
    if any(len(bar.rates) > 1 for bar in drawn):
        caption.append("Thin lines: from the slowest run to the fastest.")
    if len(drawn) < len(groups):
        caption.append(
            "Left out: runs that were too short, were trained together with others, or computed "
            "the values of a frozen part once."
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
    """The bar of a seed group."""

    label: str
    rates: Sequence[float]
    """Median window of each run that has one, in images/s."""
    mean: float
    """Geometric mean of these."""
    is_unsteady: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Rates of the slowest and the fastest run."""
        return (min(self.rates), max(self.rates)) if len(self.rates) > 1 else (self.mean, self.mean)

    @property
    def words(self) -> str:
        """Text on hovering."""
        runs = ", ".join(f"{one:,.0f}" for one in self.rates)
        each = f"runs: {runs}" if len(self.rates) > 1 else ""
        unsteady = UNSTEADY_NAME if self.is_unsteady else ""
        return "<br>".join(filter(None, [f"{self.mean:,.0f} images/s", each, unsteady]))


def _bar(group: SeedGroup, label: str) -> ThroughputBar:
    found = rate_of(group).whole
    assert found is not None
    rates = [rate for row in group.rows if (rate := row.result.train_images_per_s)]
    return ThroughputBar(label, rates, found.value, is_unsteady(group))


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
    """Return the height in pixels at which labels of three lines do not overlap."""
    return max(320, 120 + 54 * bars)
