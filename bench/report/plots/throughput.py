"""The plot of training speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.intervals import Estimate
from bench.analysis.rows import grouped
from bench.analysis.speed import is_unsteady, rate_of, without_interval
from bench.report.labels import settings
from bench.report.plots import style


def throughput(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return training speed in whole steps; effective rates are never shown beside them."""
    means = {group: mean for group in groups if (mean := _mean(group)) is not None}
    labels, traces = _labels(list(means)), []
    by_backend = grouped(means, lambda group: group.row.spec.backend).items()
    for (backend, same), colour in zip(by_backend, cycle(style.COLOURS), strict=False):
        found = [means[group] for group in same]
        traces.append(
            style.bars(style.escaped(backend), offsetgroup=backend,
                       y=[labels[group] for group in same], x=[mean.value for mean in found],
                       error_x=style.error_bars(found) | {"color": style.GREY},
                       marker=style.hatched(colour, [is_unsteady(group) for group in same]),
                       text=[_words(group, means[group].value) for group in same])
        )  # fmt: skip
    unsteady = any(map(is_unsteady, means))
    if unsteady:  # in the slot of other bars, so that it takes no space of its own
        traces.append(style.legend_of_hatching(offsetgroup=traces[0]["offsetgroup"]))
    caption = {
        "Training images/s of whole steps. Bars: the median window of each run, as a geometric "
        "mean over the seeds.": True,
        "Thin lines: from the slowest run to the fastest.": any(len(_rates(c)) > 1 for c in means),
        "Left out: runs that were too short, were trained together with others, or computed the "
        "values of a frozen part once.": len(means) < len(groups),
        style.HATCHED: unsteady,
    }
    axes = style.axis("images/s", rangemode="tozero"), style.DOWNWARD
    height_px = max(320, 120 + 54 * len(set(labels.values())))  # for labels of three lines
    return style.plot("throughput", "Throughput", caption, traces, axes,
                      barmode="group", height=height_px)  # fmt: skip


def _labels(groups: Sequence[SeedGroup]) -> dict[SeedGroup, str]:
    """Return a name for each bar, unique within a backend, or the bars would overlap."""
    labels = {}
    for group, setting in zip(groups, settings(groups), strict=True):
        data = group.row.dataset
        about = f"{data.name}, {data.train_images:,}, {group.row.spec.backbone}"
        lines = filter(None, (policy_variant(group), about, setting))
        labels[group] = "<br>".join(map(style.escaped, lines))
    return labels


def _rates(group: SeedGroup) -> list[float]:
    """Return the median window of each run that has one, in images/s."""
    return [rate for row in group.rows if (rate := row.result.train_images_per_s)]


def _mean(group: SeedGroup) -> Estimate | None:
    """Return the mean rate, with the slowest and the fastest run in place of its interval."""
    mean, rates = rate_of(group).whole, _rates(group)
    if mean is None or len(rates) < 2:
        return mean and without_interval(mean)
    return replace(mean, low=min(rates), high=max(rates))


def _words(group: SeedGroup, mean: float) -> str:
    """Return the text on hovering."""
    rates = _rates(group)
    runs = f"runs: {', '.join(f'{rate:,.0f}' for rate in rates)}" if len(rates) > 1 else ""
    unsteady = style.UNSTEADY_NAME if is_unsteady(group) else ""
    return "<br>".join(filter(None, [f"{mean:,.0f} images/s", runs, unsteady]))
