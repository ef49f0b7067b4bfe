"""The table of the cost to reach an accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.groups import SeedGroup
from bench.analysis.rows import grouped
from bench.analysis.speed import is_unsteady
from bench.report.format import seconds
from bench.report.labels import settings
from bench.report.tables import model
from bench.report.tables.model import Table, TableColumn, figure
from bench.report.tables.speeds import UNSTEADY_NOTE, unless_unsteady
from bench.storage.results import StoredRun

SHARE = 0.95
"""Accuracy to reach, as a fraction of the best validation accuracy on the same images."""


def cost_table(groups: Sequence[SeedGroup]) -> Table:
    """Return epochs, images and seconds to ``SHARE`` of the best accuracy on the same images."""
    best = {
        images: max((v for group in same for row in group.rows
                     for v in row.result.val_top1_by_epoch if v is not None), default=0.0)
        for images, same in grouped(groups, _validation_images).items()
    }  # fmt: skip
    shown = [group for group in groups if best[_validation_images(group)]]
    lines = []
    for group in shown:
        target = SHARE * best[_validation_images(group)]
        reached = [_reached(run, target) for run in group.rows]
        epochs = [epoch for epoch, _ in reached if epoch is not None]
        times = [time for _, time in reached if time is not None]
        share = len(epochs) / len(reached)
        epoch, time = (sum(values) / len(values) if len(values) == len(reached) else None
                       for values in (epochs, times))  # fmt: skip
        images = None if epoch is None else epoch * group.row.dataset.train_images
        tuning, tune_s = [row.result.tune_s for row in group.rows], group.mean("tune_s")
        lines.append(
            {
                **model.common(group.row),
                **model.policy_and_backend(group),
                TableColumn("target_val_top1", "target val top-1", True):
                    model.number(target, "{:.1%}".format),
                TableColumn("reached", "reached by", True):
                    figure(f"{len(epochs)} of {len(reached)}", share, len(epochs)),
                TableColumn("epochs", "epochs", True): model.number(epoch, "{:.3g}".format),
                TableColumn("images", "images seen", True): model.number(images, "{:,.0f}".format),
                TableColumn("seconds", "time", True):
                    unless_unsteady(model.number(time, seconds), group, times, "s"),
                TableColumn("tune_s", "tuning before", True):
                    unless_unsteady(model.number(tune_s, seconds), group, tuning, "s"),
            }
        )  # fmt: skip
    return model.table_of(
        lines,
        "cost",
        "Cost to reach an accuracy",
        f"When validation first reached {SHARE:.0%} of the best validation accuracy of any run on "
        "the same images. Means over the seeds, if every seed reached it.",
        {
            "The time of an epoch is the time of the fit divided by the number of epochs, so "
            "compilation is spread over them. Computing the values of a frozen part counts in "
            "full. Choosing a learning rate (--tune) is shown beside and not included.": True,
            UNSTEADY_NOTE: any(map(is_unsteady, shown)),
        },
        settings(shown),
    )


def _reached(run: StoredRun, target: float) -> tuple[int | None, float | None]:
    """Return the epoch, from 1, after which validation first reached the target, and the seconds
    of the fit until then; None if never, or if the run has no time of its own.

    An epoch takes the time of the fit divided by the number of epochs, not counting the time
    spent at the start on the values of a frozen part.
    """
    result = run.result
    for number, top1 in enumerate(result.val_top1_by_epoch, 1):
        if top1 is not None and top1 >= target:
            if result.fit_s is None:
                return number, None
            start_s = result.prefix_s or 0.0
            return number, start_s + (result.fit_s - start_s) * number / run.spec.recipe.epochs
    return None, None


def _validation_images(group: SeedGroup) -> tuple[str, int]:
    """Return what identifies the validation images, and their size in pixels."""
    return group.row.dataset.content_hash, group.row.spec.recipe.px
