"""Comparison of two backends: from the files of their probes to levels and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.network.blueprint import STATE_ROLES, Array, Blueprint
from bench.parity import tolerances
from bench.parity.exchange import RecordedValues, read, read_facts
from bench.parity.model import PART_OF, FirstDifference, Level, Part
from bench.parity.tolerances import FLOOR_MARGIN, LEVELS, NEED_LOW_FLOOR
from bench.spec.run import Precision

AFTER_STEPS = ("losses", "logits_after_steps", "epoch_losses", "logits_after_epochs")
"""Levels that chaos makes inconclusive."""


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

    By default each name is a group of its own. A group of the tensors of one operation gives a
    scale to those that are zero up to rounding, such as the gradient of a bias before a BatchNorm.
    """
    if missing := sorted(a.keys() ^ b.keys()):
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
        worst = max(worst, Difference(found, name), key=lambda difference: difference.value)
    return worst


def grouping(level: str, blueprint: Blueprint) -> Callable[[str], str]:
    """Return the function from a value's name to its group: a tensor's is its operation. Running
    statistics are groups of their own: a variance of thousands must not be the scale of the factors
    beside it."""
    if level not in ("gradients", "state_after_one_step"):
        return str
    return {
        tensor: f"{o.name} {role}" if role in STATE_ROLES else o.name
        for o, role, tensor in blueprint.named_tensors()
    }.__getitem__


@dataclass(frozen=True)
class Side:
    """The recorded values of one backend."""

    folders: Mapping[Part, Path]
    """Part → folder of its files; measurements that share a part share its folder."""

    def values(self, level: str) -> RecordedValues:
        return read(self.folders[PART_OF[level]], level)

    def facts(self, part: Part) -> dict[str, Any]:
        """Return noise floors, fall of the loss and learning rate."""
        return read_facts(self.folders[part])


def _level_difference(level: str, a: Side, b: Side, blueprint: Blueprint) -> Difference:
    """Return the difference of two sides: for ``frozen``, the number of tensors that changed on the
    worse side; for ``metrics``, also that of the loop's loss and the framework's on each side; for
    ``resumed``, also that of the forms of the frozen prefix on each side."""
    sides = a.values(level), b.values(level)
    if level == "frozen":
        changed = max(float(values["changed"].sum()) for values in sides)
        return Difference(changed, "tensors changed" if changed else None)
    worst = max_relative_difference(*sides, grouping(level, blueprint))
    if level == "resumed":
        return max(worst, *map(_forms_difference, sides), key=lambda found: found.value)
    if level != "metrics":
        return worst
    losses = [np.split(values[level], 3)[1:] for values in sides]
    own = [max_relative_difference({level: x}, {level: y}).value for x, y in losses]
    return Difference(max(worst.value, *own), None)


def _forms_difference(values: RecordedValues) -> Difference:
    """Return the largest difference of one backend's forms of the frozen prefix from its plain
    form, and of that from the value that the whole network computes. Code that both backends share
    could be wrong in both alike."""
    if not values:  # nothing is frozen
        return Difference(0.0, None)
    if "activation" not in values:  # the backend failed
        return Difference(math.inf, "plain")
    activation, plain = values["activation"], values["plain"]
    found = [
        max_relative_difference({"plain": activation}, {"plain": plain[: len(activation)]}),
        max_relative_difference({"folded": plain}, {"folded": values["folded"]}),
    ]
    return max(found, key=lambda difference: difference.value)


def compare_levels(
    reference: Side, other: Side, floors: Side, blueprint: Blueprint, precision: Precision
) -> tuple[Level, ...]:
    """Compare two sides at every level whose part was measured. The magnitudes of ``reference`` are
    the scale, ``floors`` is the side whose noise floors were measured."""
    levels = []
    for name, limits in LEVELS.items():
        part, tolerance = PART_OF[name], limits[precision]
        if part not in reference.folders:
            continue
        value, where = _level_difference(name, reference, other, blueprint)
        floor = floors.facts(part)["floors"].get(name)
        quiet = floor is None or FLOOR_MARGIN * floor < tolerance
        chaotic = floor is not None and not math.isfinite(floor)
        level = Level(
            name=name,
            value=value if math.isfinite(value) else None,
            tolerance=tolerance,
            floor=None if chaotic else floor,
            chaotic=chaotic,
            passed=bool(value <= tolerance and (quiet or name not in NEED_LOW_FLOOR)),
            detail=where if value > 0.0 else None,
        )
        may_be_left_out = name in tolerances.MAY_BE_NOISY[precision] and not quiet
        levels.append(level.model_copy(update={"counts": level.differs or not may_be_left_out}))
    return tuple(levels)


def first_difference(
    reference: Side, other: Side, blueprint: Blueprint, precision: Precision
) -> FirstDifference | None:
    """Return the first operation whose output in inference form exceeds the tolerance."""
    a, b = reference.values("activations"), other.values("activations")
    tolerance = LEVELS["activations"][precision]
    for o in blueprint.operations:
        found = [{o.name: values[o.name]} for values in (a, b) if o.name in values]
        if len(found) < 2 or max_relative_difference(found[0], found[1]).value > tolerance:
            return FirstDifference(operation=o.name, module_path=o.module_path)
    return None


def differing(levels: Sequence[Level]) -> list[Level]:
    """Return the levels that show a difference. If training is chaotic, that is if one last bit
    moves the losses beyond even float32's tolerance, no level after the ten steps shows one."""
    training = [x for x in levels if x.name in NEED_LOW_FLOOR]
    chaotic = any(x.chaotic or (x.floor or 0.0) > LEVELS[x.name]["fp32"] for x in training)
    inconclusive = AFTER_STEPS if chaotic else ()
    return [x for x in levels if not x.passed and x.differs and x.name not in inconclusive]


def has_constant_logits(side: Side, precision: Precision) -> bool:
    """Return True if the logits are the same for every image: then the head learns from its bias
    alone, and two backends agree whatever comes before it."""
    logits = side.values("logits")["logits"]
    limit = LEVELS["logits"][precision] * max_magnitude(logits)
    return max_magnitude(np.ptp(logits, axis=0)) <= limit


def failure_reason(
    levels: tuple[Level, ...], loss_fall: float | None, constant_logits: bool = False
) -> str | None:
    """Return in words why a pair did not pass, given the measured levels and the fraction by which
    the training loss fell; None if it passed."""
    if different := differing(levels):
        return "differs: " + ", ".join(
            f"{x.name} {'not comparable' if x.value is None else f'{x.value:.2g}'}"
            f"{f' ({x.detail})' if x.detail else ''}"
            for x in different
        )
    if noisy := [level for level in levels if level.counts and not level.passed]:
        return "inconclusive: numerical noise exceeds the tolerance: " + ", ".join(
            f"{x.name} (noise floor {'not finite' if x.floor is None else f'{x.floor:.2g}'})"
            for x in noisy
        )
    if constant_logits:
        return "inconclusive: the network gives the same logits for every image"
    stepped = any(PART_OF[level.name] == "steps" for level in levels)
    if stepped and (loss_fall is None or not loss_fall >= tolerances.MIN_LOSS_FALL):
        return (
            f"inconclusive: the training loss fell by {loss_fall or 0.0:.1%}, "
            f"at least {tolerances.MIN_LOSS_FALL:.0%} is needed"
        )
    return None
