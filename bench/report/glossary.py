"""What the figures of a report mean: a definition of each that is on its page, of no other."""

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
"""Ends of the names of columns of rates and times."""


@dataclass(frozen=True)
class Shown:
    """What a page shows."""

    tables: Sequence[Table]
    """All, those of two folders beside each other too."""
    rows: Sequence[Row]
    """Its runs: each fold has all that was measured."""

    def measures(self, *fields: str) -> bool:
        """Whether a run has such a figure."""
        return any(row[field] is not None for row in self.rows for field in fields)

    def says(self, words: str, columns: str = "") -> bool:
        """Whether a cell holds what a regular expression finds.

        Args:
            words: The expression.
            columns: Part of the names of those that are looked through.
        """
        return any(columns in name and re.search(words, cell.text) for name, cell in self._cells())

    def intervals(self, of_rates: bool) -> list[Estimate]:
        """Estimates with an interval: of rates and times, or of shares of right answers."""
        return [
            cell.estimate
            for name, cell in self._cells()
            if cell.estimate is not None and cell.estimate.low is not None
            if name.endswith(RATES) == of_rates
        ]

    def _cells(self) -> Iterator[tuple[str, TableCell]]:
        """With the names of their columns."""
        for table in self.tables:
            for row in table.rows:
                yield from zip((column.name for column in table.columns), row, strict=True)


@dataclass(frozen=True)
class Entry:
    """A figure."""

    name: str
    """As the page calls it."""
    text: str
    """What it is."""
    is_shown: Callable[[Shown], bool]
    """Whether the page has it."""
    here: Callable[[Shown], str] = lambda shown: ""
    """What is to be said of it on this page."""


def glossary(tables: Sequence[Table], rows: Sequence[Row]) -> list[dict[str, str]]:
    """Name and text of each figure that is shown.

    Args:
        tables: All that the page has.
        rows: Its runs.
    """
    shown = Shown(tables, rows)
    return [
        {"name": entry.name, "text": f"{entry.text} {entry.here(shown)}".strip()}
        for entry in ENTRIES
        if entry.is_shown(shown)
    ]


def _measured(*fields: str) -> Callable[[Shown], bool]:
    return lambda shown: shown.measures(*fields)


def _interval(about: str, of_rates: bool) -> Callable[[Shown], bool]:
    return lambda shown: any(e.about == about for e in shown.intervals(of_rates))


def _has_memory(shown: Shown) -> bool:
    """A dash wants to be explained too."""
    return any(column.name == "peak_bytes" for table in shown.tables for column in table.columns)


def _memory_not_told(shown: Shown) -> str:
    """In how many runs of each backend."""
    ok = [row for row in shown.rows if row.is_ok and row.spec.device == "cpu"]
    runs = Counter(row.spec.backend for row in ok)
    without = Counter(row.spec.backend for row in ok if row.result.peak_host_bytes is None)
    told = [f"{without[b]:,} of {number_of(runs[b], 'run')} by {b}" for b in runs if without[b]]
    return f"Here it is not told in {listed(told)}." if told else ""


def _is_compared(shown: Shown) -> bool:
    both = [*shown.intervals(of_rates=False), *shown.intervals(of_rates=True)]
    return any(e.p is not None for e in both)


def _is_tied(shown: Shown) -> bool:
    return shown.says(r"\btie\b|no difference shown", "verdict")


def _has_nothing_judged_otherwise(shown: Shown) -> bool:
    """Whether some interval of a difference is of answers that are all alike."""
    return any(
        e.value == 0.0 and e.high == intervals.most_unseen(e.images)
        for e in shown.intervals(of_rates=False)
    )


SEEDS, LEVEL = intervals.LEAST_SEEDS, f"{100 * intervals.LEVEL:.0f} %"
ENTRIES = (
    Entry(
        "test top-1",
        "Share of the test images whose class the network names first. The test images are used "
        "once, after all training; every choice is made on the validation images.",
        _measured("test_top1"),
    ),
    Entry(
        "points",
        "Hundredths of accuracy: from 80 % to 82 % is +2 points.",
        lambda shown: shown.says(r"\d points\b"),
    ),
    Entry(
        "balanced accuracy",
        "Mean over the classes of the share of a class's test images that is right. Where every "
        "class has as many test images it is equal to test top-1.",
        _measured("test_balanced_accuracy"),
    ),
    Entry(
        "macro F1",
        "Mean over the classes of F1, the harmonic mean of precision and recall; classes without "
        "test images are left out.",
        _measured("test_macro_f1"),
    ),
    Entry(
        "calibration error",
        "Expected calibration error (Guo et al. 2017, On Calibration of Modern Neural Networks): "
        f"the test images are put into {BINS} bins of equal width by confidence, the greatest "
        "probability of the softmax; what is shown is the mean distance between a bin's mean "
        "confidence and its share of right answers, each bin weighed by its images.",
        _measured("test_calibration_error"),
    ),
    Entry(
        "log loss",
        "Mean over the test images of minus the natural logarithm of the probability that was "
        "given to the true class (cross-entropy), in nats.",
        _measured("test_loss"),
    ),
    Entry(
        "fit s, fit",
        "Seconds of training and validation, all epochs: compilation is in it, the computing of a "
        "frozen part's values, and the set-up of every phase but the first. The start of the "
        "worker, other set-up, the trials of --tune and the test are not.",
        _measured("fit_s"),
    ),
    Entry(
        "train images/s",
        "Images a second of whole training steps, waits for input included: the median of windows. "
        f"A window ends with the first step past {WINDOW_S:g} s, or with the epoch, when the "
        f"device has finished (it is synchronised). The first {WARMUP_STEPS} steps are warm-up and "
        f"in no window; with fewer than {LEAST_WINDOWS} windows there is no figure.",
        _measured("train_images_per_s"),
    ),
    Entry(
        "effective images/s",
        "Where the values of a frozen part were computed once, or the policy trains in phases: "
        "images of all epochs over the time of that computing and of all training steps, "
        "compilation left out. It is no rate of whole steps and is never compared with one.",
        _measured("effective_images_per_s"),
    ),
    Entry(
        "infer images/s",
        "Images a second of the whole network in inference, over the test images: the median of "
        f"such windows, after a batch of warm-up; with fewer than {LEAST_WINDOWS} there is no "
        "figure.",
        _measured("infer_images_per_s"),
    ),
    Entry(
        "peak memory",
        "On a CPU, the most memory that the worker's process held during the run (resident, with "
        "Python and the framework); on a GPU, the most that the framework says it held there. Of "
        f"several seeds, the largest that is known. {ABSENT}: not known. A worker does run after "
        "run, and frameworks keep memory; where what was left of earlier runs may be more than a "
        "tenth of the peak, it is not told, for it would not be the run's own.",
        _has_memory,
        _memory_not_told,
    ),
    Entry(
        "multiply-adds",
        "Of one image, counted from the network's description and not measured: those of "
        "convolutions, dense layers and attention. Backward: as far as the policy trains. A "
        "multiply-add is 2 FLOP.",
        _measured("forward_multiply_adds", "backward_multiply_adds"),
    ),
    Entry(
        "trainable parameters",
        "Weights and biases that are trained, counted by the framework; where there are phases, "
        "those of the last. The moving statistics of BatchNorm are state values, no parameters.",
        _measured("trainable_parameters"),
    ),
    Entry(
        f"interval, {SEEDS} seeds or more",
        f"Of {LEVEL}; of accuracies and their differences, for what training again would give, on "
        "other test images: the t interval over the seeds' means, of a difference the paired one; "
        "its degrees of freedom are the seeds less one, and means that happen to be alike count as "
        f"no more alike than one time in {1 / intervals.RARE:.0f}. Where the test images have a "
        "noise of their own, also the interval for seeds and images both random (Satterthwaite's "
        "degrees of freedom), and the wider of both is shown.",
        _interval("recipes", of_rates=False),
    ),
    Entry(
        f"interval, fewer than {SEEDS} seeds",
        f"Of {LEVEL}; of accuracies and their differences, for these trained models only, on other "
        "test images: of a difference, the percentiles of a bootstrap over the test images; of an "
        "accuracy, Wilson's interval. It says nothing of what training again would give.",
        _interval("models", of_rates=False),
    ),
    Entry(
        "interval, no image judged otherwise",
        "Both sides are right on the same test images. The difference is 0, and its interval is "
        "Clopper and Pearson's: how large the share of images that are judged otherwise may be "
        "where none of so many was.",
        _has_nothing_judged_otherwise,
    ),
    Entry(
        f"interval of a speed, {SEEDS} runs or more",
        f"Of {LEVEL}; of rates, times and their ratios: the t interval of the runs' logarithms "
        "about the geometric mean, of a ratio the paired one. It speaks of runs like these, one "
        "after the other, not of other machines, nor of a machine's drift over hours.",
        _interval("recipes", of_rates=True),
    ),
    Entry(
        f"interval of a speed, fewer than {SEEDS} runs",
        f"Of {LEVEL}; of rates and their ratios: a bootstrap over the measured windows of each "
        f"run, where there are {intervals.LEAST_WINDOWS} or more. It speaks of these very runs; "
        "the next one may lie outside.",
        _interval("models", of_rates=True),
    ),
    Entry(
        "verdict",
        "A difference is called real (better, worse, faster …) where its interval leaves out "
        "'none' and its p value is below "
        f"{round(SIGNIFICANT, 6):g}. The p values of the comparisons of one question are corrected "
        "for their number (Holm 1979); the intervals are not, unless it is said. Which policy is "
        "best is a question for each data set, network and backend; the accuracies of two backends "
        "are one more, their speeds another, and each table of two folders one.",
        _is_compared,
    ),
    Entry(
        "tie, no difference shown",
        "Not told apart by these runs, which is not to be equal: the interval says how far apart "
        "they may still be. 'after correction': the interval leaves out 'none', but the corrected "
        "p value is not small enough.",
        _is_tied,
    ),
    Entry(
        "parity",
        "shown: in a proof of its own, in float64 and with a short recipe of its own, both "
        "backends computed the same, in the environments of these rows: among others the losses "
        f"of {STEPS} training steps to a relative {LEVELS['losses']['fp64']:.0e}, the logits to "
        f"{LEVELS['logits']['fp64']:.0e} and the gradients to {LEVELS['gradients']['fp64']:.0e}. "
        "It speaks of the backbone, the policy and the optimizer, not of the run's head, input "
        "size, batch size, learning rate or mixed precision. not shown: there is no such proof.",
        _measured("parity"),
    ),
)
"""In the order of the page."""
