"""The page about the calibration: false alarms, power, bias, and the rules of others."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tabulate import tabulate

from bench.gate.calibration import common_ratios, drawn_comparisons, upper_bound
from bench.gate.circumstances import unequal_conditions
from bench.gate.design import LOOKS, Plan
from bench.gate.journal import RESULT_FILE, read_launches
from bench.gate.run import GateResult, result_of
from bench.gate.samples import ArmLaunch, block_series
from bench.gate.statistics import Floats
from bench.report.gate.words import percent
from bench.speed.values import benchmarks_of
from bench.storage.text_files import json_text, replace_text
from bench.system import cores, processor
from tools.calibration.bias import BIASES
from tools.calibration.collect import (
    BLOCKS,
    CULPRIT_FOLDER,
    CULPRIT_SHARE,
    HONEST,
    MARGIN,
    PLANTED,
)
from tools.calibration.rules import RULES, Sample
from tools.planted_worker import GROWTH_VARIABLE, SHARE_VARIABLE

DRAWS = 1000
"""Comparisons that are drawn for each rate."""
DRAWN_BY_RULES = 300
FIXED = Plan(margin=MARGIN, looks=(BLOCKS,))
"""The plan of the comparisons of a commit with itself: one look, confirmed by as many blocks."""


@dataclass(frozen=True)
class Measured:
    """A comparison of the calibration."""

    name: str
    launches: list[ArmLaunch]

    def result(self) -> GateResult:
        """Decide as the gate does today."""
        intended = [SHARE_VARIABLE, GROWTH_VARIABLE]
        return result_of(self.launches, FIXED, ("A", "B"), True, intended)

    def ratios(self) -> Floats:
        """Return the (blocks, benchmarks) log ratios."""
        return common_ratios(block_series(self.launches, "search", True))[1]

    def samples(self, blocks: Iterable[int] | None = None) -> dict[str, Sample]:
        """Return the windows of A and of B, of all blocks or of some, by benchmark."""
        wanted = None if blocks is None else set(blocks)
        found: dict[str, Sample] = {}
        for one in self.launches:
            if one.stage != "search" or one.arm == "N":
                continue
            if wanted is not None and one.block not in wanted:
                continue
            for name, windows in benchmarks_of(one.launch).items():
                sample = found.setdefault(name, Sample([], []))
                seconds = [window.seconds for window in windows]
                (sample.a if one.arm == "A" else sample.b).append(seconds)
        return found


def load(folder: Path) -> dict[str, Measured]:
    """Read all comparisons that are complete."""
    return {
        path.parent.name: Measured(path.parent.name, read_launches(path.parent))
        for path in sorted(folder.glob(f"*/{RESULT_FILE}"))
    }


def alarms_by_rule(comparisons: Sequence[Measured]) -> dict[str, int]:
    """Return in how many comparisons each rule calls any benchmark slower."""
    found = dict.fromkeys((rule.name for rule in RULES), 0)
    for one in comparisons:
        samples = one.samples()
        for rule in RULES:
            found[rule.name] += any(rule.is_slower(sample) for sample in samples.values())
    return found


def found_by_rule(one: Measured, count: int, random: Random) -> dict[str, float]:
    """Return the share of drawn comparisons of ``count`` blocks in which each rule calls a
    benchmark slower."""
    blocks = sorted({launch.block for launch in one.launches if launch.stage == "search"})
    counts = dict.fromkeys((rule.name for rule in RULES), 0)
    for _ in range(DRAWN_BY_RULES):
        samples = one.samples(random.sample(blocks, min(count, len(blocks))))
        for rule in RULES:
            counts[rule.name] += any(rule.is_slower(sample) for sample in samples.values())
    return {name: count / DRAWN_BY_RULES for name, count in counts.items()}


def summary(folder: Path) -> dict[str, Any]:
    """Return every number of the page."""
    measured = load(folder)
    honest = [one for name, one in measured.items() if name.startswith("same-")]
    if not honest:
        raise SystemExit(
            f"No complete comparison in {folder}; measure first: python -m tools.calibration "
            f"collect {folder}"
        )
    results = [one.result() for one in honest]
    verdicts = [result.verdict for result in results]
    ratios = [one.ratios() for one in honest]
    together = np.concatenate([r for r in ratios if r.size])
    random = np.random.default_rng(0)
    drawn = drawn_comparisons(together, 0.0, Plan(margin=MARGIN), random, DRAWS)
    planted: dict[str, Any] = {}
    for share in PLANTED:
        one = measured.get(f"planted-{share:g}")
        if one is not None:
            planted[f"{share:g}"] = _planted(one, share, together)
    biases = {}
    for bias in BIASES:
        one = measured.get(f"bias-{bias.name}")
        if one is not None:
            biases[bias.name] = _bias(one, bias.words)
    alarms = sum(verdict == "slower" for verdict in verdicts)
    return {
        "machine": f"{cores()} cores of {processor()}",
        "comparisons": len(honest),
        "launches": sum(len(one.launches) for one in measured.values()),
        "hours": sum(x.launch.seconds for m in measured.values() for x in m.launches) / 3 / 3600,
        "verdicts": {v: verdicts.count(v) for v in sorted(set(verdicts))},
        "alarms": alarms,
        "alarm_bound": upper_bound(alarms, len(honest)),
        "null_moved": sum(not result.null_arm.passed for result in results),
        "drawn": DRAWS,
        "drawn_alarms": sum(found is not None for found in drawn),
        "spread": _spreads(honest),
        "others": alarms_by_rule(honest),
        "planted": planted,
        "simulated": _simulated(together),
        "biases": biases,
        "culprits": _culprits(folder / CULPRIT_FOLDER),
    }


def _spreads(honest: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Return the standard deviation of the log ratio of a block within comparisons: of the median
    comparison, and of the calmest and the most restless tenth."""
    found: dict[str, list[float]] = {}
    for one in honest:
        for name, own in block_series(one.launches, "search", True).items():
            if len(own.blocks) > 2:
                logs = [block.log_ratio for block in own.blocks]
                found.setdefault(name, []).append(statistics.stdev(logs))
    return {
        name: {
            "median": statistics.median(values),
            "calm": float(np.quantile(values, 0.1)),
            "restless": float(np.quantile(values, 0.9)),
        }
        for name, values in found.items()
    }


def _planted(one: Measured, share: float, together: Floats) -> dict[str, Any]:
    """Return what the gate and the rules find of a planted slowdown; ``together`` are the ratios
    of all blocks of a commit against itself, for the alarms at the same margin."""
    ratios = one.ratios()
    true = {
        name: math.expm1(statistics.fmean(block.log_ratio for block in own.blocks))
        for name, own in block_series(one.launches, "search", True).items()
    }
    plan = Plan(margin=min(MARGIN, share / 2))
    random = np.random.default_rng(1)
    found = _drawn_found(ratios, plan, random)
    alarms = drawn_comparisons(together, 0.0, plan, random, DRAWS)
    fixed = _drawn_found(ratios, FIXED, random)
    return {
        "blocks": len(ratios),
        "measured": true,
        "spread": float(np.median(ratios.std(axis=0, ddof=1))),
        "margin": plan.margin,
        "alarms": sum(f is not None for f in alarms) / DRAWS,
        "found": {look: sum(f is not None and f <= look for f in found) / DRAWS for look in LOOKS},
        "found_once": sum(f is not None for f in fixed) / DRAWS,
        "others": {count: found_by_rule(one, count, Random(2)) for count in (BLOCKS, 2 * BLOCKS)},
    }


def _drawn_found(ratios: Floats, plan: Plan, random: np.random.Generator) -> list[int | None]:
    """Draw comparisons from planted blocks as they are; their noise about the mean may have either
    sign."""
    center = ratios.mean(axis=0)
    noise = ratios - center
    return drawn_comparisons(noise, np.expm1(center), plan, random, DRAWS)


def _simulated(together: Floats) -> dict[str, Any]:
    """Return the power where the spread is 2 % and 0.5 %, by normal noise."""
    random = np.random.default_rng(3)
    found: dict[str, Any] = {}
    for words, spread, slowdown, margin in (
        ("5 %, spread 2 %", 0.02, 0.05, 0.03),
        ("10 %, spread 2 %", 0.02, 0.10, 0.03),
        ("1 %, spread 0.5 % (a quiet GPU)", 0.005, 0.01, 0.005),
    ):
        noise = random.normal(0, spread, (2000, max(together.shape[1], 1)))
        drawn = drawn_comparisons(noise, slowdown, Plan(margin=margin), random, DRAWS)
        found[words] = {
            look: sum(f is not None and f <= look for f in drawn) / DRAWS for look in LOOKS
        }
    return found


def _culprits(folder: Path) -> dict[str, dict[str, int]]:
    """Return planted part → named part → how often."""
    found: dict[str, dict[str, int]] = {}
    for file in sorted(folder.glob("*.json")):
        named = str(json.loads(file.read_text())["culprit"])
        counts = found.setdefault(file.stem.partition("-")[0], {})
        counts[named] = counts.get(named, 0) + 1
    return found


def _bias(one: Measured, words: str) -> dict[str, Any]:
    result = one.result()
    ratios = [v.ratio for v in result.benchmarks if v.ratio is not None]
    unequal = unequal_conditions(one.launches, [SHARE_VARIABLE])
    return {
        "words": words,
        "verdict": result.verdict,
        "largest": max(ratios, default=None),
        "why": str(unequal[0])
        if unequal
        else next((v.reason for v in result.benchmarks if v.reason), None),
        "others": [rule.name for rule in RULES if any(map(rule.is_slower, one.samples().values()))],
    }


def page(found: Mapping[str, Any], commit: str) -> str:
    """Return the page in Markdown."""
    n = found["comparisons"]
    honest_rows = [["this gate", f"{found['alarms']} of {n}", percent(found["alarms"] / n)]]
    honest_rows += [[name, f"{k} of {n}", percent(k / n)] for name, k in found["others"].items()]
    names = [rule.name for rule in RULES]
    power_rows = []
    for share, own in found["planted"].items():
        power_rows.append(
            [
                f"{float(share):.0%}", _measured_text(own["measured"]), percent(own["spread"]),
                percent(own["margin"]), percent(own["alarms"]),
                *(f"{own['found'][look]:.0%}" for look in LOOKS),
            ]
        )  # fmt: skip
    rule_rows = [
        [f"{name}, {count} blocks", percent(found["others"][name] / n) if count == BLOCKS else "–",
         *(f"{own['others'][count][name]:.0%}" for own in found["planted"].values())]
        for name in names for count in (BLOCKS, 2 * BLOCKS)
    ]  # fmt: skip
    gate_row = [f"this gate, {BLOCKS} blocks and {BLOCKS} to confirm", percent(found["alarms"] / n),
                *(f"{own['found_once']:.0%}" for own in found["planted"].values())]  # fmt: skip
    bias_rows = [
        [own["words"], own["verdict"], "–" if own["largest"] is None else f"{own['largest']:.3f}",
         own["why"] or "", ", ".join(own["others"]) or "none"]
        for own in found["biases"].values()
    ]  # fmt: skip
    spread_rows = [
        [name, percent(own["calm"]), percent(own["median"]), percent(own["restless"])]
        for name, own in found["spread"].items()
    ]
    simulated_rows = [
        [words, *(f"{own[look]:.0%}" for look in LOOKS)]
        for words, own in found["simulated"].items()
    ]
    culprit_rows = [
        [part, ", ".join(f"{named} {count}" for named, count in counts.items())]
        for part, counts in found["culprits"].items()
    ]
    looks = [str(look) for look in LOOKS]

    def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
        return tabulate(rows, headings, "pipe", disable_numparse=True)

    return "\n".join(
        [
            "# The errors of the speed gate",
            "",
            f"Made by `make calibrate` on {found['machine']}, code of commit {commit}: "
            f"{found['launches']:,} launches in {found['hours']:.1f} hours. The suite is "
            "`calibration`: SqueezeNet at 32 px, two policies, training steps and epochs, PyTorch. "
            "How the gate decides is in [docs/gate.md](../docs/gate.md).",
            "",
            *([] if n >= HONEST else [
                f"Not complete: {n} of {HONEST} comparisons of a commit with itself, and "
                f"{len(found['biases'])} of {len(BIASES)} biases, were measured so far.", "",
            ]),
            "## A commit against itself",
            "",
            f"{n} comparisons of six blocks that share no launch. An alarm is a verdict `slower`; "
            f"of the gate there were {found['alarms']}, so that the rate is at most "
            f"{percent(found['alarm_bound'])} (95 %). Verdicts: "
            + ", ".join(f"{v} {k}" for v, k in found["verdicts"].items())
            + f". The null arm moved in {found['null_moved']}. Of {found['drawn']:,} comparisons "
            f"of up to 40 blocks, drawn from all blocks, {found['drawn_alarms']} ended in an "
            "alarm.",
            "",
            table(honest_rows, ["rule", "alarms", "rate"]),
            "",
            "Standard deviation of a block's log ratio within a comparison:",
            "",
            table(spread_rows, ["benchmark", "calm tenth", "median", "restless tenth"]),
            "",
            "## Planted slowdowns",
            "",
            "Real extra work in the steps of B; measured is the range over the benchmarks. Shares "
            "of comparisons, drawn from those blocks, that found it after so many blocks at most "
            "and confirmed it by as many again. Alarms are those of comparisons drawn from blocks "
            "without a slowdown, at the same margin:",
            "",
            table(power_rows, ["planted", "measured", "spread", "margin", "alarms", *looks]),
            "",
            f"The same margin of {percent(MARGIN)} and one look, for all rules. Without a slowdown "
            f"(none) the shares are of the {n} comparisons above:",
            "",
            table([gate_row, *rule_rows],
                  ["rule", "none", *(f"{float(s):.0%}" for s in found["planted"])]),
            "",
            "Simulated with normal noise: found after so many blocks at most, and confirmed by as "
            "many again:",
            "",
            table(simulated_rows, ["slowdown", *looks]),
            "",
            "## Planted bias",
            "",
            "The code of B is that of A. None may end in `slower`.",
            "",
            table(bias_rows, ["what is planted", "verdict", "largest ratio", "why",
                              "rules of others that call it slower"]),
            "",
            "## Planted culprits",
            "",
            f"{CULPRIT_SHARE:.0%} of a step, planted in one of its parts; the part that is named:",
            "",
            table(culprit_rows, ["planted in", "named"]),
            "",
        ]
    )  # fmt: skip


def _measured_text(ratios: Mapping[str, float]) -> str:
    """Return the range of the measured slowdowns of the benchmarks."""
    return f"{percent(min(ratios.values()))} to {percent(max(ratios.values()))}"


def write(folder: Path, into: Path, commit: str) -> None:
    """Write the numbers and the page."""
    found = summary(folder)
    replace_text(into / "calibration.json", json_text(found) + "\n")
    replace_text(into / "calibration.md", page(found, commit))
