"""From measurements to figures: medians, ratios within a round, paired intervals, tables."""

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
"""What the names of Thawbench's own rows begin with; a backend follows."""
RATIOS = {
    "fit": ("fit_s", "fit_and_packing_s"),
    "command, cold": ("whole_s", "whole_s"),
    "command, warm": ("whole_s", "warm_whole_s"),
}
"""Column → a peer's time, over Thawbench's."""
YES_NO = {"True": "yes", "False": "no"}

Measured = dict[str, Any]
"""Fields of one program's answer, with 'round', 'backbone' and 'program'."""


def paired_interval(one: Sequence[int], other: Sequence[int]) -> tuple[float, float, float]:
    """Difference in the share of right answers to the same questions, ``one`` less ``other``.

    Bootstrap over the questions, percentile method (Efron & Tibshirani 1993, chapter 13).

    Args:
        one: 1 where right, 0 where wrong.
        other: Of the same questions in the same order.

    Returns:
        The difference, and the ends of its 95 % interval.
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
    """Of whole fits: medians of each program, ratios of each pair, accuracies of each pair."""
    table = pd.DataFrame(measured)
    return {
        "medians": _medians(table, ["fit_s", "fit_and_packing_s", "whole_s", "warm_whole_s"]),
        "ratios": _ratios(table, RATIOS),
        "accuracy": _accuracies(measured),
    }


def whole_summary(measured: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """Of full fine-tuning: images/s of each program, and Thawbench's over each peer's."""
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
    """Median over rounds of a peer's time over Thawbench's in the same round; the least beside."""
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
    """Rows with None for what is not there: JSON has no NaN."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


def _accuracies(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Of the first round, where weights are pretrained; each program less Thawbench on torch."""
    first = [m for m in measured if m["round"] == 0 and m["weights"] != "random"]
    rows = []
    for backbone in dict.fromkeys(m["backbone"] for m in first):
        found = {m["program"]: m for m in first if m["backbone"] == backbone}
        own = found.get(f"{THAWBENCH}torch")
        for program, one in found.items():
            row = {"backbone": backbone, "program": program, "test_top1": one["test_top1"]}
            if own is not None and one is not own:
                if one["test_order_sha256"] != own["test_order_sha256"]:
                    raise ValueError(f"{program} was tested on other images")
                difference, low, high = paired_interval(one["correct"], own["correct"])
                row.update(difference=difference, low=low, high=high, within=low <= 0 <= high)
            rows.append(row)
    return rows


def render(summary: dict[str, list[dict[str, Any]]]) -> str:
    """The tables, as GitHub shows them."""
    tables = []
    for rows in summary.values():
        said = [{k: YES_NO.get(str(v), v) for k, v in row.items()} for row in rows]
        tables.append(
            tabulate(said, headers="keys", tablefmt="github", floatfmt=".3g", missingval="–")
        )
    return "\n\n".join(tables)
