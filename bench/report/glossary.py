"""The glossary of a report: a definition of each quantity on its page, and of no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.analysis import intervals
from bench.analysis.groups import SIGNIFICANT
from bench.analysis.intervals import Estimate
from bench.analysis.rows import Row
from bench.parity.tolerances import LEVELS, STEPS
from bench.report.format import ABSENT, listed, number_of
from bench.report.tables.model import Table, TableCell
from bench.training.clocks import LEAST_WINDOWS, WARMUP_STEPS, WINDOW_S
from bench.training.metrics import BINS

RATES = ("images_per_s", "fit_s", "speed_ratio")
"""Endings of the names of columns of rates and times."""


@dataclass(frozen=True)
class PageContents:
    """The tables and runs of a page."""

    tables: Sequence[Table]
    """All tables, including those of a comparison."""
    rows: Sequence[Row]
    """Runs; the details of each show everything that was measured."""

    def measures(self, *fields: str) -> bool:
        """Return True if any run has one of these fields."""
        return any(row[field] is not None for row in self.rows for field in fields)

    def has_text(self, words: str, columns: str = "") -> bool:
        """Return True if a cell matches a regular expression.

        Args:
            words: The regular expression.
            columns: Part of the names of the columns to search.
        """
        return any(columns in name and re.search(words, cell.text) for name, cell in self._cells())

    def intervals(self, of_rates: bool) -> list[Estimate]:
        """Return the estimates with an interval: of rates and times, or of accuracies."""
        return [
            cell.estimate
            for name, cell in self._cells()
            if cell.estimate is not None and cell.estimate.low is not None
            if name.endswith(RATES) == of_rates
        ]

    def _cells(self) -> Iterator[tuple[str, TableCell]]:
        """Yield each cell with the name of its column."""
        for table in self.tables:
            for row in table.rows:
                yield from zip((column.name for column in table.columns), row, strict=True)


@dataclass(frozen=True)
class Entry:
    """A quantity and its definition."""

    name: str
    """Name on the page."""
    text: str
    """Definition."""
    is_shown: Callable[[PageContents], bool]
    """Returns True if the page shows it."""
    here: Callable[[PageContents], str] = lambda shown: ""
    """Returns a sentence on its values on this page, or an empty text."""


def glossary(tables: Sequence[Table], rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return name and text of each quantity that the page shows."""
    shown = PageContents(tables, rows)
    return [
        {"name": entry.name, "text": f"{entry.text} {entry.here(shown)}".strip()}
        for entry in ENTRIES
        if entry.is_shown(shown)
    ]


def _measured(*fields: str) -> Callable[[PageContents], bool]:
    return lambda shown: shown.measures(*fields)


def _interval(about: str, of_rates: bool) -> Callable[[PageContents], bool]:
    return lambda shown: any(e.about == about for e in shown.intervals(of_rates))


def _has_memory(shown: PageContents) -> bool:
    # Even where no run has a value: the dash needs an explanation too.
    return any(column.name == "peak_bytes" for table in shown.tables for column in table.columns)


def _unknown_memory(shown: PageContents) -> str:
    """Return a sentence that counts the runs of each backend without a value."""
    ok = [row for row in shown.rows if row.is_ok and row.spec.device == "cpu"]
    runs = Counter(row.spec.backend for row in ok)
    without = Counter(row.spec.backend for row in ok if row.result.peak_host_bytes is None)
    counts = [f"{without[b]:,} of {number_of(runs[b], 'run')} by {b}" for b in runs if without[b]]
    return f"Here it is unknown in {listed(counts)}." if counts else ""


def _is_compared(shown: PageContents) -> bool:
    both = [*shown.intervals(of_rates=False), *shown.intervals(of_rates=True)]
    return any(e.p is not None for e in both)


def _is_tied(shown: PageContents) -> bool:
    return shown.has_text(r"\btie\b|no difference shown", "verdict")


def _has_no_disagreement(shown: PageContents) -> bool:
    """Return True if a difference is of two sides that agree on every image."""
    return any(
        e.value == 0.0 and e.high == intervals.most_unseen(e.images)
        for e in shown.intervals(of_rates=False)
    )


SEEDS, LEVEL = intervals.LEAST_SEEDS, f"{100 * intervals.LEVEL:.0f} %"
ENTRIES = (
    Entry(
        "test top-1",
        "Fraction of the test images whose true class gets the highest score. The test images are "
        "used once, after all training. Every choice is made on the validation images.",
        _measured("test_top1"),
    ),
    Entry(
        "points",
        "Percentage points of accuracy: from 80 % to 82 % is +2 points.",
        lambda shown: shown.has_text(r"\d points\b"),
    ),
    Entry(
        "balanced accuracy",
        "Mean over the classes of the accuracy within the class. If all classes have equally many "
        "test images, it equals test top-1.",
        _measured("test_balanced_accuracy"),
    ),
    Entry(
        "macro F1",
        "Mean over the classes of F1, the harmonic mean of precision and recall. Classes without "
        "test images are left out.",
        _measured("test_macro_f1"),
    ),
    Entry(
        "calibration error",
        "Expected calibration error (Guo et al. 2017, On Calibration of Modern Neural Networks). "
        f"The test images are sorted into {BINS} bins of equal width by confidence, the largest "
        "softmax probability. The error is the mean distance between a bin's confidence and its "
        "accuracy, weighted by its number of images.",
        _measured("test_calibration_error"),
    ),
    Entry(
        "log loss",
        "Cross-entropy in nats: the mean over the test images of −ln of the probability of the "
        "true class.",
        _measured("test_loss"),
    ),
    Entry(
        "fit s, fit",
        "Seconds of training and validation over all epochs. Includes compilation, computing the "
        "values of a frozen part, and the set-up of every phase but the first. Excludes the start "
        "of the worker, other set-up, the trials of --tune and the test.",
        _measured("fit_s"),
    ),
    Entry(
        "train images/s",
        "Images per second of whole training steps, waiting for input included: the median of "
        f"windows. A window ends with the first step past {WINDOW_S:g} s or with the epoch, after "
        f"the device is synchronised. The first {WARMUP_STEPS} steps are warm-up. With fewer than "
        f"{LEAST_WINDOWS} windows there is no value.",
        _measured("train_images_per_s"),
    ),
    Entry(
        "effective images/s",
        "Used if the values of a frozen part were computed once, or the policy trains in phases. "
        "Images of all epochs, divided by the time of computing those values and of all training "
        "steps, without compilation. Never compared with train images/s.",
        _measured("effective_images_per_s"),
    ),
    Entry(
        "infer images/s",
        "Images per second of the whole network in inference on the test images: the median of "
        f"windows, after one batch of warm-up. With fewer than {LEAST_WINDOWS} windows there is no "
        "value.",
        _measured("infer_images_per_s"),
    ),
    Entry(
        "peak memory",
        "On a CPU, the largest resident memory of the worker process during the run, with Python "
        "and the framework. On a GPU, the largest amount that the framework reports. Of several "
        f"seeds, the largest known value. {ABSENT}: unknown. A worker does many runs, and "
        "frameworks keep memory. If earlier runs may have left over a tenth of the peak, it is "
        "not shown.",
        _has_memory,
        _unknown_memory,
    ),
    Entry(
        "multiply-adds",
        "Per image, counted from the network's description, not measured: convolutions, dense "
        "layers and attention. Backward: only as far as the policy trains. One multiply-add is 2 "
        "FLOP.",
        _measured("forward_multiply_adds", "backward_multiply_adds"),
    ),
    Entry(
        "trainable parameters",
        "Trained weights and biases, counted by the framework; with phases, those of the last. "
        "The moving statistics of BatchNorm are not parameters.",
        _measured("trainable_parameters"),
    ),
    Entry(
        f"interval, {SEEDS} seeds or more",
        f"{LEVEL} interval of an accuracy or a difference, for training again and other test "
        "images. It is the t interval over the seeds' means, paired for a difference, with one "
        "degree of freedom fewer than seeds. The variance between seeds is at least its "
        f"{100 * intervals.RARE:.0f} % quantile, so that lucky agreement gives no zero width. If "
        "the test images add noise, a second interval treats seeds and images as random "
        "(Satterthwaite). The wider one is shown.",
        _interval("recipes", of_rates=False),
    ),
    Entry(
        f"interval, fewer than {SEEDS} seeds",
        f"{LEVEL} interval of an accuracy or a difference, for these trained models on other test "
        "images: bootstrap percentiles over the test images for a difference, Wilson's interval "
        "for an accuracy. It does not cover training again.",
        _interval("models", of_rates=False),
    ),
    Entry(
        "interval, both sides agree",
        "Both sides are right on the same test images, so the difference is 0. The interval is "
        "Clopper and Pearson's: how large a fraction of images they may disagree on, given that "
        "they never did here.",
        _has_no_disagreement,
    ),
    Entry(
        f"interval of a speed, {SEEDS} runs or more",
        f"{LEVEL} interval of a rate, time or ratio: the t interval of the runs' logarithms about "
        "the geometric mean, paired for a ratio. It covers runs like these, one after the other. "
        "It does not cover other machines, or a machine's drift over hours.",
        _interval("recipes", of_rates=True),
    ),
    Entry(
        f"interval of a speed, fewer than {SEEDS} runs",
        f"{LEVEL} interval of a rate or ratio: a bootstrap over the measured windows of each run, "
        f"if there are {intervals.LEAST_WINDOWS} or more. It covers these runs alone; the next one "
        "may lie outside.",
        _interval("models", of_rates=True),
    ),
    Entry(
        "verdict",
        "A difference is called real (better, worse, faster …) if its interval excludes 'none' and "
        f"its p value is below {round(SIGNIFICANT, 6):g}. The p values of one question are "
        "corrected for its number of comparisons (Holm 1979). Intervals are not, unless stated. "
        "The best policy is one question per data set, network and backend. The accuracies of "
        "backends are one question, their speeds another, and each table of two folders one.",
        _is_compared,
    ),
    Entry(
        "tie, no difference shown",
        "These runs show no difference, which does not mean equal: the interval says how large the "
        "difference may still be. 'after correction': the interval excludes 'none', but the "
        "corrected p value is not small enough.",
        _is_tied,
    ),
    Entry(
        "parity",
        "shown: a separate proof, in float64 and with a short recipe, found that both backends "
        f"compute the same in these environments. It compares the losses of {STEPS} training "
        f"steps (to a relative {LEVELS['losses']['fp64']:.0e}), logits "
        f"({LEVELS['logits']['fp64']:.0e}), gradients ({LEVELS['gradients']['fp64']:.0e}) and "
        "more. It covers the backbone, the policy and the optimizer. It does not cover the run's "
        "head, input size, batch size, learning rate or mixed precision. not shown: there is no "
        "such proof.",
        _measured("parity"),
    ),
)
"""In the order of the page."""
