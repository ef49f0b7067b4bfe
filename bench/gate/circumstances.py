"""Compare the circumstances of the two sides: cores, memory, variables, settings, images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.gate.samples import ArmLaunch
from bench.spec.base import Frozen
from bench.workers.tasks import LaunchConditions

CONDITION_WORDS = {
    "cpus": "cores that the process may use",
    "nice": "niceness",
    "cpu_quota": "cores that the container may use",
    "memory_bytes": "memory in bytes",
    "huge_pages": "the kernel's large pages",
    "allocator": "settings of the C library",
    "variables": "variables that frameworks read",
}
"""Field of ``LaunchConditions`` → name in messages."""
Differences = dict[str, list[Any]]
"""Field → values before and now, or of A and B."""


def condition_differences(
    before: LaunchConditions, now: LaunchConditions, ignored_variables: Iterable[str] = ()
) -> Differences:
    """Return what differs in the circumstances of two processes, by its name in messages.

    Args:
        ignored_variables: Environment variables that are meant to differ.
    """
    found: Differences = {}
    for field, words in CONDITION_WORDS.items():
        pair = [_without(getattr(side, field), ignored_variables) for side in (before, now)]
        if pair[0] != pair[1]:
            found[words] = pair
    return found


def _without(value: Any, names: Iterable[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: own for name, own in value.items() if name not in set(names)}
    return value


class Unequal(Frozen):
    """Something that should have been alike at both sides."""

    what: str
    arm: str
    """Arm of the launch that differs from A's first launch: A, B or N."""
    values: tuple[Any, Any]

    def __str__(self) -> str:
        a, other = self.values
        if isinstance(a, Mapping) and isinstance(other, Mapping):  # only what differs
            names = [name for name in {**a, **other} if a.get(name) != other.get(name)]
            a, other = ({n: side[n] for n in names if n in side} for side in (a, other))
        return f"{self.what}: {_shown(a)} at A's first launch, {_shown(other)} at {self.arm}"


def unequal_conditions(
    launches: Iterable[ArmLaunch], ignored_variables: Iterable[str]
) -> list[Unequal]:
    """Return what differs in the circumstances of the arms, of any launch against A's first. Such a
    comparison measures them too, so it can tell nothing about what is compared.

    Args:
        ignored_variables: Environment variables that are meant to differ.
    """
    first: dict[str, LaunchConditions] = {}
    found: dict[tuple[str, str], Unequal] = {}
    own = list(launches)
    for one in own:
        if one.arm == "A" and one.launch.conditions is not None:
            first.setdefault(one.launch.backend, one.launch.conditions)
    for case, arms in _images(own).items():
        for arm, images in arms.items():
            if images != arms.get("A", images):
                what, values = f"images of {case}", (arms["A"], images)
                found[what, arm] = Unequal(what=what, arm=arm, values=values)
    for one in own:
        reference, now = first.get(one.launch.backend), one.launch.conditions
        if reference is None or now is None:
            continue
        for what, pair in condition_differences(reference, now, ignored_variables).items():
            found.setdefault((what, one.arm), Unequal(what=what, arm=one.arm, values=tuple(pair)))
    return list(found.values())


def _images(launches: Iterable[ArmLaunch]) -> dict[str, dict[str, dict[str, int]]]:
    """Return case → arm → measure → images in its seconds."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for one in launches:
        for case, answer in one.launch.cases.items():
            images = {str(measure): count for measure, count in answer.images.items()}
            found.setdefault(case, {}).setdefault(one.arm, images)
    return found


def knob_differences(launches: Iterable[ArmLaunch]) -> Differences:
    """Return the settings, read back from the frameworks, that differ between A and B."""
    knobs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in launches:
        for case, answer in one.launch.cases.items():
            knobs.setdefault(case, {}).setdefault(one.arm, answer.knobs)
    found: Differences = {}
    for arms in knobs.values():
        if "A" in arms and "B" in arms:
            found |= differing_knobs(arms["A"], arms["B"])
    return found


def differing_knobs(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Return the settings that differ, as ``knob NAME``."""
    return {
        f"knob {name}": [before.get(name), now.get(name)]
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={own}" for name, own in value.items()) or "none"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
