"""Score the adviser and the rules on the measured cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.advise.advice import Advice
from bench.advise.belief import believe
from bench.advise.candidate import Candidate, candidate
from bench.advise.knowledge import RATE_FACTORS
from bench.advise.learning_curve import Point, fit_curve
from bench.advise.wishes import POLICIES
from bench.system import cores, processor
from tools.advice_record.cells import FAMILIES, PLAIN
from tools.advice_record.learn import learn
from tools.advice_record.measured import (
    FOLDS_SHARE,
    SHARES,
    Answers,
    Measured,
    load,
    outside,
    parts,
)
from tools.advice_record.oracle import BACKBONES, EPOCHS, KINDS, FullRun, tuned
from tools.advice_record.planted import FAULTS
from tools.advice_record.rules import RULES, chance

DRAWS = 2000
SAME = 0.01
"""Difference in test accuracy below which two strategies are equally good; the adviser's margin."""
Picked = tuple[Answers, float] | None
"""Answers of the chosen full run and the time that choosing took; None: nothing was chosen."""


@dataclass(frozen=True)
class Score:
    """A rule over all cells."""

    name: str
    regrets: npt.NDArray[np.float64]
    """(cells,)."""
    costs: npt.NDArray[np.float64]
    """(cells,) over the full runs' time."""


def scores(found: Sequence[Measured]) -> list[Score]:
    """Return the scores of the adviser at each budget, of all rules, and of chance."""

    def score(name: str, pick: Callable[[Measured], Picked]) -> Score:
        regrets, costs = [], []
        for one in found:
            picked = pick(one)
            answers, cost_s = (np.zeros(one.runs[0].test_images), 0.0) if picked is None else picked
            regrets.append(one.regret(answers))
            costs.append(cost_s / one.whole_s)
        return Score(name, np.array(regrets), np.array(costs))

    def adviser(share: float) -> Callable[[Measured], Picked]:
        advice_of = _at(share)
        return lambda one: _recommended(one, advice_of(one))

    def ruled(name: str) -> Callable[[Measured], Picked]:
        def pick(one: Measured) -> Picked:
            picked = RULES[name](one.runs, one.evidence)
            return None if picked is None else (picked.run.answers().astype(float), picked.cost_s)

        return pick

    every = [score(f"advise, {share:.0%} of the cost", adviser(share)) for share in SHARES]
    every.append(score("probes and experience, no trial", lambda one: _by_experience(one, found)))
    every.append(score("best of the other families", lambda one: _best_elsewhere(one, found)))
    every += [score(name, ruled(name)) for name in RULES]
    return [*every, score("chance", lambda one: chance(one.runs))]


def _at(share: float) -> Callable[[Measured], Advice]:
    """Return what reads the advice of a share of the cost."""
    return lambda one: one.advice[share]


def _recommended(one: Measured, advice: Advice) -> Picked:
    """Return the answers of the recommended full run, and the time that the advice took."""
    run = None if advice.recommendation is None else one.run_of(advice.recommendation)
    return None if run is None else (run.answers().astype(float), advice.spent_s)


def _by_experience(one: Measured, found: Sequence[Measured]) -> Picked:
    """Choose what experience from the other families expects to be the best, by probes alone."""
    if not one.is_probed:
        return None
    every = _candidates()
    experience = learn(outside(found, one.family))
    belief = believe(
        experience, one.images_per_class, every, KINDS, one.evidence.probe_answers, {}, {}
    )
    best = every[int(belief.expected.argmax())]
    return _answers_of(one, best, cost_s=0.0)


def _best_elsewhere(one: Measured, found: Sequence[Measured]) -> Picked:
    """Choose the policy, rate and network with the highest mean accuracy on the other families; a
    run that diverged counts as 0."""
    others = outside(found, one.family)

    def mean_top1(candidate: Candidate) -> float:
        runs = [_run_of(other, candidate) for other in others]
        return float(np.mean([0.0 if run is None else run.test_top1 for run in runs]))

    return _answers_of(one, max(_candidates(), key=mean_top1))


def _candidates() -> list[Candidate]:
    return [
        candidate(name, policy, "linear", EPOCHS).at_rate(factor)
        for name in BACKBONES for policy in POLICIES for factor in RATE_FACTORS
    ]  # fmt: skip


def _run_of(one: Measured, candidate: Candidate) -> FullRun | None:
    return one.run(candidate.backbone, candidate.policy, candidate.rate_factor)


def _answers_of(one: Measured, candidate: Candidate, cost_s: float | None = None) -> Picked:
    """Return the answers of a candidate's full run, with its time unless a cost is given; None if
    it diverged."""
    run = _run_of(one, candidate)
    if run is None:
        return None
    return run.answers().astype(float), run.fit_s if cost_s is None else cost_s


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


def coverage(
    found: Sequence[Measured], advice_of: Callable[[Measured], Advice]
) -> dict[str, tuple[int, int]]:
    """Return how many predicted intervals hold the full run's accuracy, and of how many: of
    recommendations, and of everything that was tried."""
    counts = {}
    for name in ("recommended", "tried"):
        held = total = 0
        for one in found:
            if one.cell.variant.noise:
                continue  # the test labels are right, those that the adviser sees are not
            advice = advice_of(one)
            own = advice.tried if name == "tried" else (advice.recommendation,)
            for strategy in own:
                run = None if strategy is None else one.run_of(strategy)
                if run is None or strategy is None or strategy.interval is None:
                    continue
                low, high = strategy.interval
                held += low <= run.test_top1 <= high
                total += 1
        counts[name] = (held, total)
    return counts


def ties(found: Sequence[Measured], share: float) -> dict[str, float]:
    """Return precision and recall of "cannot be distinguished from the best", by the full runs."""
    called = right = equal = 0
    for one in found:
        tried = [(s, one.run_of(s)) for s in one.advice[share].tried]
        known = [(s, run.answers()) for s, run in tried if run is not None]
        if not known:
            continue
        every = np.stack([answers for _, answers in known])
        for half in (0, 1):  # the best by one half of the test images, compared on the other
            own = parts(every.shape[1], 2) == half
            best = every[:, own].mean(axis=1).argmax()
            for (strategy, _), top1 in zip(known, every[:, ~own].mean(axis=1), strict=True):
                is_equal = every[best, ~own].mean() - top1 <= SAME
                called += strategy.is_contender
                equal += is_equal
                right += is_equal and strategy.is_contender
    return {"precision": right / max(called, 1), "recall": right / max(equal, 1)}


def data_wanted(found: Sequence[Measured]) -> dict[str, list[float | None]]:
    """Return the number of images that a curve asks for over the number that was needed, for the
    accuracy at its largest size, by the curve of the smaller ones; None where it finds no number.
    Curves are those of probes, in each cell, and of the whole network, in each family."""
    random = np.random.default_rng(0)

    def ratios(points: Sequence[Point]) -> list[float | None]:
        *smaller, largest = sorted(points, key=lambda p: p.images)
        if len(smaller) < 2 or largest.error >= min(p.error for p in smaller):
            return []  # more images brought nothing, so that no number was needed
        wanted = fit_curve(smaller, random).images_for(largest.error)
        return [None if wanted is None else wanted / largest.images]

    probes = [ratio for one in found if one.curve for ratio in ratios(one.curve)]
    whole: list[float | None] = []
    for family in FAMILIES:
        own = [one for one in found if one.family == family.name and one.cell.variant is PLAIN]
        points = []
        for one in own:
            run = tuned(one.runs, BACKBONES[-1], "fine_tune_all")
            if run is not None:
                error = 1 - run.test_top1
                spread = float(np.sqrt(max(error * (1 - error), 0.01) / run.test_images))
                points.append(Point(one.train_images, error, spread))
        whole += ratios(points) if points else []
    return {"probes": probes, "whole network": whole}


def folder_without_split(found: Sequence[Measured]) -> dict[str, Any]:
    """Return regret and coverage of the advice about cells as folders without a split; those that
    got no recommendation count as refused."""
    advice = {one.cell.name: one.of_folder for one in found if one.of_folder is not None}
    own = [one for one in found if one.cell.name in advice and advice[one.cell.name].recommendation]
    picked = [(one, _recommended(one, advice[one.cell.name])) for one in own]
    regrets = np.array([
        one.regret(np.zeros(one.runs[0].test_images) if pick is None else pick[0])
        for one, pick in picked
    ])  # fmt: skip
    if not own:
        return {"cells": 0}
    return {
        "share": FOLDS_SHARE, "cells": len(own),
        "refused": [name for name, one in advice.items() if one.recommendation is None],
        "mean": float(regrets.mean()), "worst": float(regrets.max()),
        "interval": interval(regrets, [one.family for one in own]),
        "coverage": coverage(own, lambda one: advice[one.cell.name]),
    }  # fmt: skip


def planted(found: Sequence[Measured]) -> dict[str, tuple[int, int]]:
    """Return for each planted fault in how many cells a sign of its kind was found, and of how
    many; cells that are refused without a fault do not count."""
    counts: dict[str, tuple[int, int]] = {}
    for one in found:
        for name, signs in one.planted.items() if one.is_probed else ():
            refused, total = counts.get(name, (0, 0))
            counts[name] = (refused + (FAULTS[name].kind in signs), total + 1)
    return counts


def summary(folder: Path) -> dict[str, Any]:
    """Return every number of the page; raise SystemExit if no cell is complete."""
    found = [one for one in load(folder) if len(one.advice) == len(SHARES)]
    if not found:
        raise SystemExit(f"No complete cell in {folder}: python -m tools.advice_record collect")
    answered = [one for one in found if one.advice[SHARES[-1]].recommendation is not None]
    families = [one.family for one in answered]
    every = scores(answered)
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
        "cells": len(found), "families": sorted({one.family for one in found}),
        "runs": sum(len(one.runs) for one in found),
        "whole_hours": sum(one.whole_s for one in found) / 3600,
        "rules": rows,
        "coverage": {
            f"{share:g}": coverage(found, _at(share)) for share in SHARES
        },
        "folder": folder_without_split(found),
        "ties": {f"{share:g}": ties(found, share) for share in SHARES},
        "data_wanted": data_wanted(found),
        "planted": planted(found),
        "refused": [one.cell.name for one in found if one not in answered],
        "answered": len(answered),
        "by_cell": {
            one.cell.name: float(regret)
            for one, regret in zip(answered, adviser.regrets, strict=True)
        },
    }  # fmt: skip
