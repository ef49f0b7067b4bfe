"""What the numbers of a report do not reach to, found from the numbers themselves."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.cells import Cell, Contest
from bench.report.findings import Findings
from bench.report.words import number_of
from bench.store import StoredRun

CAVEATS = {
    "photos": "photos (stand-in): its test images are crops of 18 photographs, the class is the "
    "photograph, and many crops overlap. The intervals take images as independent, so they are "
    "too narrow even for other crops of these photographs (in the runs of the suite standard about "
    "one and a half times, beside taking the photographs' cells as independent), and say nothing "
    "of others.",
}
"""Data set → what its intervals cannot speak of."""


SAME_QUESTION = frozenset({"dataset_hash", "train_images", "backbone", "code_sha256", "px", "head",
                           "epochs", "batch_size", "optimizer", "augmentation", "precision",
                           "mode", "device"})  # fmt: skip
"""Fields of questions that differ in the backend alone."""


def limits(found: Findings) -> list[str]:
    """Sentences for the page."""
    names = dict.fromkeys(run.spec.case.dataset.name for run in found.runs)
    told = [CAVEATS[name] for name in names if name in CAVEATS]
    return [*told, *_same_images(found.contests), *at_the_edge(found.cells)]


def _same_images(contests: Sequence[Contest]) -> list[str]:
    """Questions that share their test images are not so many experiments."""
    asked = [c.row for c in contests if c.comparisons]
    images = {_images(c) for c in contests if c.comparisons}
    if len(asked) < 2 or len(images) == len(asked):
        return []
    experiments = {tuple(v for k, v in row.items() if k in SAME_QUESTION) for row in asked}
    repeated = len({row["backend"] for row in asked}) > 1 and len(experiments) < len(asked)
    backends = (
        f", and backends repeat the same {len(experiments)} on the same images" if repeated else ""
    )
    return [
        f"{number_of(len(asked), 'question')} are not so many experiments: they are asked of "
        f"{number_of(len(images), 'set')} of test images{backends}."
    ]


def _images(contest: Contest) -> str:
    """Hash of the test images' classes; of the data set where there are no answers."""
    for cell in contest.cells:
        for answers in cell.answers.values():
            return str(answers.labels_sha256)
    return str(contest.row["dataset_hash"])


def at_the_edge(cells: Sequence[Cell]) -> list[str]:
    """Learning rates that were the highest or the lowest of those tried: the best may lie beyond,
    and a policy whose rate stops there is compared at less than its best."""
    tuned = [(cell, run) for cell in cells for run in cell.runs if _grid(run)]
    high = [cell for cell, run in tuned if run.result.learning_rate == max(_grid(run))]
    low = sum(run.result.learning_rate == min(_grid(run)) for _, run in tuned)
    if not high and not low:
        return []
    policies = dict.fromkeys(cell.row["policy"] for cell, _ in tuned)
    each = ", ".join(
        f"{name} {count} of {sum(cell.row['policy'] == name for cell, _ in tuned)}"
        for name in policies
        if (count := sum(cell.row["policy"] == name for cell in high))
    )
    return [
        f"learning rates at the edge of what was tried: in {len(high)} of {len(tuned)} tuned runs "
        f"validation chose the highest rate{f' ({each})' if each else ''}, in {low} the lowest; "
        "such a policy may do better with a rate that was not tried."
    ]


def _grid(run: StoredRun) -> list[float]:
    """Rates that were tried, where there was a choice."""
    rates = [trial.learning_rate for trial in run.result.tuning]
    return rates if len(set(rates)) > 1 and run.result.learning_rate is not None else []
