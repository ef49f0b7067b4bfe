"""The table of the cost to reach an accuracy."""

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
    with_settings,
)
from bench.report.tables.speeds import UNSTEADY_NOTE
from bench.storage.results import StoredRun

SHARE = 0.95
"""Accuracy to reach, as a fraction of the best validation accuracy on the same images."""


@dataclass(frozen=True)
class Reached:
    """The point at which a run reached the accuracy."""

    epoch: int
    """Epoch, counted from 1."""
    seconds: float | None
    """Time of its fit until then; None if the run has no time of its own."""


def reached(run: StoredRun, target: float) -> Reached | None:
    """Return when validation first reached the target; None if never.

    An epoch takes the time of the fit divided by the number of epochs, not counting the time
    spent at the start on the values of a frozen part.
    """
    result, epochs = run.result, run.spec.recipe.epochs
    for number, top1 in enumerate(result.val_top1_by_epoch, 1):
        if top1 is not None and top1 >= target:
            if result.fit_s is None:
                return Reached(number, None)
            start_s = result.prefix_s or 0.0
            return Reached(number, start_s + (result.fit_s - start_s) * number / epochs)
    return None


def cost_table(groups: Sequence[SeedGroup]) -> Table:
    """Return epochs, images and seconds to ``SHARE`` of the best accuracy on the same images."""
    targets: dict[tuple[str, ...], float] = {}
    for group in groups:
        best = max((v for r in group.rows for v in r.result.val_top1_by_epoch if v is not None),
                   default=0.0)  # fmt: skip
        targets[_validation_images(group)] = max(best, targets.get(_validation_images(group), 0.0))
    rows, shown = [], []
    for group in groups:
        target = SHARE * targets[_validation_images(group)]
        found = [r for run in group.rows if (r := reached(run, target)) is not None]
        if not target:
            continue
        shown.append(group)
        every = len(found) == len(group.rows)
        epochs = sum(r.epoch for r in found) / len(found) if every else None
        times = [r.seconds for r in found if r.seconds is not None]
        took = sum(times) / len(times) if every and len(times) == len(found) else None
        images = None if epochs is None else epochs * group.row.dataset.train_images
        rows.append(
            [
                *common(group.row),
                text(policy_variant(group)),
                text(group.row.spec.backend),
                figure(f"{target:.1%}", target),
                figure(
                    f"{len(found)} of {len(group.rows)}", len(found) / len(group.rows), len(found)
                ),
                text(None) if epochs is None else figure(f"{epochs:.3g}", epochs),
                figure(count(images), images),
                _time(group, times, took),
                _time(group, [row.result.tune_s for row in group.rows], group.mean("tune_s")),
            ]
        )
    made = Table(
        "cost",
        "Cost to reach an accuracy",
        f"When validation first reached {SHARE:.0%} of the best validation accuracy of any run on "
        "the same images. Means over the seeds, if every seed reached it.",
        (
            *COMMON,
            TableColumn("policy", "policy"),
            TableColumn("backend", "backend"),
            TableColumn("target_val_top1", "target val top-1", True),
            TableColumn("reached", "reached by", True),
            TableColumn("epochs", "epochs", True),
            TableColumn("images", "images seen", True),
            TableColumn("seconds", "time", True),
            TableColumn("tune_s", "tuning before", True),
        ),
        rows,
        (
            "The time of an epoch is the time of the fit divided by the number of epochs, so "
            "compilation is spread over them. Computing the values of a frozen part counts in "
            "full. Choosing a learning rate (--tune) is shown beside and not included.",
            *([UNSTEADY_NOTE] if any(map(is_unsteady, shown)) else []),
        ),
    )
    return with_settings(made, shown)


def _time(group: SeedGroup, values: Sequence[float | None], mean: float | None) -> TableCell:
    """Return a cell of the mean over the seeds, or of their range if the machine was busy."""
    known = [value for value in values if value is not None]
    if mean is None or not is_unsteady(group):
        return figure(seconds(mean), mean)
    return figure(f"{spread(known, 's')}, unsteady", mean)


def _validation_images(group: SeedGroup) -> tuple[str, ...]:
    """Return what identifies the validation images, and their size in pixels."""
    return group.row.dataset.content_hash, str(group.row.spec.recipe.px)
