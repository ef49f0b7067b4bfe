"""Turn blocks into verdicts: slower, faster, same, or cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from bench.gate.design import CONFIRM_LEVEL, LEAST_BLOCKS, Plan
from bench.gate.samples import BlockSeries
from bench.gate.statistics import (
    Estimate,
    blocks_to_settle,
    holm,
    paired,
    smallest_found,
)
from bench.spec.base import Frozen

Verdict = Literal["slower", "faster", "same", "cannot tell"]
POWERS = (0.8, 0.95)
"""Chances of finding the smallest slowdown that is printed."""
NULL_SHARE = 1 / 3
"""Share of the margin by which the null arm may differ; a smaller difference cannot change a
verdict."""
RESOLUTION = 1e-12
"""Differences of log times below which a clock stands still."""


class ComparedBenchmark(Frozen):
    """A benchmark in a comparison."""

    name: str
    ratio: float | None = Field(description="Time of B, or now, over that of A, or then.")
    interval: tuple[float, float] | None = Field(
        description="Interval of the ratio; it holds in 95 % of comparisons, whatever look ended "
        "them."
    )
    verdict: str
    blocks: int = Field(description="Number of blocks that counted; with a baseline, of launches.")
    detectable: float | None = Field(
        description="Smallest slowdown, as a fraction, that so many blocks find and confirm with "
        "probability 0.8."
    )
    cycles_ratio: float | None = Field(
        default=None, description="Ratio of time × clock of the GPU; null on a CPU."
    )
    reason: str | None = Field(default=None, description="Why nothing can be told.")


class BenchmarkVerdict(ComparedBenchmark):
    """The verdict about a benchmark."""

    verdict: Verdict
    detectable_95: float | None = Field(
        default=None, description="The same, with probability 0.95."
    )
    p_value: float | None = Field(default=None, description="Two-sided, not corrected.")
    spread: float | None = Field(
        default=None, description="Standard deviation of a block's log ratio."
    )
    needed_blocks: int | None = Field(
        default=None, description="Blocks that would settle it; null where it is settled."
    )
    confirmed_ratio: float | None = Field(
        default=None, description="Ratio in the blocks that confirmed a slowdown."
    )


class NullArm(Frozen):
    """A launched in another way against A: the benchmark that differs most."""

    ratio: float | None
    interval: tuple[float, float] | None
    passed: bool
    name: str | None = Field(default=None, description="The benchmark.")


def null_arm(series: Mapping[str, BlockSeries], plan: Plan) -> NullArm:
    """Compare A with itself, launched from another path with an environment of another size.

    It moves where Holm's test at the level of a look rejects, and the difference is more than a
    third of the margin.
    """
    estimates = {
        name: paired([block.null_log_ratio for block in own.blocks])
        for name, own in series.items()
        if len(own.blocks) >= LEAST_BLOCKS
    }
    if not estimates:
        return NullArm(ratio=None, interval=None, passed=True)
    p_values = {name: estimate.p_value() for name, estimate in estimates.items()}
    moved = {
        name
        for name in holm(p_values, plan.level_per_look)
        if abs(estimates[name].mean) > math.log1p(plan.margin * NULL_SHARE)
    }
    shown = min(moved or p_values, key=lambda name: p_values[name])
    return NullArm(
        ratio=estimates[shown].ratio,
        interval=estimates[shown].interval(plan.level_per_look),
        passed=not moved,
        name=shown,
    )


def decide(series: Mapping[str, BlockSeries], plan: Plan) -> list[BenchmarkVerdict]:
    """Return a verdict for each benchmark.

    - slower, faster: Holm's test over all benchmarks rejects at the level of a look (so that the
      interval leaves out 1), and the estimate is past the margin;
    - same: the whole interval lies within the margin;
    - cannot tell: all else.
    """
    estimates = {
        name: paired([block.log_ratio for block in own.blocks])
        for name, own in series.items()
        if len(own.blocks) >= LEAST_BLOCKS
    }
    stuck = {
        name
        for name, own in series.items()
        if len(own.blocks) >= LEAST_BLOCKS and _is_constant(own)
    }
    given = classify({n: e for n, e in estimates.items() if n not in stuck}, plan)
    found = []
    for name, own in series.items():
        if name not in estimates:
            found.append(_untold(name, own, _too_few(own)))
        elif name in stuck:
            reason = "every launch took exactly the same time: the clock stands still"
            found.append(_untold(name, own, reason))
        else:
            verdict = given[name]
            found.append(_explained(name, own, estimates[name], verdict, plan, len(series)))
    return found


def search(
    series: Mapping[str, BlockSeries], plan: Plan
) -> tuple[list[BenchmarkVerdict], int | None]:
    """Apply the looks of a plan to blocks, each to as many blocks as it has.

    Returns:
        The verdicts of the look that settled every benchmark or found a slowdown, or of the last
        look, and its number of blocks. If none did yet, those of all blocks, and None.
    """
    counted = min((len(own.blocks) for own in series.values()), default=0)
    for look in plan.looks:
        if look > counted:
            break
        first = {name: replace(own, blocks=own.blocks[:look]) for name, own in series.items()}
        verdicts = decide(first, plan)
        given = {one.verdict for one in verdicts}
        if "slower" in given or "cannot tell" not in given or look == plan.looks[-1]:
            return verdicts, look
    return decide(series, plan), None


def classify(estimates: Mapping[str, Estimate], plan: Plan) -> dict[str, Verdict]:
    """Return the verdict of a look about each benchmark, see ``decide``."""
    level, edge = plan.level_per_look, math.log1p(plan.margin)
    rejected = holm({name: one.p_value() for name, one in estimates.items()}, level)
    found: dict[str, Verdict] = {}
    for name, one in estimates.items():
        low, high = one.interval(level)
        found[name] = "cannot tell"
        if name in rejected and abs(one.mean) > edge:
            found[name] = "slower" if one.mean > 0 else "faster"
        elif -edge <= math.log(low) and math.log(high) <= edge:
            found[name] = "same"
    return found


def _explained(
    name: str, series: BlockSeries, estimate: Estimate, verdict: Verdict, plan: Plan, family: int
) -> BenchmarkVerdict:
    level, blocks = plan.level_per_look, len(series.blocks)
    spread = estimate.standard_error * math.sqrt(blocks)
    low, high = estimate.interval(level)
    reason = needed = None
    if verdict == "cannot tell":
        needed = blocks_to_settle(estimate.mean, spread, level / family, plan.margin, blocks)
        reason = f"the launches vary too much for {blocks} blocks"
    smallest = [
        smallest_found(blocks, spread, level / family, plan.margin, power, CONFIRM_LEVEL)
        for power in POWERS
    ]
    return BenchmarkVerdict(
        name=name, ratio=estimate.ratio, interval=(low, high), verdict=verdict, blocks=blocks,
        detectable=smallest[0], detectable_95=smallest[1], p_value=estimate.p_value(),
        spread=spread, needed_blocks=needed, reason=reason, cycles_ratio=_cycles_ratio(series),
    )  # fmt: skip


def _cycles_ratio(series: BlockSeries) -> float | None:
    return math.exp(sum(series.cycles) / len(series.cycles)) if series.cycles else None


def _is_constant(series: BlockSeries) -> bool:
    """Return True if the launches of every arm took the same time to the last digits."""
    arms = zip(*series.blocks, strict=True)
    return all(max(times) - min(times) < RESOLUTION for times in arms)


def _too_few(series: BlockSeries) -> str:
    if series.disturbed:
        return f"{len(series.disturbed)} blocks were disturbed: {series.disturbed[0]}"
    return f"{len(series.blocks)} blocks are too few"


def _untold(name: str, series: BlockSeries, reason: str) -> BenchmarkVerdict:
    return BenchmarkVerdict(
        name=name, ratio=None, interval=None, verdict="cannot tell", blocks=len(series.blocks),
        detectable=None, reason=reason,
    )  # fmt: skip


def confirm(
    verdicts: Sequence[BenchmarkVerdict], series: Mapping[str, BlockSeries]
) -> list[BenchmarkVerdict]:
    """Return verdicts after new blocks: a slowdown that they do not show falls to ``cannot tell``.

    Each is tested alone, one-sided, with Holm's correction over those that were found. As many new
    blocks are needed as have found it.
    """
    found_after = {one.name: one.blocks for one in verdicts if one.verdict == "slower"}
    slower = list(found_after)
    estimates = {
        name: paired([block.log_ratio for block in series[name].blocks])
        for name in slower
        if name in series and len(series[name].blocks) >= found_after[name]
    }
    confirmed = confirmed_names(estimates)
    found = []
    for one in verdicts:
        if one.name not in slower:
            found.append(one)
            continue
        estimate = estimates.get(one.name)
        changes: dict[str, object] = {"confirmed_ratio": estimate and estimate.ratio}
        if one.name not in confirmed:
            reason = "new launches did not confirm the slowdown"
            if estimate is None:
                reason = _not_confirmed(series.get(one.name), one.blocks)
            changes |= {"verdict": "cannot tell", "reason": reason}
        found.append(one.model_copy(update=changes))
    return found


def _not_confirmed(series: BlockSeries | None, wanted: int) -> str:
    """Return why there are too few new blocks to confirm a slowdown."""
    if series is not None and series.disturbed:
        disturbed = len(series.disturbed)
        return f"{disturbed} of the blocks to confirm it were disturbed: {series.disturbed[0]}"
    return f"no time was left for {wanted} new blocks to confirm the slowdown"


def confirmed_names(estimates: Mapping[str, Estimate]) -> set[str]:
    """Return the benchmarks whose slowdown new blocks confirm."""
    p_values = {
        name: one.p_value() / 2 if one.mean > 0 else 1.0 - one.p_value() / 2
        for name, one in estimates.items()
    }
    return holm(p_values, CONFIRM_LEVEL)


def overall(verdicts: Sequence[BenchmarkVerdict]) -> Verdict:
    """Return the verdict about all benchmarks: the worst of them."""
    given = {one.verdict for one in verdicts}
    for verdict in ("slower", "cannot tell", "faster"):
        if verdict in given:
            return verdict
    return "same" if given else "cannot tell"
