"""Comparison of two backends: from the files of their probes to levels and a verdict."""

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
from bench.parity.tolerances import (
    FLOOR_MARGIN,
    LEVELS,
    MAY_BE_NOISY,
    MIN_LOSS_FALL,
    NEED_LOW_FLOOR,
)
from bench.spec.run import Precision


class Difference(NamedTuple):
    """The largest relative difference of two sets of values."""

    value: float
    """Infinite if values cannot be compared: one is missing or not finite, or shapes differ."""
    where: str | None
    """Name of the value that differs most; None if none differs."""


def max_magnitude(values: Array) -> float:
    """Return the largest absolute value; 0 for an empty array."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def max_absolute_difference(a: Array, b: Array) -> float:
    """Return the largest absolute difference; inf if a value is not finite or shapes differ."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    return max_magnitude(np.subtract(a, b, dtype=np.float64))


def max_relative_difference(
    a: RecordedValues, b: RecordedValues, group_of: Callable[[str], str] = str
) -> Difference:
    """Return the largest difference over the largest magnitude of ``a`` in the same group.

    A group of the tensors of one operation gives a scale to those that are zero up to rounding,
    such as the gradient of a bias before a BatchNorm.

    Args:
        a: Name → values of the reference.
        b: Name → values to compare, under the same names.
        group_of: Name → its group; by default each name is a group of its own.
    """
    missing = sorted(a.keys() ^ b.keys())
    if missing:
        return Difference(math.inf, f"{missing[0]} is on one side only")
    scales: dict[str, float] = {}
    for name in a:
        group = group_of(name)
        scales[group] = max(scales.get(group, 0.0), max_magnitude(a[name]))
    worst = Difference(0.0, None)
    for name in a:
        found = max_absolute_difference(a[name], b[name])
        if 0.0 < found < math.inf:  # inf over an infinite scale would be NaN
            scale = scales[group_of(name)]
            found = found / scale if scale > 0.0 else math.inf
        if found > worst.value:
            worst = Difference(found, name)
    return worst


def first_above(
    a: RecordedValues, b: RecordedValues, order: list[str], tolerance: float
) -> str | None:
    """Return the first name in ``order`` whose relative difference exceeds ``tolerance``."""
    for name in order:
        if name not in a or name not in b:
            return name
        if max_relative_difference({name: a[name]}, {name: b[name]}).value > tolerance:
            return name
    return None


def operation_groups(blueprint: Blueprint) -> Callable[[str], str]:
    """Return the mapping from a tensor's name to its operation. Running statistics are groups of
    their own: a variance of thousands must not be the scale of the factors beside it."""
    owners: Mapping[str, str] = {
        tensor: f"{o.name} {role}" if role in STATE_ROLES else o.name
        for o, role, tensor in blueprint.named_tensors()
    }
    return owners.__getitem__


@dataclass(frozen=True)
class Side:
    """The recorded values of one backend."""

    folders: dict[Part, Path]
    """Part → folder of its files; measurements that share a part share its folder."""

    def values(self, level: str) -> RecordedValues:
        """Return the values of a level."""
        return read(self.folders[PART_OF[level]], level)

    def facts(self, part: Part) -> dict[str, Any]:
        """Return noise floors, fall of the loss and learning rate."""
        return read_facts(self.folders[part])


def _plain(level: str, a: Side, b: Side, blueprint: Blueprint) -> Difference:
    return max_relative_difference(a.values(level), b.values(level))


def _by_operation(level: str, a: Side, b: Side, blueprint: Blueprint) -> Difference:
    groups = operation_groups(blueprint)
    return max_relative_difference(a.values(level), b.values(level), groups)


def _frozen(level: str, a: Side, b: Side, blueprint: Blueprint) -> Difference:
    """Return the number of frozen tensors that changed, on the worse side."""
    changed = [float(side.values(level)["changed"].sum()) for side in (a, b)]
    return Difference(max(changed), "tensors changed" if any(changed) else None)


def _metrics(level: str, a: Side, b: Side, blueprint: Blueprint) -> Difference:
    """Compare the sides, and on each side the loop's loss with the framework's."""
    found = [side.values(level)["metrics"] for side in (a, b)]
    worst = max_relative_difference({level: found[0]}, {level: found[1]}).value
    for metrics in found:
        _, loop, framework = np.split(metrics, 3)
        worst = max(worst, max_relative_difference({level: loop}, {level: framework}).value)
    return Difference(worst, None)


MEASURES: dict[str, Callable[[str, Side, Side, Blueprint], Difference]] = {
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
"""Level → the function that compares two sides."""


def compare_levels(
    reference: Side, other: Side, floors: Side, blueprint: Blueprint, precision: Precision
) -> tuple[Level, ...]:
    """Compare two sides at every level whose part was measured.

    Args:
        reference: The backend whose magnitudes are the scale.
        other: The backend to compare.
        floors: The backend whose noise floors were measured.
        blueprint: The network with its head.
        precision: Precision of the computation.
    """
    levels = []
    measured = {n: t for n, t in LEVELS.items() if PART_OF[n] in reference.folders}
    for name, tolerances in measured.items():
        value, where = MEASURES[name](name, reference, other, blueprint)
        floor = floors.facts(PART_OF[name])["floors"].get(name)
        quiet = floor is None or FLOOR_MARGIN * floor < tolerances[precision]
        level = Level(
            name=name,
            value=value if math.isfinite(value) else None,
            tolerance=tolerances[precision],
            floor=floor if floor is None or math.isfinite(floor) else None,
            chaotic=floor is not None and not math.isfinite(floor),
            passed=bool(value <= tolerances[precision] and (quiet or name not in NEED_LOW_FLOOR)),
            detail=where if value > 0.0 else None,
        )
        may_be_left_out = name in MAY_BE_NOISY[precision] and not quiet
        levels.append(level.model_copy(update={"counts": level.differs or not may_be_left_out}))
    return tuple(levels)


def first_difference(
    reference: Side, other: Side, blueprint: Blueprint, precision: Precision
) -> FirstDifference | None:
    """Return the first operation whose output in inference form exceeds the tolerance."""
    a, b = reference.values("activations"), other.values("activations")
    order = [o.name for o in blueprint.operations]
    name = first_above(a, b, order, LEVELS["activations"][precision])
    if name is None:
        return None
    operation = next(o for o in blueprint.operations if o.name == name)
    return FirstDifference(operation=name, module_path=operation.module_path)


AFTER_STEPS = ("losses", "logits_after_steps", "epoch_losses")
"""Levels that are inconclusive if training is chaotic."""


def differing(levels: Sequence[Level]) -> list[Level]:
    """Return the levels that show a difference. If training is chaotic, that is if one last bit
    moves the losses beyond even float32's tolerance, no level after the ten steps shows one."""
    chaotic = any(
        x.chaotic or (x.floor or 0.0) > LEVELS[x.name]["fp32"]
        for x in levels
        if x.name in NEED_LOW_FLOOR
    )
    inconclusive = AFTER_STEPS if chaotic else ()
    return [x for x in levels if not x.passed and x.differs and x.name not in inconclusive]


def has_constant_logits(side: Side, precision: Precision) -> bool:
    """Return True if the logits are the same for every image: then the head learns from its bias
    alone, and two backends agree whatever comes before it."""
    logits = side.values("logits")["logits"]
    return max_magnitude(np.ptp(logits, axis=0)) <= (
        LEVELS["logits"][precision] * max_magnitude(logits)
    )


def failure_reason(
    levels: tuple[Level, ...], loss_fall: float | None, constant_logits: bool = False
) -> str | None:
    """Return in words why a pair did not pass; None if it passed.

    Args:
        levels: The levels that were measured.
        loss_fall: Fraction by which the training loss fell.
        constant_logits: True if the network gives the same logits for every image.
    """
    different = differing(levels)
    if different:
        return "differs: " + ", ".join(
            f"{x.name} {'not comparable' if x.value is None else f'{x.value:.2g}'}"
            f"{f' ({x.detail})' if x.detail else ''}"
            for x in different
        )
    noisy = [level for level in levels if level.counts and not level.passed]
    if noisy:
        return "inconclusive: numerical noise exceeds the tolerance: " + ", ".join(
            f"{x.name} (noise floor {'not finite' if x.floor is None else f'{x.floor:.2g}'})"
            for x in noisy
        )
    if constant_logits:
        return "inconclusive: the network gives the same logits for every image"
    stepped = any(PART_OF[level.name] == "steps" for level in levels)
    if stepped and (loss_fall is None or not loss_fall >= MIN_LOSS_FALL):
        return (
            f"inconclusive: the training loss fell by {loss_fall or 0.0:.1%}, "
            f"at least {MIN_LOSS_FALL:.0%} is needed"
        )
    return None
