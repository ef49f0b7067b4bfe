"""How far apart two sets of values are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bench.blueprint import STATE_ROLES, Array, Blueprint
from bench.parity.files import Values


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


def gap(a: Values, b: Values, group: Callable[[str], str] = str) -> Gap:
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


def first_above(a: Values, b: Values, order: list[str], tolerance: float) -> str | None:
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
