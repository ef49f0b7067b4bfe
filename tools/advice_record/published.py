"""Score rules for the choice of a network on published accuracies of fine-tuned networks.

The figures in ``published.csv`` are those of the Transfer Learning Library (github.com/thuml/
Transfer-Learning-Library, examples/model_selection, commit 56ccfd7): ten networks, fine-tuned on
eight data sets, with four scores of their features. Its NCE figures for DTD repeat those of LogME
and are left out. Numbers of parameters are those of torchvision.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
RULES = {
    "highest LogME": "log_me",
    "highest H-score": "h_score",
    "highest NCE": "nce",
    "highest LEEP": "leep",
    "most parameters": "parameters_millions",
}
"""Rule → column whose highest value it takes."""


def published_regrets() -> dict[str, tuple[float, float, int]]:
    """Return for each rule its mean and its worst regret in accuracy, and the number of data sets;
    *any* is the mean over all networks."""
    table = pd.read_csv(FILE)
    regrets: dict[str, list[float]] = {}
    for _, own in table.groupby("data_set"):
        best = own["fine_tuned_top1"].max()
        for name, column in RULES.items():
            if own[column].notna().all():
                picked = own["fine_tuned_top1"].to_numpy()[own[column].to_numpy().argmax()]
                regrets.setdefault(name, []).append(float(best - picked))
        regrets.setdefault("any", []).append(float(best - own["fine_tuned_top1"].mean()))
    return {name: (sum(own) / len(own), max(own), len(own)) for name, own in regrets.items()}
