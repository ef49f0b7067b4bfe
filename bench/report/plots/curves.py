"""Plots of accuracy by epoch and by number of training images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from bench.analysis.groups import SeedGroup, policy_variant, settings_of
from bench.analysis.rows import Row
from bench.report.format import number_of, percent
from bench.report.labels import (
    ANSWERS,
    SETTINGS,
    choices,
    differences,
    question_name,
    settings,
)
from bench.report.plots.style import (
    Figure,
    Looks,
    axis,
    error_bars,
    escaped,
    log_axis,
    one_at_a_time,
    plot,
)

MOST_CURVES = 24
"""Most curves in a plot; more are unreadable."""


def learning_curves(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return validation accuracy by epoch, with bands over seeds and a choice for each question."""
    looks = Looks(groups)
    traces: dict[str, list[Figure]] = {}
    broken, left_out = 0, 0
    for label, members in choices(groups, ANSWERS, question_name).items():
        whole = [c for c in members if _by_epoch(c) is not None]
        shown = whole[:MOST_CURVES]
        broken += len(members) - len(whole)
        left_out += len(whole) - len(shown)
        drawn = [_curve(c, looks, own) for c, own in zip(shown, settings(shown), strict=True)]
        traces[label] = [line for lines in drawn for line in lines]
    caption = "Validation accuracy after each epoch, mean over the seeds."
    if any(len(c.rows) > 1 for c in groups):
        caption += " Bands: from the lowest seed to the highest."
    if broken:
        caption += f" {number_of(broken, 'curve')} left out: a seed lacks an epoch."
    if left_out:
        caption += f" {number_of(left_out, 'curve')} left out: at most {MOST_CURVES} are drawn."
    made = plot(
        "learning_curves",
        "Learning curves",
        caption,
        [],
        axis("epoch", dtick=1, tick0=1) if _few_epochs(groups) else axis("epoch"),
        axis("validation top-1", tickformat=".0%"),
    )
    return one_at_a_time(made, traces)


def _few_epochs(groups: Sequence[SeedGroup]) -> bool:
    return max((c.row.spec.recipe.epochs for c in groups), default=0) <= 20


def _by_epoch(group: SeedGroup) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return accuracies (seeds, epochs) float64; None if an epoch is missing."""
    curves = [r.result.val_top1_by_epoch for r in group.rows]
    if len({len(c) for c in curves}) != 1 or not curves[0]:
        return None
    if any(v is None for c in curves for v in c):
        return None
    return np.array(curves, dtype=np.float64)


def _curve(group: SeedGroup, looks: Looks, setting: str) -> list[Figure]:
    values = _by_epoch(group)
    assert values is not None
    epochs = list(range(1, values.shape[1] + 1))
    colour, name = looks.colour(group), _name(group, setting)
    line: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "x": epochs,
        "y": values.mean(axis=0).tolist(),
        "line": {"color": colour, "dash": looks.dash(group)},
        "hovertemplate": "%{y:.1%} after epoch %{x}",
    }
    if len(values) == 1:
        return [line]
    band: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": name,
        "x": [*epochs, *reversed(epochs)],
        "y": [*values.max(axis=0).tolist(), *reversed(values.min(axis=0).tolist())],
        "fill": "toself",
        "fillcolor": f"{colour}26",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [band, line]


def _name(group: SeedGroup, setting: str) -> str:
    """Return the name of a line: policy, backend, and what distinguishes it from others."""
    return escaped(
        ", ".join(filter(None, (policy_variant(group), group.row.spec.backend, setting)))
    )


SIZED = frozenset({"case", "size", "train_images", "val_images", "dataset_hash", "epochs", "seed"})
"""Fields in which seed groups on a line of ``accuracy_by_size`` may differ."""


def accuracy_by_size(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """Return accuracy by number of training images, for data sets with several; there is a choice
    for each data set and network."""
    looks = Looks(groups)
    traces: dict[str, list[Figure]] = {}
    unclear = 0
    for label, members in choices(groups, SIZED | ANSWERS, _data_and_network).items():
        lines = [line for line in _lines(members) if len({_images(c) for c in line}) > 1]
        clear = [line for line in lines if len({_images(c) for c in line}) == len(line)]
        unclear += len(lines) - len(clear)
        if clear:
            named = zip(clear, _settings(clear), strict=True)
            traces[label] = [_line(line, setting, looks) for line, setting in named]
    caption = (
        "Where the lines of two policies cross, the better choice changes, unless their bars "
        "overlap. "
    )
    if any(len({c.row.spec.recipe.epochs for c in line}) > 1 for line in _lines(groups)):
        caption += "The number of epochs differs between sizes, as in the suite. "
    if unclear:
        caption += (
            f"{number_of(unclear, 'line')} left out: different images have the same name and "
            "number. "
        )
    made = plot(
        "accuracy_size",
        "Accuracy against data-set size",
        f"{caption}Bars: 95% intervals.",
        [],
        log_axis("training images", [_images(c) for c in groups]),
        axis("test top-1", tickformat=".0%"),
    )
    return one_at_a_time(made, traces)


def _data_and_network(row: Row) -> str:
    return f"{row.dataset.label}, {row.spec.backbone}"


def _images(group: SeedGroup) -> int:
    images: int = group.row.dataset.train_images
    return images


def _lines(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Group seed groups that differ in size alone, on the same test images; smallest first."""
    lines: dict[tuple[Hashable, ...], list[SeedGroup]] = {}
    for group in groups:
        labels = frozenset(a.labels_sha256 for a in group.answers.values())
        lines.setdefault((labels, *settings_of(group.row, SIZED)), []).append(group)
    return [sorted(line, key=_images) for line in lines.values()]


ON_LINES_PX = 8
"""Size of marks on lines, in pixels."""


def _settings(lines: Sequence[Sequence[SeedGroup]]) -> list[str]:
    """Return what distinguishes each line from others of its policy and backend."""
    rows, names = [line[0].row for line in lines], [_name(line[0], "") for line in lines]
    usual = differences(rows, names, [f for f in SETTINGS if f not in SIZED])
    hashes = differences(rows, names, ["dataset_hash"])
    # The hash of the data follows from the size: it is named only if nothing else is.
    plain = {name for name, setting in zip(names, usual, strict=True) if setting}
    return [
        setting if name in plain else by_hash
        for name, setting, by_hash in zip(names, usual, hashes, strict=True)
    ]


def _line(line: Sequence[SeedGroup], setting: str, looks: Looks) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _name(line[0], setting),
        "x": [_images(c) for c in line],
        "y": [c.top1.value for c in line],
        "error_y": error_bars([c.top1 for c in line]),
        "line": {"color": looks.colour(line[0]), "dash": looks.dash(line[0])},
        "marker": looks.marker(line[0]) | {"size": ON_LINES_PX},
        "text": [percent(c.top1) for c in line],
        "hovertemplate": "%{text} with %{x:,} images",
    }
