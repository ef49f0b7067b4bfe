"""The page of the record: regret and cost, coverage, ties, data wanted, and planted faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from tabulate import tabulate

from bench.report.gate.words import percent
from bench.storage.text_files import json_text, replace_text
from tools.advice_record.cells import COARSE_PX, NOISE, PX, SIZES
from tools.advice_record.published import published_regrets
from tools.advice_record.scores import COMPARED, summary


def write(folder: Path, into: Path, commit: str) -> None:
    """Write the numbers and the page."""
    found = summary(folder)
    replace_text(into / "advice.json", json_text(found) + "\n")
    replace_text(into / "advice.md", page(found, commit))


def page(found: dict[str, Any], commit: str) -> str:
    """Return the page in Markdown."""
    sizes = ", ".join(map(str, SIZES[:-1]))
    paragraphs = [
        "# How often advice is right",
        f"Made by `make advice-record` on {found['machine']}, code of commit {commit}: "
        f"{found['cells']} cells of {len(found['families'])} families "
        f"({', '.join(found['families'])}), {found['runs']:,} full runs in "
        f"{found['whole_hours']:.1f} hours of training. Each cell is a data set at {PX} px with "
        f"{sizes} or {SIZES[-1]} training images, or a variant: grey (of what has colour), "
        f"inverted, coarse ({COARSE_PX} px a side), with {100 * NOISE:.0f} % wrong labels, with "
        "classes merged two by two. "
        "Everything ran with two seeds, and accuracies are means over both. "
        "Rules that name no network use the largest. The adviser knows the "
        "experience of the other families only. Times are those of training alone.",
        "Regret: points of test accuracy below the best strategy of the cell. The best is chosen "
        "with one seed on nine tenths of the test images, and measured with the other seed on the "
        "tenth, for all tenths and both seeds, so that it owes nothing to luck. A rule may be "
        "lucky; its regret is then below 0. Cost: time over that of all full runs with one seed, "
        "the one that took less. "
        "*Behind* is the regret of a rule beyond that of the adviser at a share of the "
        "cost: above 0, the adviser is better. Intervals are drawn by family, of which there are "
        f"few. Refused cells are left out: {found['answered']} remain.",
        _rules(found),
        f"Two full runs of a strategy differ by their seeds. This alone gives the regret in one "
        f"cell a standard error of {100 * found['regret_error']:.1f} points, so that of "
        f"{found['answered']} cells whose true regret is 0 the worst would show "
        f"{100 * found['regret_error'] * expected_largest(found['answered']):.1f} points.",
        "## Intervals and ties",
        "Predicted intervals (90 %) that hold the test accuracy of full runs, of which each "
        "strategy has two. The adviser's trials have a third seed. Cells with wrong labels are "
        "left out of the intervals: their test labels are right. Precision is the share of "
        "strategies called as good as the best that are within a point of it, recall the share of "
        "those within a point that are called so; the best by one seed is compared with the others "
        "by the other seed. The more is tried, the more strategies cannot be distinguished from "
        "the best.",
        _intervals(found),
        "## A folder without a split",
        _folder(found["folder"]),
        "## Data wanted for an accuracy",
        "Training images that the curve of the smaller sizes asks for, over those with which the "
        "accuracy was reached.",
        _wanted(found),
        "## Sets that cannot support advice",
        _refusals(found),
        _planted(found),
        "## The choice of a network on published accuracies",
        "Ten networks, fine-tuned by others on eight data sets (`tools/advice_record/published.py` "
        "names the source). LogME, H-score, NCE and LEEP are scores of a network's features, "
        "published with them; *any* is a network drawn at random.",
        _published(),
        "## Regret of the adviser, 10 % of the cost, by cell",
        _table([[name, points(regret)] for name, regret in found["by_cell"].items()],
               ["cell", "regret"]),
    ]  # fmt: skip
    return "\n\n".join(paragraphs) + "\n"


def expected_largest(count: int) -> float:
    """Return the expected largest of so many standard normal numbers (Blom 1958, "Statistical
    Estimates and Transformed Beta-Variables")."""
    return float(norm.ppf((count - 0.375) / (count + 0.25)))


def _rules(found: dict[str, Any]) -> str:
    rows = [
        [row["name"], points(row["mean"]), _ends(row["interval"]), points(row["worst"]),
         f"{row['cost']:.1%}",
         *(text for one in row["behind"].values()
           for text in (points(one["mean"]), _ends(one["interval"])))]
        for row in found["rules"]
    ]  # fmt: skip
    behind = [text for share in COMPARED
              for text in (f"behind advise, {100 * share:.0f} %", "95 %")]  # fmt: skip
    return _table(rows, ["rule", "mean regret", "95 %", "worst", "cost", *behind])


def _intervals(found: dict[str, Any]) -> str:
    rows = [
        [f"{float(share):.0%}", _of(counts["recommended"]), _of(counts["tried"]),
         percent(found["ties"][share]["precision"]), percent(found["ties"][share]["recall"])]
        for share, counts in found["coverage"].items()
    ]  # fmt: skip
    headings = ["budget", "recommendations held", "all that was tried", "precision of ties",
                "recall of ties"]  # fmt: skip
    return _table(rows, headings)


def _folder(found: dict[str, Any]) -> str:
    if not found["cells"]:
        return "No plain cell was measured as such a folder."
    counts = found["coverage"]
    low, high = (points(end) for end in found["interval"])
    refused = f" Refused: {', '.join(found['refused'])}." if found["refused"] else ""
    return (
        "Most users have a folder without validation images of its own; the adviser then divides "
        "all images into four folds, and each training sees three of them. For "
        f"{found['cells']} plain cells as such folders, within {100 * found['share']:.0f} % of the "
        f"cost, its mean regret is {points(found['mean'])} ({low} to {high}), the worst "
        f"{points(found['worst'])}. "
        f"Intervals that held: {_of(counts['recommended'])} of the recommended strategies, "
        f"{_of(counts['tried'])} of all that was tried.{refused}"
    )


def _wanted(found: dict[str, Any]) -> str:
    rows = []
    wanted = found["data_wanted"]
    every = [ratio for ratios in wanted.values() for ratio in ratios]
    for name, ratios in {**wanted, "either": every}.items():
        known = [np.inf if ratio is None else ratio for ratio in ratios]
        if known:
            low, middle, high = np.quantile(known, [0.25, 0.5, 0.75], method="higher")
            rows.append([name, str(len(known)), f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])
    return _table(rows, ["curve of", "curves", "median ratio", "middle half"])


def _refusals(found: dict[str, Any]) -> str:
    refused, cells = found["refused"], found["cells"]
    bad = sum(count for count, _ in found["planted"].values())
    total = sum(count for _, count in found["planted"].values())
    which = f" ({', '.join(refused)})" if refused else ""
    return (
        f"Good sets that were refused: {len(refused)} of {cells}{which}; no regret counts "
        f"them. Sets with a planted fault that were refused for it: {bad} of {total} "
        f"({percent(bad / max(total, 1))})."
    )


def _planted(found: dict[str, Any]) -> str:
    rows = [[name, _of(counts)] for name, counts in found["planted"].items()]
    return _table(rows, ["planted", "refused"])


def _published() -> str:
    rows = [
        [name, points(mean), points(worst), str(count)]
        for name, (mean, worst, count) in published_regrets().items()
    ]
    return _table(rows, ["rule", "mean regret", "worst", "data sets"])


def _table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    return tabulate(rows, headings, "pipe", disable_numparse=True)


def _of(counts: Sequence[int]) -> str:
    held, total = counts
    return f"{held} of {total} ({percent(held / max(total, 1))})"


def points(value: float) -> str:
    """Return a fraction in points."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # not -0.0


def _ends(ends: Sequence[float]) -> str:
    return " to ".join(map(points, ends))
