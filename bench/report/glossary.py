"""The glossary of a report: a definition of each quantity on its page, and of no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from bench.analysis import intervals
from bench.analysis.intervals import SIGNIFICANT
from bench.analysis.rows import Row
from bench.errors import number_of
from bench.parity.tolerances import LEVELS, STEPS
from bench.report.format import ABSENT, listed
from bench.report.tables.model import Table
from bench.training.clocks import LEAST_WINDOWS, WARMUP_STEPS, WINDOW_S
from bench.training.metrics import BINS

RATES = ("images_per_s", "fit_s", "speed_ratio")
"""Endings of the names of columns of rates and times."""
SEEDS, LEVEL = intervals.LEAST_SEEDS, f"{100 * intervals.LEVEL:.0f} %"


def glossary(tables: Sequence[Table], rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return name and text of each quantity that a page of these tables and runs shows."""
    shown = [(name, text) for name, is_shown, text in entries(tables, rows) if is_shown]
    return [{"name": name, "text": text.strip()} for name, text in shown]


def entries(tables: Sequence[Table], rows: Sequence[Row]) -> list[tuple[str, bool, str]]:
    """Return name, True if the page shows it, and text of every quantity, in the page's order; the
    page also shows everything that was measured in any run."""
    cells = [
        (column.name, cell)
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
    ]
    known = [(name, e) for name, cell in cells if (e := cell.estimate) and e.low is not None]
    rates = [e for name, e in known if name.endswith(RATES)]
    accuracies = [e for name, e in known if not name.endswith(RATES)]
    scopes, speed_scopes = ({e.about for e in found} for found in (accuracies, rates))

    def measured(*fields: str) -> bool:
        return any(row[field] is not None for row in rows for field in fields)

    def has_text(pattern: str, columns: str = "") -> bool:
        return any(columns in name and re.search(pattern, cell.text) for name, cell in cells)

    return [
        ("test top-1", measured("test_top1"),
         "Fraction of the test images whose true class gets the highest score. The test images "
         "are used once, after all training. Every choice is made on the validation images."),
        ("points", has_text(r"\d points\b"),
         "Percentage points of accuracy: from 80 % to 82 % is +2 points."),
        ("balanced accuracy", measured("test_balanced_accuracy"),
         "Mean over the classes of the accuracy within the class. If all classes have equally "
         "many test images, it equals test top-1."),
        ("macro F1", measured("test_macro_f1"),
         "Mean over the classes of F1, the harmonic mean of precision and recall. Classes "
         "without test images are left out."),
        ("calibration error", measured("test_calibration_error"),
         "Expected calibration error (Guo et al. 2017, On Calibration of Modern Neural "
         f"Networks). The test images are sorted into {BINS} bins of equal width by confidence, "
         "the largest softmax probability. The error is the mean distance between a bin's "
         "confidence and its accuracy, weighted by its number of images."),
        ("log loss", measured("test_loss"),
         "Cross-entropy in nats: the mean over the test images of −ln of the probability of the "
         "true class."),
        ("fit s, fit", measured("fit_s"),
         "Seconds of training and validation over all epochs. Includes compilation, computing "
         "the values of a frozen part, and the set-up of every phase but the first. Excludes the "
         "start of the worker, other set-up, the trials of --tune and the test."),
        ("train images/s", measured("train_images_per_s"),
         "Images per second of whole training steps, waiting for input included: the median of "
         f"windows. A window ends with the first step past {WINDOW_S:g} s or with the epoch, "
         f"after the device is synchronised. The first {WARMUP_STEPS} steps are warm-up. With "
         f"fewer than {LEAST_WINDOWS} windows there is no value."),
        ("effective images/s", measured("effective_images_per_s"),
         "Used if the values of a frozen part were computed once, or the policy trains in "
         "phases. Images of all epochs, divided by the time of computing those values and of all "
         "training steps, without compilation. Never compared with train images/s."),
        ("infer images/s", measured("infer_images_per_s"),
         "Images per second of the whole network in inference on the test images: the median of "
         f"windows, after one batch of warm-up. With fewer than {LEAST_WINDOWS} windows there is "
         "no value."),
        # The dash needs an explanation even where no run has a value.
        ("peak memory", any(c.name == "peak_bytes" for table in tables for c in table.columns),
         "On a CPU, the largest resident memory of the worker process during the run, with "
         "Python and the framework. On a GPU, the largest amount that the framework reports. Of "
         f"several seeds, the largest known value. {ABSENT}: unknown. A worker does many runs, "
         "and frameworks keep memory. If earlier runs may have left over a tenth of the peak, it "
         f"is not shown. {_unknown_memory(rows)}"),
        ("multiply-adds", measured("forward_multiply_adds", "backward_multiply_adds"),
         "Per image, counted from the network's description, not measured: convolutions, dense "
         "layers and attention. Backward: only as far as the policy trains. One multiply-add is "
         "2 FLOP."),
        ("trainable parameters", measured("trainable_parameters"),
         "Trained weights and biases, counted by the framework; with phases, those of the last. "
         "The moving statistics of BatchNorm are not parameters."),
        (f"interval, {SEEDS} seeds or more", "recipes" in scopes,
         f"{LEVEL} interval of an accuracy or a difference, for training again and other test "
         "images. It is the t interval over the seeds' means, paired for a difference, with one "
         "degree of freedom fewer than seeds. The variance between seeds is at least its "
         f"{100 * intervals.RARE:.0f} % quantile, so that lucky agreement gives no zero width. "
         "If the test images add noise, a second interval treats seeds and images as random "
         "(Satterthwaite). The wider one is shown."),
        (f"interval, fewer than {SEEDS} seeds", "models" in scopes,
         f"{LEVEL} interval of an accuracy or a difference, for these trained models on other "
         "test images: bootstrap percentiles over the test images for a difference, Wilson's "
         "interval for an accuracy. It does not cover training again."),
        ("interval, both sides agree",
         any(e.value == 0.0 and e.high == intervals.most_unseen(e.images) for e in accuracies),
         "Both sides are right on the same test images, so the difference is 0. The interval is "
         "Clopper and Pearson's: how large a fraction of images they may disagree on, given that "
         "they never did here."),
        (f"interval of a speed, {SEEDS} runs or more", "recipes" in speed_scopes,
         f"{LEVEL} interval of a rate, time or ratio: the t interval of the runs' logarithms "
         "about the geometric mean, paired for a ratio. It covers runs like these, one after the "
         "other. It does not cover other machines, or a machine's drift over hours."),
        (f"interval of a speed, fewer than {SEEDS} runs", "models" in speed_scopes,
         f"{LEVEL} interval of a rate or ratio: a bootstrap over the measured windows of each "
         f"run, if there are {intervals.INTERVAL_WINDOWS} or more. It covers these runs alone; the "
         "next one may lie outside."),
        ("verdict", any(e.p is not None for e in (*accuracies, *rates)),
         "A difference is called real (better, worse, faster …) if its interval excludes 'none' "
         f"and its p value is below {round(SIGNIFICANT, 6):g}. The p values of one question are "
         "corrected for its number of comparisons (Holm 1979). Intervals are not, unless stated. "
         "The best policy is one question per data set, network and backend. The accuracies of "
         "backends are one question, their speeds another, and each table of two folders one."),
        ("tie, no difference shown", has_text(r"\btie\b|no difference shown", "verdict"),
         "These runs show no difference, which does not mean equal: the interval says how large "
         "the difference may still be. 'after correction': the interval excludes 'none', but the "
         "corrected p value is not small enough."),
        ("parity", measured("parity"),
         "shown: a separate proof, in float64 and with a short recipe, found that both backends "
         f"compute the same in these environments. It compares the losses of {STEPS} training "
         f"steps (to a relative {LEVELS['losses']['fp64']:.0e}), logits "
         f"({LEVELS['logits']['fp64']:.0e}), gradients ({LEVELS['gradients']['fp64']:.0e}) and "
         "more. It covers the backbone, the policy and the optimizer. It does not cover the "
         "run's head, input size, batch size, learning rate or mixed precision. not shown: there "
         "is no such proof."),
    ]  # fmt: skip


def _unknown_memory(rows: Sequence[Row]) -> str:
    """Return a sentence that counts the runs of each backend without a value."""
    ok = [row for row in rows if row.is_ok and row.spec.device == "cpu"]
    runs = Counter(row.spec.backend for row in ok)
    without = Counter(row.spec.backend for row in ok if row.result.peak_host_bytes is None)
    counts = [f"{without[b]:,} of {number_of(runs[b], 'run')} by {b}" for b in runs if without[b]]
    return f"Here it is unknown in {listed(counts)}." if counts else ""
