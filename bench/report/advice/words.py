"""Advice in sentences and tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from bench.advise.advice import Advice, Alternative, DataWanted, Strategy, Trained
from bench.advise.wishes import memory_of
from bench.errors import number_of
from bench.spec.run import Size

HEADINGS = ["policy", "network", "framework", "head", "learning rate", "epochs", "expected",
            "interval", "training", "memory", "trained parameters",
            "inference images/s"]  # fmt: skip


SET_TITLE = (
    "The recommended strategy, and all that were tried and cannot be distinguished from the best, "
    "cheapest first"
)
CURVE_NOTE = (
    "Learning curves are measured on the held-out images of one fold, expected accuracies with "
    "everything that is known; the two may differ by some points."
)
TERMINAL_HEADINGS = ["strategy", "recipe", "expected", "run", "network"]
FORECAST_HEADINGS = ["learning curve of", "errors now, %", "images", "gain, points"]


SIZE_WORDS: dict[Size, str] = {
    "small": "By the trials, training the whole network is not expected to pay here.",
    "medium": "Training the whole network may pay here; the trials do not show it for sure.",
    "large": "Training the whole network pays here, as trials show.",
}
"""Size by trials → what they show."""
BY_NUMBER = "That is by their number alone, not by trials."


def advice_text(advice: Advice, *, is_first: bool = False) -> str:
    """Return advice for a terminal; ``is_first`` marks that of probes alone."""
    if advice.recommendation is None:
        return "\n".join(refusal_sentences(advice, with_files=True))
    lines = [
        ("First estimate, before any training. " if is_first else "") + answer_sentence(advice)
    ]
    lines += size_sentences(advice)
    if is_first:
        return "\n".join(lines)
    if advice.as_good:
        lines += ["", SET_TITLE + ":", "",
                  strategy_table(advice.as_good, advice.recommendation)]  # fmt: skip
    lines += ["", *_more_images(advice), ""]
    lines += [f"Alternative: {alternative_words(one)}" for one in advice.alternatives]
    if advice.article_says is not None:
        lines.append(advice.article_says.words)
    if advice.data_wanted is not None:
        lines.append(data_wanted_sentence(advice.data_wanted))
    if advice.trained is not None:
        lines.append(trained_sentence(advice.trained))
    lines += advice.would_change
    lines += advice.warnings
    lines.append(end_sentence(advice))
    return "\n".join(lines)


def alternative_words(one: Alternative) -> str:
    """Return an alternative, what it costs or gives up, and whether it was tried."""
    strategy = one.strategy
    tried = "" if strategy.folds else " It was not tried here."
    return f"{_named(strategy)}, learning rate {strategy.learning_rate:.3g}: {one.gives_up}{tried}"


def end_sentence(advice: Advice) -> str:
    """Return whether the answer is settled, and what was spent."""
    if advice.is_settled:
        settled = "The answer is settled."
    elif advice.is_exhausted:
        settled = "Everything was tried: more images could change the answer, more time could not."
    else:
        settled = "More time could change the answer: repeat the command with a larger --budget."
    return f"{settled} {advice.spent_s:.0f} of {advice.budget_s:.0f} s were spent."


def strategy_table(strategies: Sequence[Strategy], recommended: Strategy | None) -> str:
    """Return strategies as a table of at most 80 columns, some lines for each, the recommended one
    marked."""
    rows: list[Any] = []
    for one in strategies:
        policy, network, framework, head, rate, epochs, *figures = _cells(one)
        expected, ends, training, memory, _, inference = figures
        mark = "\n(recommended)" if one == recommended else ""
        rows += [
            [
                f"{policy}\n{network}\n{framework}{mark}",
                f"{head}\nrate {rate}\n{number_of(int(epochs), 'epoch')}",
                f"{expected}\n{ends}", f"{training}\n{memory}",
                f"trains {_short(one.trainable_parameters)}\n{inference} img/s",
            ],
            SEPARATING_LINE,
        ]  # fmt: skip
    return tabulate(rows[:-1], TERMINAL_HEADINGS, "simple", disable_numparse=True)


def _more_images(advice: Advice) -> list[str]:
    """Return what more images would bring, by each learning curve."""
    if not advice.forecasts:
        return [
            "What more images would bring was not measured: there was too little time, or there "
            "were too few images."
        ]
    said = [] if advice.more_images is None else [more_images_sentence(advice), ""]
    table = tabulate(forecast_rows(advice), FORECAST_HEADINGS, "simple", disable_numparse=True)
    return [*said, table, "", CURVE_NOTE]


def forecast_rows(advice: Advice) -> list[list[str]]:
    """Return the rows of a table of learning curves, below ``FORECAST_HEADINGS``."""
    return [
        [one.curve, f"{100 * one.error:.1f} ({interval(one.error_interval)})", f"+{one.images:,}",
         f"{100 * one.gain:+.1f} ({interval(one.interval)})"]
        for one in advice.forecasts
    ]  # fmt: skip


def strategy_rows(strategies: Sequence[Strategy], recommended: Strategy | None) -> list[list[str]]:
    """Return the rows of a table of strategies, below ``HEADINGS``, the recommended one marked."""
    found = []
    for one in strategies:
        policy, *others = _cells(one)
        found.append([f"{policy} (recommended)" if one == recommended else policy, *others])
    return found


def _cells(one: Strategy) -> list[str]:
    """Return the figures of a strategy in the order of ``HEADINGS``."""
    return [
        one.policy, one.backbone, one.backend, one.head, f"{one.learning_rate:.3g}",
        str(one.epochs), percent(one.expected_test_top1), interval(one.interval),
        _seconds(one.train_s), _memory(memory_of(one)), _count(one.trainable_parameters),
        "–" if one.infer_images_per_s is None else f"{one.infer_images_per_s:,.0f}",
    ]  # fmt: skip


def more_images_sentence(advice: Advice) -> str:
    """Return what more images would bring."""
    more = advice.more_images
    assert more is not None
    low, high = more.interval
    if high < 0.005:
        return "More images will hardly help."
    return (
        f"{more.images:,} more images: {100 * more.gain:+.1f} points "
        f"({100 * low:.1f} to {100 * high:.1f}; learning curve: {more.curve})."
    )


def data_wanted_sentence(wanted: DataWanted) -> str:
    """Return how many images the wanted accuracy takes."""
    if wanted.images is None:
        return f"More images alone are not expected to bring {percent(wanted.top1)}."
    return f"{percent(wanted.top1)} takes some {wanted.images:,} training images in all."


def trained_sentence(trained: Trained) -> str:
    """Return the outcome of the full run, beside what was predicted."""
    word = "as predicted" if trained.is_as_predicted else "outside of what was predicted"
    alike = "predicts the same" if trained.predicts_alike else "does NOT predict the same"
    return (
        f"The full run reached {percent(trained.test_top1)} on the test images in "
        f"{_seconds(trained.fit_s)}, {word}. {', '.join(trained.saved)} in '{trained.folder}': "
        f"loaded again, the model {alike}."
    )


def percent(value: float | None) -> str:
    """Return a fraction in percent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def refusal_sentences(advice: Advice, with_files: bool = False) -> list[str]:
    """Return why there is no advice, and on request the files that show it."""
    if not advice.signs:
        return [
            f"{advice.dataset}: no strategy could be trained here.",
            *(f"{warning.rstrip('.')}." for warning in advice.warnings),
        ]
    lines = [f"{advice.dataset}: these images cannot support advice."]
    for sign in advice.signs:
        lines.append(f"{sign.message[:1].upper()}{sign.message[1:]}.")
        lines += [f"  {file}" for file in sign.files] if with_files else []
    return lines


def answer_sentence(advice: Advice) -> str:
    """Return the recommendation in a sentence."""
    one = advice.recommendation
    assert one is not None
    text = f"Recommended: {_named(one)}, learning rate {one.learning_rate:.3g}"
    text += f", {number_of(one.epochs, 'epoch')}"
    if one.expected_test_top1 is not None:
        text += f"; expected test accuracy {percent(one.expected_test_top1)}"
        text += f" ({interval(one.interval)})"
    is_known = one.folds > 0 or advice.trained is not None
    return text + ("." if is_known else ". It was not tried for all epochs yet.")


def size_sentences(advice: Advice) -> list[str]:
    """Return similarity and size in sentences."""
    evidence, lines = advice.similarity_evidence, []
    if evidence is not None:
        said = (
            "Whether the images are similar to the pretraining data cannot be said"
            if advice.similarity is None
            else f"The images are {advice.similarity.replace('_', ' ')} to the pretraining data"
        )
        lines.append(
            f"{said}: a simple classifier (a probe) is "
            f"right for {percent(evidence.pretrained_top1)} by pretrained features, "
            f"{percent(evidence.random_top1)} by features of random weights, "
            f"{percent(evidence.pixels_top1)} by pixels."
        )
    if advice.size is not None:
        said = f"{advice.train_images:,} training images count as a {advice.size} data set here"
        if advice.similarity is not None:  # without it no case follows
            case = "no case" if advice.case is None else f"case {advice.case}"
            said += f": {case} of the article (docs/advice.md)"
        rests_on = SIZE_WORDS[advice.size] if advice.size_by == "trials" else BY_NUMBER
        lines.append(f"{said}. {rests_on}")
    return lines


def _named(one: Strategy) -> str:
    return f"{one.policy} of {one.backbone} in {one.backend}"


def interval(ends: tuple[float, float] | None) -> str:
    """Return an interval of fractions, in percent."""
    return "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _memory(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e9:.2f} GB"


def _short(value: int | None) -> str:
    """Return a count in millions where it is so large."""
    return _count(value) if value is None or value < 1e6 else f"{value / 1e6:.3g} M"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
