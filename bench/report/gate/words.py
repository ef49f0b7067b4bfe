"""The answer of a comparison in sentences and in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.gate.attribution import Cause
from bench.gate.baseline import BaselineResult
from bench.gate.decision import BenchmarkVerdict, ComparedBenchmark
from bench.gate.run import GateResult

Row = list[str]
HEADINGS = ["benchmark", "B / A", "interval", "verdict", "blocks", "found in 80 %, 95 %"]
"""Headings of the table of a comparison; the last are the smallest slowdowns that so many blocks
find."""
BASELINE_HEADINGS = ["benchmark", "now / baseline", "interval", "verdict", "launches",
                     "found in 80 %"]  # fmt: skip
COMPILE_CHANGE_S = 1.0
"""Difference of compilation that is told; processes that start together compile beside each other.
"""
MOST_DIFFERENCES = 12
"""Differences that are named in words; JSON has all."""
ANSWERS = {
    "slower": "B is slower than A.",
    "faster": "B is faster than A.",
    "same": "B is as fast as A.",
    "cannot tell": "It cannot be told whether B is slower than A.",
}


def rows_of(result: GateResult | BaselineResult) -> list[Row]:
    """Return the rows of the table."""
    return [
        [
            one.name, ratio_text(one.ratio), interval_text(one.interval), one.verdict,
            str(one.blocks), _found_text(one),
        ]
        for one in result.benchmarks
    ]  # fmt: skip


def _found_text(one: ComparedBenchmark) -> str:
    """Return the smallest slowdowns that are found, in 80 % and where it is known in 95 %."""
    powers = [one.detectable]
    if isinstance(one, BenchmarkVerdict):
        powers.append(one.detectable_95)
    return ", ".join(percent(power, sign=True) for power in powers)


def ratio_text(ratio: float | None) -> str:
    """Return a ratio of times with three decimals."""
    return "–" if ratio is None else f"{ratio:.3f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return an interval of a ratio."""
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """Return a fraction in percent with one decimal."""
    return "–" if value is None else f"{value * 100:{'+' if sign else ''}.1f} %"


def gate_sentences(result: GateResult) -> list[str]:
    """Return the answer of a comparison in sentences: the verdict, why, and what it could find."""
    found = [ANSWERS[result.verdict]]
    for one in result.benchmarks:
        if one.verdict in ("slower", "faster") and one.ratio is not None:
            found.append(_verdict_sentence(one))
    found += [_cause_sentence(cause) for cause in result.causes]
    found += _reasons(result.benchmarks)
    found += _power_sentences(result)
    found += _cycle_sentences(result.benchmarks)
    if result.null_arm.passed and result.null_arm.ratio is not None:
        found.append(
            "The null arm shows no bias: where A, launched in another way, differed most from A, "
            f"it took {result.null_arm.ratio:.3f} times as long "
            f"({interval_text(result.null_arm.interval)})."
        )
    rate = result.false_alarm_rate
    if rate is None:
        found.append(
            "The gate's false alarms on this machine were not measured: run_bench.py gate calibrate"
        )
    else:
        found.append(
            f"The gate's false-alarm rate on this machine, as calibrated: {percent(rate)}."
        )
    return [*found, *difference_sentences(result.differs, "A", "B"), *result.remarks]


def _verdict_sentence(one: BenchmarkVerdict) -> str:
    assert one.ratio is not None
    word = "longer" if one.ratio > 1 else "less"
    text = f"{one.name} took {percent(abs(one.ratio - 1))} {word} ({interval_text(one.interval)})."
    if one.confirmed_ratio is not None:
        text += f" New launches confirmed it: {one.confirmed_ratio:.3f}."
    return text


def _cause_sentence(cause: Cause) -> str:
    if cause.culprit is None:
        return f"{cause.case}: no part of a step changed that way when it was profiled."
    part = cause.parts[0]
    word, most = ("lost", "grew") if cause.verdict == "slower" else ("gained", "shrank")
    text = (
        f"{cause.case} {word} time in {cause.culprit}: {part.before_s * 1000:.2f} ms a step became "
        f"{part.now_s * 1000:.2f} ms."
    )
    if cause.operations:
        names = ", ".join(one.name for one in cause.operations)
        text += f" Operations that {most} most: {names}."
    before_s, now_s = cause.compile_s
    if abs(now_s - before_s) > COMPILE_CHANGE_S:
        text += f" Compilation took {before_s:.1f} s at A and {now_s:.1f} s at B."
    return text


def _reasons(benchmarks: Sequence[BenchmarkVerdict]) -> list[str]:
    """Return one sentence for each reason why nothing can be told."""
    by_reason: dict[str, list[BenchmarkVerdict]] = {}
    for one in benchmarks:
        if one.verdict == "cannot tell" and one.reason is not None:
            by_reason.setdefault(one.reason, []).append(one)
    found = []
    for reason, own in by_reason.items():
        which = "any benchmark" if len(own) == len(benchmarks) > 1 else _names(own)
        needed = [one.needed_blocks for one in own if one.needed_blocks is not None]
        more = ""
        if needed:
            all_told = len(needed) == len(own)
            more = f" About {max(needed)} blocks would settle it."
            if not all_told:
                more = f" Even more than {max(needed)} blocks would not settle all of it."
        found.append(f"Nothing can be told about {which}: {reason}.{more}")
    return found


def _names(own: Sequence[BenchmarkVerdict]) -> str:
    return own[0].name if len(own) == 1 else f"{len(own)} benchmarks"


def _cycle_sentences(benchmarks: Sequence[ComparedBenchmark]) -> list[str]:
    """Return the ratios in cycles of the GPU's clock, where it is known."""
    told = [one for one in benchmarks if one.cycles_ratio is not None]
    return [
        f"In cycles of the GPU {one.name} took {one.cycles_ratio:.3f} times as many."
        for one in told
    ]


def _power_sentences(result: GateResult) -> list[str]:
    """Return the slowdowns that would have been found in every benchmark; nothing where the
    comparison was not fair."""
    if not result.null_arm.passed or result.unequal:
        return []
    known = [one for one in result.benchmarks if one.detectable is not None]
    which = "every benchmark" if len(known) == len(result.benchmarks) else (
        f"{len(known)} of {len(result.benchmarks)} benchmarks"
    )  # fmt: skip
    largest = [max((x for x in values if x is not None), default=None) for values in zip(
        *((one.detectable, one.detectable_95) for one in result.benchmarks), strict=True
    )]  # fmt: skip
    if not largest or largest[0] is None:
        return []
    return [
        f"A slowdown of {percent(largest[0])} would have been found and confirmed in 80 % of such "
        f"runs, and one of {percent(largest[1])} in 95 %, in {which}."
    ]


def baseline_sentences(result: BaselineResult, name: str) -> list[str]:
    """Return the answer of a comparison with a baseline in sentences."""
    slower = [one for one in result.benchmarks if one.verdict == "suspicion"]
    if slower:
        found = [
            f"Training seems to be slower than in baseline '{name}': {len(slower)} of "
            f"{len(result.benchmarks)} benchmarks.",
            "Machines drift between sessions, so this is a suspicion. Run both sides now: "
            "run_bench.py gate --ab OLD_PYTHON NEW_PYTHON, or add --confirm.",
        ]
    elif result.verdict == "same":
        found = [f"Training is as fast as in baseline '{name}'."]
    elif result.verdict == "faster":
        found = [f"Training is faster than in baseline '{name}'."]
    else:
        found = [f"It cannot be told whether training is slower than in baseline '{name}'."]
    found += _cycle_sentences(result.benchmarks)
    for words, names in (("lacks", result.added), ("alone has", result.missing)):
        if names:
            found.append(f"The baseline {words} {', '.join(names)}.")
    return [*found, *difference_sentences(result.differs, "then", "now")]


def difference_sentences(
    differs: Mapping[str, Sequence[Any]], first: str, second: str
) -> list[str]:
    """Return what differs between two sides, each a suspect."""
    shown = list(differs.items())[:MOST_DIFFERENCES]
    found = [f"Differs: {name} ({first} {a}, {second} {b})." for name, (a, b) in shown]
    left = len(differs) - len(shown)
    return [*found, f"… and {left} more differences (--json)."] if left else found
