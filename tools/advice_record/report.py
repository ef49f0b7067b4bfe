"""The page of the record: regret and cost of the adviser and of rules, coverage, ties."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from bench.advise.advice import Advice, Strategy
from bench.advise.candidate import OPTIMIZER
from bench.catalog.policies import default_rate
from bench.report.gate.words import percent
from bench.storage.text_files import json_text, replace_text
from bench.system import cores, processor
from tools.advice_record.cells import FAMILIES, Cell, cells
from tools.advice_record.collect import ADVICE_FILE, EVIDENCE_FILE, SHARES
from tools.advice_record.oracle import FILE, FullRun, load_oracle
from tools.advice_record.rules import RULES, Evidence, chance

DRAWS = 2000
LEVEL = 0.9
SAME = 0.01
"""Difference in test accuracy below which two strategies are equally good."""
Answers = npt.NDArray[np.float64]
"""(test images,) 1 where it is right."""


@dataclass(frozen=True)
class Measured:
    """A cell with everything that was measured."""

    cell: Cell
    runs: list[FullRun]
    evidence: Evidence
    advice: dict[float, Advice]
    """Share of the oracle's cost → advice within it."""
    signs: tuple[str, ...]

    @property
    def oracle_s(self) -> float:
        """Time of all full runs."""
        return sum(run.fit_s for run in self.runs)

    def run_of(self, strategy: Strategy) -> FullRun | None:
        """Return the full run of a strategy; None if it diverged."""
        factor = strategy.learning_rate / default_rate(strategy.policy, OPTIMIZER)
        for run in self.runs:
            same = (run.backbone, run.policy) == (strategy.backbone, strategy.policy)
            if same and abs(run.factor / factor - 1) < 1e-3:
                return run
        return None

    def regret(self, answers: Answers) -> float:
        """Return how far answers are below the oracle's best. The best is chosen on one half of the
        test images and measured on the other, both ways, so that it owes nothing to luck."""
        every = np.stack([run.answers() for run in self.runs]).astype(float)
        halves = np.arange(every.shape[1]) % 2
        found = []
        for half in (0, 1):
            best = every[:, halves == half].mean(axis=1).argmax()
            other = halves != half
            found.append(every[best, other].mean() - answers[other].mean())
        return float(np.mean(found))


@dataclass(frozen=True)
class Score:
    """A rule over all cells."""

    name: str
    regrets: npt.NDArray[np.float64]
    """(cells,)."""
    costs: npt.NDArray[np.float64]
    """(cells,) over the oracle's."""


def load(folder: Path) -> list[Measured]:
    """Read all cells that are complete."""
    found = []
    for cell in cells():
        place = folder / cell.name
        files = {share: place / ADVICE_FILE.format(share=share) for share in SHARES}
        if not (place / FILE).is_file() or not all(file.is_file() for file in files.values()):
            continue
        told = json.loads((place / EVIDENCE_FILE).read_text())
        evidence = Evidence(cell, told["probe_top1"], told["log_evidence"])
        advice = {
            share: Advice.model_validate_json(file.read_bytes()) for share, file in files.items()
        }
        runs = load_oracle(place)
        found.append(Measured(cell, runs, evidence, advice, tuple(told["signs"])))
    return found


def scores(found: Sequence[Measured]) -> list[Score]:
    """Return the scores of the adviser at each budget, of all rules, and of chance."""

    def score(name: str, pick: Callable[[Measured], tuple[Answers, float] | None]) -> Score:
        regrets, costs = [], []
        for one in found:
            picked = pick(one)
            answers, cost_s = (np.zeros(one.runs[0].test_images), 0.0) if picked is None else picked
            regrets.append(one.regret(answers))
            costs.append(cost_s / one.oracle_s)
        return Score(name, np.array(regrets), np.array(costs))

    def adviser(share: float) -> Callable[[Measured], tuple[Answers, float] | None]:
        def pick(one: Measured) -> tuple[Answers, float] | None:
            advice = one.advice[share]
            chosen = advice.recommendation
            run = None if chosen is None else one.run_of(chosen)
            return None if run is None else (run.answers().astype(float), advice.spent_s)

        return pick

    def ruled(name: str) -> Callable[[Measured], tuple[Answers, float] | None]:
        def pick(one: Measured) -> tuple[Answers, float] | None:
            picked = RULES[name](one.runs, one.evidence)
            return None if picked is None else (picked.run.answers().astype(float), picked.cost_s)

        return pick

    every = [score(f"advise, {share:.0%} of the cost", adviser(share)) for share in SHARES]
    every += [score(name, ruled(name)) for name in RULES]
    return [*every, score("chance", lambda one: chance(one.runs))]


def interval(values: npt.NDArray[np.float64], families: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over cells, drawn by family: cells of one are alike."""
    random, names = np.random.default_rng(0), sorted(set(families))
    groups = [values[[f == name for f in families]] for name in names]
    means = []
    for _ in range(DRAWS):
        drawn = random.integers(0, len(groups), len(groups))
        means.append(np.concatenate([groups[index] for index in drawn]).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def coverage(found: Sequence[Measured], share: float) -> tuple[int, int]:
    """Return how many predicted intervals hold the full run's accuracy, and of how many."""
    held = total = 0
    for one in found:
        for strategy in one.advice[share].tried:
            run = one.run_of(strategy)
            if run is None or strategy.interval is None:
                continue
            low, high = strategy.interval
            held += low <= run.test_top1 <= high
            total += 1
    return held, total


def ties(found: Sequence[Measured], share: float) -> dict[str, float]:
    """Return precision and recall of "cannot be told from the best", against the full runs."""
    called = right = equal = 0
    for one in found:
        tried = [(s, one.run_of(s)) for s in one.advice[share].tried]
        known = [(s, run.test_top1) for s, run in tried if run is not None]
        if not known:
            continue
        best = max(top1 for _, top1 in known)
        for strategy, top1 in known:
            is_equal = best - top1 <= SAME
            called += strategy.is_contender
            equal += is_equal
            right += is_equal and strategy.is_contender
    return {"precision": right / max(called, 1), "recall": right / max(equal, 1)}


def summary(folder: Path) -> dict[str, Any]:
    """Return every number of the page."""
    found = load(folder)
    if not found:
        raise SystemExit(f"No complete cell in {folder}: python -m tools.advice_record collect")
    families = [one.cell.family.name for one in found]
    every = scores(found)
    adviser = next(score for score in every if score.name.startswith("advise, 10"))
    rows = []
    for score in every:
        difference = score.regrets - adviser.regrets
        rows.append({
            "name": score.name, "mean": float(score.regrets.mean()),
            "interval": interval(score.regrets, families), "worst": float(score.regrets.max()),
            "cost": float(score.costs.mean()), "behind": float(difference.mean()),
            "behind_interval": interval(difference, families),
        })  # fmt: skip
    return {
        "machine": f"{cores()} cores of {processor()}",
        "cells": len(found), "families": sorted(set(families)),
        "runs": sum(len(one.runs) for one in found),
        "oracle_hours": sum(one.oracle_s for one in found) / 3600,
        "rules": rows,
        "coverage": {f"{share:g}": coverage(found, share) for share in SHARES},
        "ties": {f"{share:g}": ties(found, share) for share in SHARES},
        "refused": sum(bool(one.signs) for one in found),
        "by_family": {
            family.name: float(np.mean([
                regret for regret, name in zip(adviser.regrets, families, strict=True)
                if name == family.name
            ])) for family in FAMILIES if family.name in families
        },
        "by_cell": {
            one.cell.name: float(regret)
            for one, regret in zip(found, adviser.regrets, strict=True)
        },
    }  # fmt: skip


def page(found: dict[str, Any], commit: str) -> str:
    """Return the page in Markdown."""
    rows = [
        [row["name"], points(row["mean"]), _ends(row["interval"]), points(row["worst"]),
         f"{row['cost']:.1%}", points(row["behind"]), _ends(row["behind_interval"])]
        for row in found["rules"]
    ]  # fmt: skip
    headings = ["rule", "mean regret", "95 %", "worst", "cost", "behind advise, 10 %", "95 %"]
    covered = [
        [f"{float(share):.0%}", f"{held} of {total}", percent(held / max(total, 1)),
         percent(found["ties"][share]["precision"]), percent(found["ties"][share]["recall"])]
        for share, (held, total) in found["coverage"].items()
    ]  # fmt: skip
    cells_rows = [[name, points(regret)] for name, regret in found["by_cell"].items()]

    def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
        return tabulate(rows, headings, "pipe", disable_numparse=True)

    return "\n".join([
        "# How often advice is right",
        "",
        f"Made by `make advice-record` on {found['machine']}, code of commit {commit}: "
        f"{found['cells']} cells of {len(found['families'])} families, {found['runs']:,} full runs "
        f"in {found['oracle_hours']:.1f} hours. Each cell is a data set at 64 px with 60, 150 or "
        "400 training images, or a variant: grey, inverted, coarse, with wrong labels, with merged "
        "classes.",
        "",
        "Regret: points of test accuracy below the best full run of the cell, which is chosen on "
        "one half of the test images and measured on the other. Cost: time over that of all full "
        "runs. Intervals are drawn by family.",
        "",
        table(rows, headings),
        "",
        "## Intervals and ties",
        "",
        "Predicted intervals (90 %) that hold the full run's test accuracy; and how often what was "
        "called as good as the best is within a point of it, and the reverse.",
        "",
        table(covered, ["budget", "held", "share", "precision of ties", "recall of ties"]),
        "",
        f"Good sets that were refused: {found['refused']} of {found['cells']}.",
        "",
        "## Regret of the adviser, 10 % of the cost, by cell",
        "",
        table(cells_rows, ["cell", "regret"]),
        "",
    ])  # fmt: skip


def points(value: float) -> str:
    """Return a fraction in points."""
    return f"{100 * value:+.1f}"


def _ends(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"


def write(folder: Path, into: Path, commit: str) -> None:
    """Write the numbers and the page."""
    found = summary(folder)
    replace_text(into / "advice.json", json_text(found) + "\n")
    replace_text(into / "advice.md", page(found, commit))
