"""Accuracy by epoch, and by the number of training images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from bench.analysis.groups import SeedGroup, group_identity, policy_variant
from bench.analysis.rows import Row
from bench.report.format import number_of, percent
from bench.report.labels import (
    ANSWERS,
    APART,
    choices,
    differing_fields,
    question_name,
    settings,
    told,
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
"""Beyond which a plot of curves shows nothing."""


def learning_curves(cells: Sequence[SeedGroup]) -> dict[str, Any]:
    """Validation accuracy by epoch; a choice for each question, bands over the seeds."""
    looks = Looks(cells)
    traces: dict[str, list[Figure]] = {}
    broken, left_out = 0, 0
    for label, group in choices(cells, ANSWERS, question_name).items():
        whole = [c for c in group if _by_epoch(c) is not None]
        shown = whole[:MOST_CURVES]
        broken += len(group) - len(whole)
        left_out += len(whole) - len(shown)
        drawn = [_curve(c, looks, own) for c, own in zip(shown, settings(shown), strict=True)]
        traces[label] = [line for lines in drawn for line in lines]
    caption = "Validation accuracy after each epoch, mean over the seeds."
    if any(len(c.rows) > 1 for c in cells):
        caption += " Bands: from the lowest seed to the highest."
    if broken:
        caption += f" {number_of(broken, 'curve')} with an epoch missing in a seed: left out."
    if left_out:
        caption += f" {number_of(left_out, 'curve')} beyond {MOST_CURVES}: left out."
    made = plot(
        "learning_curves",
        "Learning curves",
        caption,
        [],
        axis("epoch", dtick=1, tick0=1) if _few_epochs(cells) else axis("epoch"),
        axis("validation top-1", tickformat=".0%"),
    )
    return one_at_a_time(made, traces)


def _few_epochs(cells: Sequence[SeedGroup]) -> bool:
    return max((c.row.spec.recipe.epochs for c in cells), default=0) <= 20


def _by_epoch(cell: SeedGroup) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """(seeds, epochs); None where an epoch is missing."""
    curves = [r.result.val_top1_by_epoch for r in cell.rows]
    if len({len(c) for c in curves}) != 1 or not curves[0]:
        return None
    if any(v is None for c in curves for v in c):
        return None
    return np.array(curves, dtype=np.float64)


def _curve(cell: SeedGroup, looks: Looks, setting: str) -> list[Figure]:
    values = _by_epoch(cell)
    assert values is not None
    epochs = list(range(1, values.shape[1] + 1))
    colour, name = looks.colour(cell), _name(cell, setting)
    line: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "x": epochs,
        "y": values.mean(axis=0).tolist(),
        "line": {"color": colour, "dash": looks.dash(cell)},
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


def _name(cell: SeedGroup, setting: str) -> str:
    """Of a line: its policy and backend, and what sets it apart from others of these."""
    return escaped(", ".join(filter(None, (policy_variant(cell), cell.row.spec.backend, setting))))


SIZED = frozenset({"case", "size", "train_images", "val_images", "dataset_hash", "epochs", "seed"})
"""In which cells on a line of ``accuracy_by_size`` may differ."""


def accuracy_by_size(cells: Sequence[SeedGroup]) -> dict[str, Any]:
    """Accuracy against the number of training images, where a data set has several; a choice for
    each data set and network."""
    looks = Looks(cells)
    traces: dict[str, list[Figure]] = {}
    unclear = 0
    for label, group in choices(cells, SIZED | ANSWERS, _data_and_network).items():
        lines = [line for line in _lines(group) if len({_images(c) for c in line}) > 1]
        clear = [line for line in lines if len({_images(c) for c in line}) == len(line)]
        unclear += len(lines) - len(clear)
        if clear:
            named = zip(clear, _settings(clear), strict=True)
            traces[label] = [_line(line, setting, looks) for line, setting in named]
    caption = (
        "Where the lines of two policies cross, the better choice changes, by the estimates; where "
        "their bars overlap, it may not. "
    )
    if any(len({c.row.spec.recipe.epochs for c in line}) > 1 for line in _lines(cells)):
        caption += "The epochs differ from size to size, as the suite has them. "
    if unclear:
        caption += (
            f"{number_of(unclear, 'line')} left out: there are other images of the same name and "
            "number. "
        )
    made = plot(
        "accuracy_size",
        "Accuracy against data-set size",
        f"{caption}Bars: 95% intervals.",
        [],
        log_axis("training images", [_images(c) for c in cells]),
        axis("test top-1", tickformat=".0%"),
    )
    return one_at_a_time(made, traces)


def _data_and_network(row: Row) -> str:
    return f"{row.dataset.label}, {row.spec.backbone}"


def _images(cell: SeedGroup) -> int:
    images: int = cell.row.dataset.train_images
    return images


def _lines(cells: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """Cells that differ in the size alone, and answered the same test images; smallest first."""
    groups: dict[tuple[Hashable, ...], list[SeedGroup]] = {}
    for cell in cells:
        labels = frozenset(a.labels_sha256 for a in cell.answers.values())
        groups.setdefault((labels, *group_identity(cell, SIZED)), []).append(cell)
    return [sorted(group, key=_images) for group in groups.values()]


ON_LINES_PX = 8
"""Marks."""


def _settings(lines: Sequence[Sequence[SeedGroup]]) -> list[str]:
    """For each line, what sets it apart from others of its policy and backend."""
    rows: dict[str, list[Row]] = {}
    for line in lines:
        rows.setdefault(_name(line[0], ""), []).append(line[0].row)
    usual = [f for f in APART if f not in SIZED]
    fields = {
        name: differing_fields(alike, usual) or differing_fields(alike, ["dataset_hash"])
        for name, alike in rows.items()
    }
    return [
        ", ".join(told(f, line[0].row[f]) for f in fields[_name(line[0], "")]) for line in lines
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
