"""Descriptions of a framework's arithmetic, inferred from what it does to a few numbers.

The adapters compute the numbers with the objects that they built; the words come from here, so that
all backends use the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bench.network.blueprint import Array

Trajectory = Callable[[float, Sequence[float], Sequence[float], float], list[float]]
"""(start, gradients, learning rates, weight decay) → one parameter after each optimizer step."""
TOLERANCE = 1e-3
"""Relative tolerance: float32 has seven digits, and the candidates differ by much more."""
BLACK, RED, WHITE = (0, 0, 0), (255, 0, 0), (255, 255, 255)
PIXELS = (BLACK, RED, WHITE)
"""Test pixels (RGB)."""


class Convolution(NamedTuple):
    """A convolution as the table of native differences describes it."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: str
    """Rows added above and below the input, by it or a layer before it: '0+1'."""
    bias: bool


def describe_pixels(seen: Sequence[Sequence[float]]) -> dict[str, str]:
    """Describe the preprocessing by the channels that the first convolution sees of ``PIXELS``."""
    black, red, white = (np.asarray(values, float) for values in seen)
    moved = int(np.argmax(np.abs(red - black)))
    return {
        "channels": {0: "RGB", 2: "BGR"}.get(moved, "unknown"),
        "black_pixel": _numbers(black),
        "white_pixel": _numbers(white),
    }


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{v + 0.0:.4g}" for v in values)


def describe_convolutions(convolutions: Sequence[Convolution]) -> dict[str, str]:
    """Describe where the resolution falls, and which convolutions have biases."""
    strided = [c for c in convolutions if max(c.stride) > 1]
    return {
        "strided_convolutions": _tally(
            f"{c.kernel[0]}×{c.kernel[1]} by {c.stride[0]}" for c in strided
        ),
        "strided_padding": _tally(f"{c.kernel[0]}×{c.kernel[1]} {c.padding}" for c in strided),
        "convolution_biases": f"{sum(c.bias for c in convolutions)} of {len(convolutions)}",
    }


def _tally(names: Iterable[str]) -> str:
    counts = Counter(names)
    return "; ".join(f"{counts[name]} of {name}" for name in sorted(counts)) or "none"


def distinct(values: Iterable[float]) -> str:
    """Format the distinct values in ascending order: '0.001' or '1e-05, 0.001'."""
    return ", ".join(f"{v:.7g}" for v in sorted(set(values))) or "none"


def describe_head(kernel: Array, bias: Array | None) -> dict[str, str]:
    """Describe the initial numbers of a new last layer."""
    return {"head_kernel": _spread(kernel), "head_bias": "none" if bias is None else _spread(bias)}


def _spread(values: Array) -> str:
    if not values.any():
        return "zeros"
    return f"within ±{np.abs(values).max():.3g}, standard deviation {values.std():.3g}"


def variance_values() -> Array:
    """Return a batch (4, 1, 1, 1) whose biased and unbiased variances differ by a third."""
    return np.asarray([0.0, 1.0, 2.0, 5.0], np.float32).reshape(4, 1, 1, 1)


def describe_variance(found: float, new_share: float) -> str:
    """Describe which variance of the batch, biased or unbiased, a running variance takes: it was 1
    and is ``found`` after ``variance_values``, of which it took ``new_share``."""
    candidates = {
        name: (1.0 - new_share) + new_share * float(variance_values().var(ddof=ddof))
        for name, ddof in (("biased", 0), ("unbiased", 1))
    }
    return _match(found, candidates, TOLERANCE * new_share)


def _match(found: float, candidates: dict[str, float], tolerance: float) -> str:
    """Return the first candidate whose value agrees within a relative tolerance."""
    for words, expected in candidates.items():
        if abs(found - expected) <= tolerance * abs(expected):
            return words
    return "unknown"


def describe_sgd(trajectory: Trajectory, momentum: float) -> str:
    """Describe whether SGD's velocity contains the learning rate, seen when the rate falls."""
    if momentum == 0.0:
        return "no velocity"
    first, second = 0.1, 0.01
    _, found = trajectory(0.0, [1.0, 1.0], [first, second], 0.0)
    candidates = {
        "the learning rate is inside the velocity": -first - (momentum * first + second),
        "the learning rate multiplies the velocity": -first - second * (momentum + 1.0),
    }
    return _match(found, candidates, TOLERANCE)


def describe_adam(trajectory: Trajectory, epsilon: float, beta_2: float) -> str:
    """Describe whether Adam adds epsilon before or after the bias correction of the root."""
    gradient, rate = 10.0 * epsilon, 1e-3
    (found,) = trajectory(0.0, [gradient], [rate], 0.0)
    # One step is rate * g / (g + effective epsilon).
    effective = gradient * (rate / -found - 1.0)
    candidates = {
        "epsilon is added to the corrected root": epsilon,
        "epsilon is added to the uncorrected root": epsilon / (1.0 - beta_2) ** 0.5,
    }
    return _match(effective, candidates, 0.02)


def describe_decay(trajectory: Trajectory) -> str:
    """Describe whether weight decay goes through the gradient and so through the moments."""
    rate, decay = 0.1, 0.1
    found = trajectory(1.0, [0.0, 0.0], [rate, rate], decay)
    kept = 1.0 - rate * decay
    if abs(found[0] - kept) <= 1e-5 and abs(found[1] - kept * kept) <= 1e-5:
        return "decoupled from the gradient, times the learning rate"
    if found[1] < found[0] < 1.0:
        return "coupled: added to the gradient"
    return "unknown"
