"""What a framework's arithmetic is, told from what it does to a few numbers.

The adapters make the numbers with the objects that they built; the words come from here, so that
both sides use the same ones.
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
"""Relative: float32 has seven digits, and the candidates lie far apart."""
BLACK, RED, WHITE = (0, 0, 0), (255, 0, 0), (255, 255, 255)
PIXELS = (BLACK, RED, WHITE)


class Convolution(NamedTuple):
    """A convolution as a ledger shows it."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: str
    """Rows added above and below the input, by the layer or by one before it: '0+1'."""
    bias: bool


def describe_pixels(seen: Sequence[Sequence[float]]) -> dict[str, str]:
    """What the first convolution reads of ``PIXELS``.

    Args:
        seen: For each of them, its three channels.
    """
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
    """Where the resolution falls, and which convolutions have biases."""
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
    """Different values, ascending: '0.001' or '1e-05, 0.001'."""
    return ", ".join(f"{v:.7g}" for v in sorted(set(values))) or "none"


def describe_head(kernel: Array, bias: Array | None) -> dict[str, str]:
    """The numbers that a new last layer starts from."""
    return {
        "head_kernel": _spread(kernel),
        "head_bias": "none" if bias is None else _spread(bias),
    }


def _spread(values: Array) -> str:
    if not values.any():
        return "zeros"
    return f"within ±{np.abs(values).max():.3g}, standard deviation {values.std():.3g}"


def variance_values() -> Array:
    """(4, 1, 1, 1): a batch whose biased and unbiased variances differ by a third."""
    return np.asarray([0.0, 1.0, 2.0, 5.0], np.float32).reshape(4, 1, 1, 1)


def describe_variance(found: float, new_share: float) -> str:
    """Whether a running variance that was 1 took up the batch's biased or unbiased variance.

    Args:
        found: The running variance after ``variance_values``.
        new_share: What share of it is the new batch's.
    """
    values = variance_values()
    for name, ddof in (("biased", 0), ("unbiased", 1)):
        expected = (1.0 - new_share) + new_share * float(values.var(ddof=ddof))
        if abs(found - expected) <= TOLERANCE * new_share * expected:
            return name
    return "unknown"


def describe_sgd(trajectory: Trajectory, momentum: float) -> str:
    """Whether the velocity of SGD holds the learning rate, told from a rate that falls."""
    if momentum == 0.0:
        return "no velocity"
    first, second = 0.1, 0.01
    _, found = trajectory(0.0, [1.0, 1.0], [first, second], 0.0)
    inside = -first - (momentum * first + second)
    outside = -first - second * (momentum + 1.0)
    for expected, words in (
        (inside, "the learning rate is inside the velocity"),
        (outside, "the learning rate multiplies the velocity"),
    ):
        if abs(found - expected) <= TOLERANCE * abs(expected):
            return words
    return "unknown"


def describe_adam(trajectory: Trajectory, epsilon: float, beta_2: float) -> str:
    """Whether epsilon is added to the root before or after its correction, told from one step."""
    gradient, rate = 10.0 * epsilon, 1e-3
    (found,) = trajectory(0.0, [gradient], [rate], 0.0)
    # One step is rate * g / (g + effective epsilon).
    effective = gradient * (rate / -found - 1.0)
    for expected, words in (
        (epsilon, "epsilon is added to the corrected root"),
        (epsilon / (1.0 - beta_2) ** 0.5, "epsilon is added to the uncorrected root"),
    ):
        if abs(effective - expected) <= 0.02 * expected:
            return words
    return "unknown"


def describe_decay(trajectory: Trajectory) -> str:
    """Whether weight decay goes through the gradient and so through the moments."""
    rate, decay = 0.1, 0.1
    found = trajectory(1.0, [0.0, 0.0], [rate, rate], decay)
    kept = 1.0 - rate * decay
    if abs(found[0] - kept) <= 1e-5 and abs(found[1] - kept * kept) <= 1e-5:
        return "decoupled from the gradient, times the learning rate"
    if found[1] < found[0] < 1.0:
        return "coupled: added to the gradient"
    return "unknown"
