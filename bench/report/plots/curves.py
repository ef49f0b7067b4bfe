"""Plots of accuracy by epoch and by number of training images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from bench.analysis.groups import SeedGroup, settings_of
from bench.analysis.intervals import Floats
from bench.analysis.rows import grouped
from bench.errors import number_of
from bench.report.format import percent
from bench.report.labels import ANSWERS, SETTINGS, choices, differences, question_name, settings
from bench.report.plots import style
from bench.report.plots.style import Figure

MOST_CURVES = 24
"""Most curves in a plot; more are unreadable."""


def learning_curves(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return validation accuracy by epoch, with bands over seeds and a choice for each question."""
    looks = style.Looks(groups)
    traces: dict[str, list[Figure]] = {}
    broken, left_out = 0, 0
    for label, members in choices(groups, ANSWERS, question_name).items():
        curves = {c: values for c in members if (values := _by_epoch(c)) is not None}
        shown = list(curves)[:MOST_CURVES]
        broken += len(members) - len(curves)
        left_out += len(curves) - len(shown)
        names = [style.trace_name(c, own) for c, own in zip(shown, settings(shown), strict=True)]
        traces[label] = [
            line
            for c, name in zip(shown, names, strict=True)
            for line in _curve(curves[c], name, looks.line(c))
        ]
    caption = {
        "Validation accuracy after each epoch, mean over the seeds.": True,
        "Bands: from the lowest seed to the highest.": any(len(c.rows) > 1 for c in groups),
        f"{number_of(broken, 'curve')} left out: a seed lacks an epoch.": broken,
        f"{number_of(left_out, 'curve')} left out: at most {MOST_CURVES} are drawn.": left_out,
    }
    few_epochs = all(c.row.spec.recipe.epochs <= 20 for c in groups)
    across = style.axis("epoch", **({"dtick": 1, "tick0": 1} if few_epochs else {}))
    axes = across, style.axis("validation top-1", tickformat=".0%")
    return style.plot("learning_curves", "Learning curves", caption, traces, axes)


def _by_epoch(group: SeedGroup) -> Floats | None:
    """Return accuracies (seeds, epochs) float64; None if an epoch is missing."""
    curves = [r.result.val_top1_by_epoch for r in group.rows]
    is_whole = len({len(c) for c in curves}) == 1 and not any(v is None for c in curves for v in c)
    return np.array(curves, dtype=np.float64) if is_whole and curves[0] else None


def _curve(values: Floats, name: str, look: dict[str, str]) -> list[Figure]:
    """Return the means over the seeds of values (seeds, epochs), on a band if there are several."""
    epochs = list(range(1, values.shape[1] + 1))
    line = style.scatter("lines+markers", name, x=epochs, y=values.mean(axis=0).tolist(),
                         legendgroup=name, line=look,
                         hovertemplate="%{y:.1%} after epoch %{x}")  # fmt: skip
    if len(values) == 1:
        return [line]
    ends = [*values.max(axis=0).tolist(), *reversed(values.min(axis=0).tolist())]
    band = style.scatter("lines", name, x=[*epochs, *reversed(epochs)], y=ends, fill="toself",
                         legendgroup=name, line={"width": 0}, fillcolor=f"{look['color']}26",
                         hoverinfo="skip", showlegend=False)  # fmt: skip
    return [band, line]


SIZED = frozenset({"case", "size", "train_images", "val_images", "dataset_hash", "epochs", "seed"})
"""Fields in which seed groups on a line of ``accuracy_by_size`` may differ."""


def accuracy_by_size(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return accuracy by number of training images, for data sets with several; there is a choice
    for each data set and network."""
    looks = style.Looks(groups)
    traces: dict[str, list[Figure]] = {}
    unclear = 0
    by_question = choices(
        groups, SIZED | ANSWERS, lambda row: f"{row.dataset.label}, {row.spec.backbone}"
    )
    for label, members in by_question.items():
        sizes = {tuple(line): len(set(map(_images, line))) for line in _lines(members)}
        clear = [line for line, number in sizes.items() if 1 < number == len(line)]
        unclear += sum(1 < number < len(line) for line, number in sizes.items())
        if clear:
            named = zip(clear, _settings(clear), strict=True)
            traces[label] = [_line(line, setting, looks) for line, setting in named]
    epochs = [{c.row.spec.recipe.epochs for c in line} for line in _lines(groups)]
    caption = {
        "Where the lines of two policies cross, the better choice changes, unless their bars "
        "overlap.": True,
        "The number of epochs differs between sizes, as in the suite.": any(
            len(different) > 1 for different in epochs
        ),
        f"{number_of(unclear, 'line')} left out: different images have the same name and "
        "number.": unclear,
        "Bars: 95% intervals.": True,
    }
    axes = style.log_axis("training images", [_images(c) for c in groups]), style.ACCURACY
    return style.plot("accuracy_size", "Accuracy against data-set size", caption, traces, axes)


def _images(group: SeedGroup) -> int:
    return group.row.dataset.train_images


def _lines(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Group seed groups that differ in size alone, on the same test images; smallest first."""

    def line_of(group: SeedGroup) -> Hashable:
        labels = frozenset(a.labels_sha256 for a in group.answers.values())
        return labels, settings_of(group.row, SIZED)

    return [sorted(line, key=_images) for line in grouped(groups, line_of).values()]


def _settings(lines: Sequence[Sequence[SeedGroup]]) -> list[str]:
    """Return what distinguishes each line from others of its policy and backend."""
    rows, names = [line[0].row for line in lines], [style.trace_name(line[0]) for line in lines]
    usual = differences(rows, names, [f for f in SETTINGS if f not in SIZED])
    # The hash of the data follows from the size: it is named only if nothing else is.
    hashes = differences(rows, names, ["dataset_hash"])
    return [setting or by_hash for setting, by_hash in zip(usual, hashes, strict=True)]


def _line(line: Sequence[SeedGroup], setting: str, looks: style.Looks) -> Figure:
    first, accuracies = line[0], [c.top1 for c in line]
    return style.scatter("lines+markers", style.trace_name(first, setting),
                         x=[_images(c) for c in line], y=[e.value for e in accuracies],
                         error_y=style.error_bars(accuracies),
                         line=looks.line(first),
                         marker=looks.marker(first) | {"size": 8},  # small, so that the line shows
                         text=[percent(e) for e in accuracies],
                         hovertemplate="%{text} with %{x:,} images")  # fmt: skip
