"""Medians, ratios within a round, paired intervals and tables of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from tabulate import tabulate

CONFIDENCE = 0.95
RESAMPLES = 9999
THAWBENCH = "Thawbench "
"""Prefix of the names of Thawbench's rows; a backend follows."""
RATIOS = {
    "fit": ("fit_s", "fit_and_packing_s"),
    "command, cold": ("whole_s", "whole_s"),
    "command, warm": ("whole_s", "warm_whole_s"),
}
"""Column → fields of a peer's time and of Thawbench's time, whose ratio it shows."""
YES_NO = {"True": "yes", "False": "no"}

Measured = dict[str, Any]
"""Fields of one program's answer and 'round', 'backbone' and 'program'."""


def paired_interval(one: Sequence[int], other: Sequence[int]) -> tuple[float, float, float]:
    """Return the difference ``one`` − ``other`` in accuracy on the same images, with an interval.

    Bootstrap over images, percentile method (Efron & Tibshirani 1993, chapter 13).

    Args:
        one: 1 for each image that was classified correctly, else 0.
        other: The same for the other program, in the same order.

    Returns:
        The difference and the ends of its 95 % interval.
    """
    differences = np.asarray(one, float) - np.asarray(other, float)
    found = bootstrap(
        (differences,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(differences.mean()), float(low), float(high)


def frozen_summary(measured: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """Summarise frozen fits: medians of each program, ratios and accuracies of each pair."""
    table = pd.DataFrame(measured)
    return {
        "medians": _medians(table, ["fit_s", "fit_and_packing_s", "whole_s", "warm_whole_s"]),
        "ratios": _ratios(table, RATIOS),
        "accuracy": _accuracies(measured),
    }


def whole_summary(measured: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """Summarise full fine-tuning: images/s of each program, and Thawbench's over each peer's."""
    table = pd.DataFrame(measured).rename(columns={"train_images_per_s": "images/s"})
    table["s/image"] = 1 / table["images/s"]
    ratios = _ratios(table, {"images/s, Thawbench over peer": ("s/image", "s/image")})
    return {"medians": _medians(table, ["images/s"]), "ratios": ratios}


def _medians(table: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    there = [column for column in columns if column in table]
    groups = table.groupby(["backbone", "program", "weights"], sort=False)
    found = groups[there].median()
    found.insert(0, "rounds", groups.size())
    return _records(found.reset_index())


def _ratios(table: pd.DataFrame, ratios: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return median and minimum over rounds of a peer's time over Thawbench's in that round."""
    ours = table["program"].str.startswith(THAWBENCH)
    pairs = table[~ours].merge(table[ours], on=["round", "backbone"], suffixes=("", " ours"))
    for name, (theirs, own) in ratios.items():
        pairs[name] = pairs[theirs] / pairs[f"{own} ours"]
    groups = pairs.groupby(["backbone", "program", "program ours"], sort=False)[list(ratios)]
    least = groups.min().add_suffix(", least")
    found = groups.median().join(least)
    found.insert(0, "rounds", groups.size())
    names = {"program": "peer", "program ours": "beside"}
    return _records(found.reset_index().rename(columns=names))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows with None for missing values, since JSON has no NaN."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


def _accuracies(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return test top-1 of the first round with pretrained weights, and each program's difference
    to Thawbench on torch."""
    first = [m for m in measured if m["round"] == 0 and m["weights"] != "random"]
    rows = []
    for backbone in dict.fromkeys(m["backbone"] for m in first):
        found = {m["program"]: m for m in first if m["backbone"] == backbone}
        own = found.get(f"{THAWBENCH}torch")
        for program, one in found.items():
            row = {"backbone": backbone, "program": program, "test_top1": one["test_top1"]}
            if own is not None and one is not own:
                if one["test_order_sha256"] != own["test_order_sha256"]:
                    raise ValueError(f"{program} was tested on other images than {THAWBENCH}torch")
                difference, low, high = paired_interval(one["correct"], own["correct"])
                row.update(difference=difference, low=low, high=high, within=low <= 0 <= high)
            rows.append(row)
    return rows


def render(summary: dict[str, list[dict[str, Any]]]) -> str:
    """Return the tables as GitHub Markdown."""
    tables = []
    for rows in summary.values():
        shown = [{k: YES_NO.get(str(v), v) for k, v in row.items()} for row in rows]
        tables.append(
            tabulate(shown, headers="keys", tablefmt="github", floatfmt=".3g", missingval="–")
        )
    return "\n\n".join(tables)
