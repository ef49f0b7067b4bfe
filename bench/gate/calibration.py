"""The gate's own errors on a machine: its spread, its false alarms and its power.

They come from blocks in which A and B are the same: real launches, of which comparisons are drawn
again and again. To learn the power a slowdown is added to the log ratios of B.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError
from scipy import stats

from bench.errors import UserError, first_line, number_of
from bench.gate.decision import classify, confirmed_names
from bench.gate.design import LEVEL, LOOKS, Plan
from bench.gate.samples import ArmLaunch, BlockSeries, block_series
from bench.gate.statistics import Estimate, Floats, paired
from bench.spec.base import SCHEMA_VERSION, Frozen, short_hash
from bench.speed.values import benchmarks_of, value_of
from bench.storage.text_files import json_text, replace_text
from bench.system import cores
from bench.workers.tasks import Software

FOLDER = "calibrations"
"""Folder of the calibrations of this machine in the cache."""
SLOWDOWNS = (0.01, 0.02, 0.05, 0.1)
REPEATS = 1000
"""Comparisons that are drawn for each figure."""
LEAST_BLOCKS = 10
"""Blocks below which a machine is not calibrated."""
WANTED_POWER = 0.95
LEAST_LAUNCHES, MOST_LAUNCHES = 3, 1000


class Spread(Frozen):
    """Standard deviations of the log of a benchmark's times."""

    within: float = Field(description="Over the windows of one launch, mean over launches.")
    between: float = Field(description="Over the medians of launches.")
    block: float = Field(description="Standard deviation of a block's log ratio, A against A.")


class Calibration(Frozen):
    """The gate's errors on a machine."""

    schema_version: int = SCHEMA_VERSION
    recorded_at: str = Field(description="Time in UTC, ISO 8601.")
    suite: str
    device: str
    machine: dict[str, str | None] = Field(description="What must agree for it to hold.")
    margin: float
    blocks: int = Field(description="Blocks of A against A that were measured.")
    spreads: dict[str, Spread]
    false_alarm_rate: float = Field(
        description="Share of alarms among ``repeats`` comparisons that were drawn from the blocks."
    )
    repeats: int
    disjoint: int = Field(description="Comparisons of six blocks that share none.")
    disjoint_alarms: int = Field(description="Alarms among them, confirmation left out.")
    disjoint_bound: float = Field(
        description="Upper end of the 95 % interval of the rate of alarms, from those alone."
    )
    power: dict[str, dict[str, float]] = Field(
        description="Slowdown → blocks of a look → share of drawn comparisons that found it by "
        "then, in every benchmark's steps, and confirmed it by as many blocks again; the margin is "
        "at most half of it."
    )
    needed_blocks: dict[str, int | None] = Field(
        description="Slowdown → blocks of the first look by which 95 % found it; null: none did."
    )
    needed_launches: dict[str, int | None] = Field(
        description="Slowdown → launches of a baseline, and of now, by which `gate --baseline` "
        "finds it in 95 %, with a margin of at most half of it; null: more than a thousand."
    )


def common_ratios(series: Mapping[str, BlockSeries]) -> tuple[list[str], Floats]:
    """Return the benchmarks, and the (blocks, benchmarks) log ratios of the blocks that count for
    every one of them."""
    names = list(series)
    each = [dict(zip(own.numbers, own.blocks, strict=True)) for own in series.values()]
    common = sorted(set.intersection(*(set(own) for own in each))) if each else []
    rows = [[own[number].log_ratio for own in each] for number in common]
    return names, np.array(rows, np.float64).reshape(len(common), len(names))


def machine_of(software: Mapping[str, Software]) -> dict[str, str | None]:
    """Return what identifies a machine for a calibration."""
    one = next(iter(software.values()))
    return {
        "processor": one.processor,
        "device_model": one.device_model,
        "gpu_uuid": one.gpu_uuid,
        "cores": str(cores()),
        "backends": ",".join(sorted(software)),
    }


def calibrate(
    launches: Sequence[ArmLaunch], suite: str, device: str, software: Mapping[str, Software],
    margin: float, together: bool,
) -> Calibration:  # fmt: skip
    """Return the calibration that launches of A against A give.

    Raises:
        UserError: There are too few blocks.
    """
    series = block_series(launches, "search", together)
    names, ratios = common_ratios(series)
    blocks = len(ratios)
    if blocks < LEAST_BLOCKS:
        raise UserError(
            f"{number_of(blocks, 'block')} that nothing disturbed are too few to calibrate: "
            f"{LEAST_BLOCKS} are needed.",
            "Repeat the command, with a larger --budget: what was measured counts.",
        )
    plan, random = Plan(margin=margin), np.random.default_rng(0)
    alarms = sum(found is not None for found in drawn_comparisons(ratios, 0.0, plan, random))
    apart = [
        "slower" in classify(_estimates(ratios[at : at + LOOKS[0]]), plan).values()
        for at in range(0, len(ratios) - LOOKS[0] + 1, LOOKS[0])
    ]
    power: dict[str, dict[str, float]] = {}
    needed: dict[str, int | None] = {}
    spreads = {name: _spread(launches, name, ratios[:, i]) for i, name in enumerate(names)}
    between = max(own.between for own in spreads.values())
    for slowdown in SLOWDOWNS:
        found = drawn_comparisons(ratios, slowdown, _sensitive(plan, slowdown), random)
        shares = {
            str(look): sum(f is not None and f <= look for f in found) / len(found)
            for look in LOOKS
        }
        power[f"{slowdown:g}"] = shares
        reached = [look for look in LOOKS if shares[str(look)] >= WANTED_POWER]
        needed[f"{slowdown:g}"] = reached[0] if reached else None
    return Calibration(
        recorded_at=datetime.now(UTC).isoformat(timespec="seconds"), suite=suite, device=device,
        machine=machine_of(software), margin=margin, blocks=blocks,
        spreads=spreads,
        false_alarm_rate=alarms / REPEATS,
        repeats=REPEATS,
        disjoint=len(apart),
        disjoint_alarms=sum(apart),
        disjoint_bound=upper_bound(sum(apart), len(apart)),
        power=power, needed_blocks=needed,
        needed_launches={
            f"{s:g}": launches_needed(s, between, len(names), _sensitive(plan, s).margin)
            for s in SLOWDOWNS
        },
    )  # fmt: skip


def _sensitive(plan: Plan, slowdown: float) -> Plan:
    """Return the plan of somebody who looks for a slowdown: a margin of at most half of it."""
    return Plan(margin=min(plan.margin, slowdown / 2), looks=plan.looks)


def launches_needed(
    slowdown: float, between: float, benchmarks: int = 1, margin: float = 0.0
) -> int | None:
    """Return the launches of each of two sessions by which Welch's test finds a slowdown in 95 %,
    with launches of normal noise; None if more than ``MOST_LAUNCHES``. Drift between the sessions
    is not counted.

    Args:
        slowdown: As a fraction.
        between: Standard deviation of the log of launches.
        benchmarks: Number of comparisons that share the level.
        margin: Slowdown past which the estimate must be, too.
    """
    if between == 0:
        return LEAST_LAUNCHES
    for count in range(LEAST_LAUNCHES, MOST_LAUNCHES):
        freedom, error = 2 * count - 2, between * math.sqrt(2 / count)
        critical = float(stats.t.isf(LEVEL / benchmarks / 2, freedom))
        found = stats.nct.sf(critical, freedom, math.log1p(slowdown) / error)
        past = stats.norm.sf((math.log1p(margin) - math.log1p(slowdown)) / error)
        if min(found, past) >= WANTED_POWER:
            return count
    return None


def upper_bound(events: int, trials: int) -> float:
    """Return the upper end of the one-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    return 1.0 if events == trials else float(stats.beta.ppf(0.95, events + 1, trials - events))


def drawn_comparisons(
    ratios: Floats, slowdown: float | Floats, plan: Plan, random: np.random.Generator,
    repeats: int = REPEATS,
) -> list[int | None]:  # fmt: skip
    """Draw comparisons from blocks of A against A and let the gate decide.

    Args:
        ratios: (blocks, benchmarks) log ratios. A and B were launched alike, so their labels may
            be exchanged: signs are drawn too.
        slowdown: Added to B, as a fraction: in every benchmark, or one value for each.

    Returns:
        For each comparison the number of blocks after which a slowdown was found and confirmed;
        None if none was.
    """
    shift = np.log1p(slowdown)
    needed = 2 * plan.looks[-1]
    found: list[int | None] = []
    for _ in range(repeats):
        rows = random.integers(0, len(ratios), needed)
        drawn = ratios[rows] * random.choice([-1.0, 1.0], (needed, 1)) + shift
        found.append(_blocks_to_alarm(drawn, plan))
    return found


def _blocks_to_alarm(drawn: Floats, plan: Plan) -> int | None:
    for look in plan.looks:
        given = classify(_estimates(drawn[:look]), plan)
        slower = [name for name, verdict in given.items() if verdict == "slower"]
        if slower:
            confirming = _estimates(drawn[look : 2 * look])
            is_confirmed = confirmed_names({name: confirming[name] for name in slower})
            return look if is_confirmed or not plan.confirms else None
        if "cannot tell" not in given.values():
            return None
    return None


def _estimates(drawn: Floats) -> dict[str, Estimate]:
    return {str(i): paired(drawn[:, i]) for i in range(drawn.shape[1])} if len(drawn) > 1 else {}


def _spread(launches: Sequence[ArmLaunch], name: str, ratios: Floats) -> Spread:
    within, medians = [], []
    for one in launches:
        windows = benchmarks_of(one.launch).get(name)
        if one.arm == "N" or not windows:
            continue
        logs = [math.log(window.seconds) for window in windows]
        within.append(statistics.stdev(logs) if len(logs) > 1 else 0.0)
        medians.append(math.log(value_of(windows).seconds))
    return Spread(
        within=statistics.fmean(within),
        between=statistics.stdev(medians),
        block=float(np.std(ratios, ddof=1)),
    )


def calibration_path(
    cache: Path, suite: str, device: str, machine: Mapping[str, Any], margin: float
) -> Path:
    """Return the file of a calibration. False alarms depend on the margin, too."""
    key = short_hash({"suite": suite, "device": device, "machine": dict(machine), "margin": margin})
    return cache / FOLDER / f"{suite.replace(' ', '-')}-{key}.json"


def save_calibration(found: Calibration, cache: Path) -> Path:
    """Write a calibration into the cache and return its file; a newer one replaces an older one."""
    path = calibration_path(cache, found.suite, found.device, found.machine, found.margin)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json_text(found.model_dump(mode="json")))
    return path


def false_alarm_rate(
    suite: str, device: str, software: Mapping[str, Software], margin: float, cache: Path
) -> float | None:
    """Return the gate's false-alarm rate on this machine at this margin; None if it was not
    calibrated.

    Raises:
        UserError: The file of the calibration is damaged.
    """
    path = calibration_path(cache, suite, device, machine_of(software), margin)
    if not path.is_file():
        return None
    try:
        return Calibration.model_validate(json.loads(path.read_text())).false_alarm_rate
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(
            f"'{path}' is damaged: {first_line(error)}.", "Delete it, or run gate calibrate again."
        ) from error
