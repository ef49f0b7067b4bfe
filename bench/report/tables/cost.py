"""What it costs to reach an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.groups import SeedGroup, policy_variant
from bench.analysis.speed import is_unsteady
from bench.report.format import count, seconds, spread
from bench.report.tables.model import (
    COMMON,
    Table,
    TableCell,
    TableColumn,
    common,
    figure,
    text,
    told_apart,
)
from bench.report.tables.speeds import UNSTEADY_NOTE
from bench.storage.results import StoredRun

SHARE = 0.95
"""Of the best validation accuracy on the same images: what is to be reached."""


@dataclass(frozen=True)
class Reached:
    """When a run got there."""

    epoch: int
    """From 1."""
    seconds: float | None
    """Of its fit; None where it has no time of its own."""


def reached(run: StoredRun, target: float) -> Reached | None:
    """When validation first showed the target; None: never.

    The time of an epoch is the fit's, less what the values of a frozen part took at its start,
    over the number of epochs.
    """
    result, epochs = run.result, run.spec.recipe.epochs
    for number, top1 in enumerate(result.val_top1_by_epoch, 1):
        if top1 is not None and top1 >= target:
            if result.fit_s is None:
                return Reached(number, None)
            start_s = result.prefix_s or 0.0
            return Reached(number, start_s + (result.fit_s - start_s) * number / epochs)
    return None


def cost_table(cells: Sequence[SeedGroup]) -> Table:
    """Epochs, images and seconds to reach ``SHARE`` of the best on the same images."""
    targets: dict[tuple[str, ...], float] = {}
    for cell in cells:
        best = max((v for r in cell.rows for v in r.result.val_top1_by_epoch if v is not None),
                   default=0.0)  # fmt: skip
        targets[_data(cell)] = max(best, targets.get(_data(cell), 0.0))
    rows, shown = [], []
    for cell in cells:
        target = SHARE * targets[_data(cell)]
        found = [r for run in cell.rows if (r := reached(run, target)) is not None]
        if not target:
            continue
        shown.append(cell)
        every = len(found) == len(cell.rows)
        epochs = sum(r.epoch for r in found) / len(found) if every else None
        times = [r.seconds for r in found if r.seconds is not None]
        took = sum(times) / len(times) if every and len(times) == len(found) else None
        images = None if epochs is None else epochs * cell.row.dataset.train_images
        rows.append(
            [
                *common(cell.row),
                text(policy_variant(cell)),
                text(cell.row.spec.backend),
                figure(f"{target:.1%}", target),
                figure(
                    f"{len(found)} of {len(cell.rows)}", len(found) / len(cell.rows), len(found)
                ),
                text(None) if epochs is None else figure(f"{epochs:.3g}", epochs),
                figure(count(images), images),
                _time(cell, times, took),
                _time(cell, [row.result.tune_s for row in cell.rows], cell.mean("tune_s")),
            ]
        )
    made = Table(
        "cost",
        "Cost to reach an accuracy",
        f"When validation first showed {SHARE:.0%} of the best validation accuracy that any run "
        "reached on the same images; means over the seeds, where every seed got there.",
        (
            *COMMON,
            TableColumn("policy", "policy"),
            TableColumn("backend", "backend"),
            TableColumn("target_val_top1", "to be reached", True),
            TableColumn("reached", "reached by", True),
            TableColumn("epochs", "epochs", True),
            TableColumn("images", "images seen", True),
            TableColumn("seconds", "time", True),
            TableColumn("tune_s", "trials before", True),
        ),
        rows,
        (
            "the time of an epoch is the fit's over the number of epochs, compilation spread over "
            "them; the computing of a frozen part's values is counted whole; what --tune spent on "
            "choosing a learning rate stands beside and is not in it",
            *([UNSTEADY_NOTE] if any(map(is_unsteady, shown)) else []),
        ),
    )
    return told_apart(made, shown)


def _time(cell: SeedGroup, values: Sequence[float | None], mean: float | None) -> TableCell:
    """Seconds: the mean over the seeds, or the range where the machine was busy."""
    known = [value for value in values if value is not None]
    if mean is None or not is_unsteady(cell):
        return figure(seconds(mean), mean)
    return figure(f"{spread(known, 's')}, unsteady", mean)


def _data(cell: SeedGroup) -> tuple[str, ...]:
    """Validation images, and how they are looked at."""
    return cell.row.dataset.content_hash, str(cell.row.spec.recipe.px)
