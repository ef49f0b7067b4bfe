"""Numbers as text, rounded to their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.analysis.intervals import Estimate

MINUS = "−"
ABSENT = "–"
"""Text of a missing value."""


def places(half_width: float | None, default: int = 1, least: int = 0) -> int:
    """Return the decimal places that show one digit of the uncertainty, or two if the first is 1
    or 2. Negative places round to tens and hundreds."""
    if not half_width or not math.isfinite(half_width):
        return default
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10.0**exponent
    return min(max(-exponent + (leading < 3.0), least), 3)


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, and a typographic minus."""
    shown = f"{abs(value):.{digits}f}"
    if not float(shown):
        return shown
    return ("+" if value > 0 else MINUS) + shown


def plain(value: float, digits: int) -> str:
    """Return a number with a typographic minus, if any."""
    shown = f"{value:.{digits}f}"
    return shown.replace("-", MINUS) if float(shown) else shown.replace("-", "")


LOPSIDED = 1.2
"""Ratio of an interval's longer arm to its shorter one above which ± would mislead."""


def percent(e: Estimate) -> str:
    """Return an accuracy: ``85.8 ± 2.1%``, or ``100% (91 to 100)`` near 0 or 1."""
    half = e.half_width
    if half is None or e.low is None or e.high is None:
        return f"{e.value:.1%}"
    digits = places(100 * half)
    arms = sorted((e.value - e.low, e.high - e.value))
    if arms[1] > LOPSIDED * arms[0] + 10.0**-digits / 200:
        low, high = (f"{100 * end:.{digits}f}" for end in (e.low, e.high))
        return f"{100 * e.value:.{digits}f}% ({low} to {high})"
    return f"{100 * e.value:.{digits}f} ± {100 * half:.{digits}f}%"


MOST_DIGITS = 4


def _telling(ends: tuple[float, float], none: float, digits: int) -> int:
    """Return enough places to show on which side of ``none`` an interval lies that excludes it."""
    if ends[0] <= none <= ends[1]:
        return digits
    while digits < MOST_DIGITS and any(_looks_like(end, none, digits) for end in ends):
        digits += 1
    return digits


def _looks_like(end: float, none: float, digits: int) -> bool:
    return float(f"{end:.{digits}f}") in (0.0, none) and end != none


def points(e: Estimate) -> str:
    """Return a difference of accuracies: ``+1.4 points (−0.3 to 3.1)``."""
    if e.low is None or e.high is None:
        return f"{signed(100 * e.value, 1)} points"
    digits = _telling((100 * e.low, 100 * e.high), 0.0, places(100 * (e.half_width or 0.0)))
    low, high = (plain(100 * end, digits) for end in (e.low, e.high))
    return f"{signed(100 * e.value, digits)} points ({low} to {high})"


def times(e: Estimate) -> str:
    """Return a ratio: ``1.23 × (1.18 to 1.29)``."""
    if e.low is None or e.high is None:
        return f"{e.value:.3g} ×"
    arms = sorted((e.value - e.low, e.high - e.value))
    if arms[1] > LOPSIDED * arms[0]:
        digits = max(places(math.sqrt(max(arms[0], 0.0) * arms[1]), default=2), 0)
        while _down(e.low, digits) <= 0.0 < e.low and digits < MOST_DIGITS:
            digits += 1
    else:
        digits = places(e.half_width, default=2)
    digits = _telling((e.low, e.high), 1.0, digits)
    return f"{e.value:.{digits}f} × ({e.low:.{digits}f} to {e.high:.{digits}f})"


def measured(e: Estimate, unit: str = "") -> str:
    """Return a positive number with its interval: ``205 ± 4``, or ``700 (100 to 5,700)`` if it is
    lopsided; without an interval, three significant digits."""
    half = e.half_width
    tail = f" {unit}" if unit else ""
    if not half or e.low is None or e.high is None:
        return _three_digits(e.value) + tail
    arms = sorted((e.value - e.low, e.high - e.value))
    if arms[1] > LOPSIDED * arms[0]:
        digits = places(math.sqrt(max(arms[0], 0.0) * arms[1]), least=-9)
        # A positive bound is not rounded to 0, unless that takes more than three digits.
        while _down(e.low, digits) <= 0.0 < e.low and digits < 2 - math.floor(math.log10(e.value)):
            digits += 1
        low, high = _down(e.low, digits), -_down(-e.high, digits)  # rounding must not narrow it
        value = _rounded(e.value, digits)
        return f"{value} ({_rounded(low, digits)} to {_rounded(high, digits)}){tail}"
    digits = places(half, least=-9)
    return f"{_rounded(e.value, digits)} ± {_rounded(half, digits)}{tail}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return the range of some values with three significant digits: ``80.7 to 1,080 s``."""
    ends = dict.fromkeys(_three_digits(value) for value in (min(values), max(values)))
    return " to ".join(ends) + (f" {unit}" if unit else "")


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _down(value: float, digits: int) -> float:
    """Round down to some decimal places."""
    return math.floor(value * 10.0**digits + 1e-9) / 10.0**digits


def _rounded(value: float, digits: int) -> str:
    """Round to some decimal places; negative ones mean tens and hundreds."""
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def count(value: int | float | None) -> str:
    """Return a whole number with separators."""
    return ABSENT if value is None else f"{value:,.0f}"


def megabytes(value: float | None) -> str:
    """Return a number of bytes in MB."""
    return ABSENT if value is None else f"{value / 1e6:,.0f} MB"


def seconds(value: float | None) -> str:
    """Return a time with three significant digits."""
    if value is None:
        return ABSENT
    return f"{_three_digits(value)} s"


def listed(names: Sequence[str]) -> str:
    """Join names: ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def number_of(things: int, name: str) -> str:
    """Return a count with its noun: ``1 run``, ``2 runs``."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"
