"""How far apart two sets of values are.

From the files of two backends to a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.network.blueprint import STATE_ROLES, Array, Blueprint
from bench.parity.exchange import RecordedValues, read, read_facts
from bench.parity.model import PART_OF, FirstDifference, Level, Part
from bench.parity.tolerances import BLUNT, FLOOR_FACTOR, FLOORED, LEAST_FALL, LEVELS
from bench.spec.run import Precision


class Gap(NamedTuple):
    """The largest relative difference, and where it is."""

    value: float
    """Infinite where the values cannot be compared: one is missing, not finite, of another form."""
    where: str | None
    """Name of the value."""


def largest(values: Array) -> float:
    """Largest magnitude; 0 of nothing."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def difference(a: Array, b: Array) -> float:
    """Largest absolute difference; infinite where a value is not finite or the shapes differ."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    return largest(np.subtract(a, b, dtype=np.float64))


def gap(a: RecordedValues, b: RecordedValues, group: Callable[[str], str] = str) -> Gap:
    """Largest difference over the largest magnitude of ``a`` in the same group.

    Grouping the tensors of an operation lends a scale to those that are zero but for rounding: the
    gradient of a bias before a BatchNorm, for one.

    Args:
        a, b: Name → values; names must be the same.
        group: Name → what it is measured with; itself if left out.
    """
    missing = sorted(a.keys() ^ b.keys())
    if missing:
        return Gap(math.inf, f"{missing[0]} is on one side only")
    scales: dict[str, float] = {}
    for name in a:
        scales[group(name)] = max(scales.get(group(name), 0.0), largest(a[name]))
    worst = Gap(0.0, None)
    for name in a:
        found = difference(a[name], b[name])
        if 0.0 < found < math.inf:  # infinite stays infinite, for it would vanish in such a scale
            scale = scales[group(name)]
            found = found / scale if scale > 0.0 else math.inf
        if found > worst.value:
            worst = Gap(found, name)
    return worst


def first_above(
    a: RecordedValues, b: RecordedValues, order: list[str], tolerance: float
) -> str | None:
    """First name in ``order`` whose values differ by more than ``tolerance``, relatively."""
    for name in order:
        if name not in a or name not in b:
            return name
        if gap({name: a[name]}, {name: b[name]}).value > tolerance:
            return name
    return None


def operation_of(blueprint: Blueprint) -> Callable[[str], str]:
    """Tensor name → name of the operation that it belongs to; of a statistic, and its role: a
    variance of thousands must not lend its scale to the factors beside it."""
    owners: Mapping[str, str] = {
        tensor: f"{o.name} {role}" if role in STATE_ROLES else o.name
        for o, role, tensor in blueprint.named_tensors()
    }
    return owners.__getitem__


AFTER_STEPS = ("losses", "logits_after_steps", "epoch_losses")
"""Levels that chaos reaches."""


@dataclass(frozen=True)
class Side:
    """Where the files of one backend lie."""

    folders: dict[Part, Path]
    """Part → folder; items that share a part share its folder."""

    def values(self, level: str) -> RecordedValues:
        """Values of a level."""
        return read(self.folders[PART_OF[level]], level)

    def facts(self, part: Part) -> dict[str, Any]:
        """What was found beside the values."""
        return read_facts(self.folders[part])


def _plain(level: str, a: Side, b: Side, blueprint: Blueprint) -> Gap:
    return gap(a.values(level), b.values(level))


def _by_operation(level: str, a: Side, b: Side, blueprint: Blueprint) -> Gap:
    return gap(a.values(level), b.values(level), operation_of(blueprint))


def _frozen(level: str, a: Side, b: Side, blueprint: Blueprint) -> Gap:
    """Number of frozen tensors that changed, on the worse side."""
    changed = [float(side.values(level)["changed"].sum()) for side in (a, b)]
    return Gap(max(changed), "tensors changed" if any(changed) else None)


def _metrics(level: str, a: Side, b: Side, blueprint: Blueprint) -> Gap:
    """Between the sides, and on each between the loop's loss and the framework's."""
    found = [side.values(level)["metrics"] for side in (a, b)]
    worst = gap({level: found[0]}, {level: found[1]}).value
    for metrics in found:
        _, loop, framework = np.split(metrics, 3)
        worst = max(worst, gap({level: loop}, {level: framework}).value)
    return Gap(worst, None)


MEASURES: dict[str, Callable[[str, Side, Side, Blueprint], Gap]] = {
    "pixels": _plain,
    "initial_head": _plain,
    "logits": _plain,
    "activations": _plain,
    "gradients": _by_operation,
    "state_after_one_step": _by_operation,
    "losses": _plain,
    "logits_after_steps": _plain,
    "epoch_losses": _plain,
    "frozen": _frozen,
    "metrics": _metrics,
}
"""Level → how it is measured."""


def levels_of(
    reference: Side, other: Side, floors: Side, blueprint: Blueprint, precision: Precision
) -> tuple[Level, ...]:
    """Every level of two sides whose part was measured.

    Args:
        reference, other: The two backends.
        floors: The backend whose own movement was measured.
        blueprint: With the head.
        precision: Of the computation.
    """
    levels = []
    measured = {n: t for n, t in LEVELS.items() if PART_OF[n] in reference.folders}
    for name, tolerances in measured.items():
        value, where = MEASURES[name](name, reference, other, blueprint)
        floor = floors.facts(PART_OF[name])["floors"].get(name)
        sharp = floor is None or FLOOR_FACTOR * floor < tolerances[precision]
        level = Level(
            name=name,
            value=value if math.isfinite(value) else None,
            tolerance=tolerances[precision],
            floor=floor if floor is None or math.isfinite(floor) else None,
            chaotic=floor is not None and not math.isfinite(floor),
            passed=bool(value <= tolerances[precision] and (sharp or name not in FLOORED)),
            detail=where if value > 0.0 else None,
        )
        may_be_blunt = name in BLUNT[precision] and not sharp
        levels.append(level.model_copy(update={"counts": level.differs or not may_be_blunt}))
    return tuple(levels)


def first_difference(
    reference: Side, other: Side, blueprint: Blueprint, precision: Precision
) -> FirstDifference | None:
    """The first operation whose value in inference form differs by more than the tolerance."""
    a, b = reference.values("activations"), other.values("activations")
    order = [o.name for o in blueprint.operations]
    name = first_above(a, b, order, LEVELS["activations"][precision])
    if name is None:
        return None
    operation = next(o for o in blueprint.operations if o.name == name)
    return FirstDifference(operation=name, module_path=operation.module_path)


def differing(levels: Sequence[Level]) -> list[Level]:
    """The levels that show a difference. Where training is chaotic outright, so that a last bit
    moves the losses by more than even float32 may, nothing that comes after ten steps does."""
    chaotic = any(
        x.chaotic or (x.floor or 0.0) > LEVELS[x.name]["fp32"] for x in levels if x.name in FLOORED
    )
    spoiled = AFTER_STEPS if chaotic else ()
    return [x for x in levels if not x.passed and x.differs and x.name not in spoiled]


def is_blind(side: Side, precision: Precision) -> bool:
    """Whether the logits are the same for every image: such a network's head learns from its bias
    alone, and two of them agree whatever lies before it."""
    logits = side.values("logits")["logits"]
    return largest(np.ptp(logits, axis=0)) <= LEVELS["logits"][precision] * largest(logits)


def reason_of(levels: tuple[Level, ...], fall: float | None, blind: bool = False) -> str | None:
    """Why a pair did not pass, in a sentence; None if it did.

    Args:
        levels: That were measured.
        fall: Of the loss, a fraction.
        blind: Whether the network gives the same logits for every image.
    """
    failed = [level for level in levels if level.counts and not level.passed]
    above = differing(levels)
    if above:
        return "differs: " + ", ".join(
            f"{x.name} {'not comparable' if x.value is None else f'{x.value:.2g}'}"
            f"{f' ({x.detail})' if x.detail else ''}"
            for x in above
        )
    if failed:
        return "says nothing, the floor is too high: " + ", ".join(
            f"{x.name} {'–' if x.floor is None else f'{x.floor:.2g}'}" for x in failed
        )
    if blind:
        return "says nothing: the network gives the same logits for every image"
    stepped = any(PART_OF[level.name] == "steps" for level in levels)
    if stepped and (fall is None or not fall >= LEAST_FALL):
        return f"says nothing: the loss fell by {fall or 0.0:.1%}, less than {LEAST_FALL:.0%}"
    return None
