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
from bench.advise.learning_curve import Point, Slope, fit_curve
from bench.advise.wishes import POLICIES
from bench.system import cores, processor
from tools.advice_record.learn import learn
from tools.advice_record.measured import (
    FOLDS_SHARE,
    SHARES,
    Measured,
    load,
    outside,
    parts,
    whole_curve,
)
from tools.advice_record.oracle import BACKBONES, EPOCHS, KINDS, FullRun
from tools.advice_record.planted import FAULTS
from tools.advice_record.rules import RULES, Rule, chance

DRAWS = 2000
SAME = 0.01
"""Difference in test accuracy below which two strategies are equally good; the adviser's margin."""
COMPARED = (0.1, 0.2)
"""Shares of the cost at which the adviser is compared with each rule, the first one by cell too."""
Picked = tuple[float, float]
"""Test accuracy of what was chosen, a mean over seeds, 0 if nothing was; and the time that choosing
took."""


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
        picked = [pick(one) for one in found]
        regrets = [one.regret(top1) for one, (top1, _) in zip(found, picked, strict=True)]
        costs = [cost_s / one.whole_s for one, (_, cost_s) in zip(found, picked, strict=True)]
        return Score(name, np.array(regrets), np.array(costs))

    def adviser(share: float) -> Callable[[Measured], Picked]:
        return lambda one: _recommended(one, one.advice[share])

    every = [score(_name(share), adviser(share)) for share in SHARES]
    every.append(score("probes and experience, no trial", lambda one: _by_experience(one, found)))
    every.append(score("best of the other families", lambda one: _best_elsewhere(one, found)))
    every += [score(name, _ruled(rule)) for name, rule in RULES.items()]
    return [*every, score("chance", _by_chance)]


def _name(share: float) -> str:
    """Return the name of the adviser with a share of the cost."""
    return f"advise, {share:.0%} of the cost"


def _ruled(rule: Rule) -> Callable[[Measured], Picked]:
    """Return what a rule picks, on average over the seeds of the full runs that it looks at."""

    def pick(one: Measured) -> Picked:
        found = [pick for runs in one.seeds if (pick := rule(runs, one.evidence)) is not None]
        cost_s = float(np.mean([pick.cost_s for pick in found])) if found else 0.0
        return one.top1([pick.run for pick in found]), cost_s

    return pick


def _by_chance(one: Measured) -> Picked:
    top1, cost_s = np.mean([chance(runs) for runs in one.seeds], axis=0)
    return float(top1), float(cost_s)


def _at(share: float) -> Callable[[Measured], Advice]:
    """Return what reads the advice of a share of the cost."""
    return lambda one: one.advice[share]


def _recommended(one: Measured, advice: Advice) -> Picked:
    """Return the accuracy of what is recommended, and the time that the advice took, with that of
    the training if it was not tried."""
    chosen = advice.recommendation
    if chosen is None:
        return 0.0, advice.spent_s
    runs = one.runs_of(chosen)
    return one.top1(runs), advice.spent_s + (0.0 if chosen.folds else _fit_s(runs))


def _by_experience(one: Measured, found: Sequence[Measured]) -> Picked:
    """Choose what experience from the other families expects to be the best, by probes alone."""
    if not one.is_probed:
        return 0.0, 0.0
    every = _candidates()
    experience = learn(outside(found, one.family))
    belief = believe(
        experience, one.images_per_class, every, KINDS, one.evidence.probe_answers, {}, {}
    )
    best = every[int(belief.expected.argmax())]
    runs = _runs_of(one, best)
    return one.top1(runs), _fit_s(runs)


def _best_elsewhere(one: Measured, found: Sequence[Measured]) -> Picked:
    """Choose the policy, rate and network with the highest mean accuracy on the other families."""
    others = outside(found, one.family)

    def mean_top1(candidate: Candidate) -> float:
        return float(np.mean([other.top1(_runs_of(other, candidate)) for other in others]))

    runs = _runs_of(one, max(_candidates(), key=mean_top1))
    return one.top1(runs), _fit_s(runs)


def _fit_s(runs: Sequence[FullRun]) -> float:
    """Return the mean time of full runs; 0 without any."""
    return float(np.mean([run.fit_s for run in runs])) if runs else 0.0


def _candidates() -> list[Candidate]:
    return [
        candidate(name, policy, "linear", EPOCHS).at_rate(factor)
        for name in BACKBONES for policy in POLICIES for factor in RATE_FACTORS
    ]  # fmt: skip


def _runs_of(one: Measured, candidate: Candidate) -> list[FullRun]:
    return one.runs(candidate.backbone, candidate.policy, candidate.rate_factor)


def regret_error(found: Sequence[Measured], share: float) -> float:
    """Return the standard error of the adviser's regret in one cell that seeds cause: over cells,
    the root mean square of half the difference between the regrets with two seeds."""
    halves = []
    for one in found:
        recommendation = one.advice[share].recommendation
        runs = [] if recommendation is None else one.runs_of(recommendation)
        if len(runs) == len(one.seeds):
            regrets = one.best_top1 - [run.test_top1 for run in runs]
            halves.append(np.diff(regrets[:2])[0] / 2)
    return float(np.sqrt(np.mean(np.square(halves))))


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


def _mean(values: npt.NDArray[np.float64], families: Sequence[str]) -> dict[str, Any]:
    """Return the mean over cells and its interval."""
    return {"mean": float(values.mean()), "interval": interval(values, families)}


def coverage(
    found: Sequence[Measured], advice_of: Callable[[Measured], Advice]
) -> dict[str, tuple[int, int]]:
    """Return how often predicted intervals hold the accuracy of a full run, and of how many, with
    each seed: of recommendations, and of everything that was tried."""
    counts = {}
    for name in ("recommended", "tried"):
        held = total = 0
        for one in found:
            if one.cell.variant.noise:
                continue  # the test labels are right, those that the adviser sees are not
            advice = advice_of(one)
            own = advice.tried if name == "tried" else (advice.recommendation,)
            for strategy in own:
                if strategy is None or strategy.interval is None:
                    continue
                low, high = strategy.interval
                runs = one.runs_of(strategy)
                held += sum(low <= run.test_top1 <= high for run in runs)
                total += len(runs)
        counts[name] = (held, total)
    return counts


def ties(found: Sequence[Measured], share: float) -> dict[str, float]:
    """Return precision and recall of "cannot be distinguished from the best", by the full runs."""
    called = right = equal = 0
    for one in found:
        known = [(s, runs) for s in one.advice[share].tried
                 if len(runs := one.runs_of(s)) == len(one.seeds)]  # fmt: skip
        if not known:
            continue
        every = np.array([[run.answers() for run in runs] for _, runs in known])
        for seed in range(len(one.seeds)):
            for half in (0, 1):  # the best by one seed and half of the test images
                own = parts(every.shape[2], 2) == half
                best = every[:, seed, own].mean(axis=1).argmax()
                others = np.delete(every[:, :, ~own], seed, axis=1).mean(axis=(1, 2))
                for (strategy, _), top1 in zip(known, others, strict=True):
                    is_equal = others[best] - top1 <= SAME
                    called += strategy.is_contender
                    equal += is_equal
                    right += is_equal and strategy.is_contender
    return {"precision": right / max(called, 1), "recall": right / max(equal, 1)}


def data_wanted(found: Sequence[Measured]) -> dict[str, list[float | None]]:
    """Return the number of images that a curve asks for over the number that was needed, for the
    accuracy at its largest size, by the curve of the smaller ones; None where it finds no number.
    Curves are those of probes, in each cell, and of the whole network, in each family."""
    random = np.random.default_rng(0)
    experience = {
        name: learn(outside(found, name)) for name in sorted({one.family for one in found})
    }

    def ratios(points: Sequence[Point], slope: Slope) -> list[float | None]:
        *smaller, largest = sorted(points, key=lambda p: p.images)
        if len(smaller) < 2 or largest.error >= min(p.error for p in smaller):
            return []  # more images brought nothing, so that no number was needed
        wanted = fit_curve(smaller, random, slope).images_for(largest.error)
        return [None if wanted is None else wanted / largest.images]

    probes = [
        ratio for one in found if one.curve
        for ratio in ratios(one.curve, experience[one.family].probe_slope)
    ]  # fmt: skip
    whole = [
        ratio
        for family, known in experience.items()
        if (points := whole_curve(found, family, BACKBONES[-1], "fine_tune_all"))
        for ratio in ratios(points, known.whole_slope)
    ]
    return {"probes": probes, "whole network": whole}


def folder_without_split(found: Sequence[Measured]) -> dict[str, Any]:
    """Return regret and coverage of the advice about cells as folders without a split; those that
    got no recommendation count as refused."""
    advice = {one.cell.name: one.of_folder for one in found if one.of_folder is not None}
    own = [one for one in found if one.cell.name in advice and advice[one.cell.name].recommendation]
    picked = [(one, _recommended(one, advice[one.cell.name])) for one in own]
    regrets = np.array([one.regret(top1) for one, (top1, _) in picked])
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
    advisers = {share: next(s for s in every if s.name == _name(share)) for share in COMPARED}
    rows = [
        {
            "name": score.name, "mean": float(score.regrets.mean()),
            "interval": interval(score.regrets, families), "worst": float(score.regrets.max()),
            "cost": float(score.costs.mean()),
            "behind": {
                f"{share:g}": _mean(score.regrets - adviser.regrets, families)
                for share, adviser in advisers.items()
            },
        }
        for score in every
    ]  # fmt: skip
    return {
        "machine": f"{cores()} cores of {processor()}",
        "cells": len(found), "families": sorted({one.family for one in found}),
        "runs": sum(len(runs) for one in found for runs in one.seeds),
        "whole_hours": sum(run.fit_s for o in found for runs in o.seeds for run in runs) / 3600,
        "rules": rows, "regret_error": regret_error(answered, COMPARED[0]),
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
            for one, regret in zip(answered, advisers[COMPARED[0]].regrets, strict=True)
        },
    }  # fmt: skip
