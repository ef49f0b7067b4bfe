"""Numbers as text, rounded to their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.analysis.intervals import Estimate

MINUS = "−"
ABSENT = "–"
"""Text of a missing value."""
LOPSIDED = 1.2
"""Ratio of an interval's longer arm to its shorter one above which ± would mislead."""
MOST_DIGITS = 4
"""Most decimal places of a difference or ratio."""


def places(half_width: float | None, default: int = 1, least: int = 0) -> int:
    """Return the decimal places that show one digit of the uncertainty, or two if the first is 1
    or 2. Negative places round to tens and hundreds."""
    if not half_width or not math.isfinite(half_width):
        return default
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10.0**exponent
    return min(max(-exponent + (leading < 3.0), least), 3)


def _plain(value: float, digits: int, sign: str = "-") -> str:
    """Return a number with a typographic minus, and with a plus if ``sign`` is '+'; 0 has none."""
    shown = f"{value:{sign}z.{digits}f}"
    return shown.replace("-", MINUS) if float(shown) else shown.lstrip("+")


def percent(e: Estimate) -> str:
    """Return an accuracy: ``85.8 ± 2.1%``, or ``100% (91 to 100)`` near 0 or 1."""
    half = e.half_width
    if half is None or e.low is None or e.high is None:
        return f"{e.value:.1%}"
    digits = places(100 * half)
    value, low, high = (f"{100 * share:.{digits}f}" for share in (e.value, e.low, e.high))
    shorter, longer = sorted((e.value - e.low, e.high - e.value))
    if longer > LOPSIDED * shorter + 10.0**-digits / 200:
        return f"{value}% ({low} to {high})"
    return f"{value} ± {100 * half:.{digits}f}%"


def points(e: Estimate) -> str:
    """Return a difference of accuracies: ``+1.4 points (−0.3 to 3.1)``."""
    if e.low is None or e.high is None:
        return f"{_plain(100 * e.value, 1, '+')} points"
    ends = 100 * e.low, 100 * e.high
    digits = _telling(ends, 0.0, places(100 * (e.half_width or 0.0)))
    low, high = (_plain(end, digits) for end in ends)
    return f"{_plain(100 * e.value, digits, '+')} points ({low} to {high})"


def times(e: Estimate) -> str:
    """Return a ratio: ``1.23 × (1.18 to 1.29)``."""
    if e.low is None or e.high is None:
        return f"{e.value:.3g} ×"
    _, digits = _interval_places(e, MOST_DIGITS, default=2)
    digits = _telling((e.low, e.high), 1.0, digits)
    return f"{e.value:.{digits}f} × ({e.low:.{digits}f} to {e.high:.{digits}f})"


def _telling(ends: tuple[float, float], none: float, digits: int) -> int:
    """Return enough places to show on which side of ``none`` an interval lies that excludes it."""

    def is_unclear(end: float) -> bool:
        return float(f"{end:.{digits}f}") in (0.0, none) and end != none

    excludes = not ends[0] <= none <= ends[1]
    while excludes and digits < MOST_DIGITS and any(map(is_unclear, ends)):
        digits += 1
    return digits


def measured(e: Estimate, unit: str = "") -> str:
    """Return a positive number with its interval: ``205 ± 4``, or ``700 (100 to 5,700)`` if it is
    lopsided; without an interval, three significant digits."""
    half, tail = e.half_width, f" {unit}" if unit else ""
    if not half or e.low is None or e.high is None:
        return three_digits(e.value) + tail
    most = 2 - math.floor(math.log10(e.value))  # the places of three significant digits
    is_lopsided, digits = _interval_places(e, most, least=-9)
    value = _rounded(e.value, digits)
    if not is_lopsided:
        return f"{value} ± {_rounded(half, digits)}{tail}"
    low, high = _down(e.low, digits), -_down(-e.high, digits)  # rounding must not narrow it
    return f"{value} ({_rounded(low, digits)} to {_rounded(high, digits)}){tail}"


def _interval_places(e: Estimate, most: int, default: int = 1, least: int = 0) -> tuple[bool, int]:
    """Return True if an interval is lopsided, and the places to show: up to ``most`` if the low end
    of a lopsided one would be rounded down to 0."""
    low, high = e.low or 0.0, e.high or 0.0
    shorter, longer = sorted((e.value - low, high - e.value))
    if longer <= LOPSIDED * shorter:
        return False, places(e.half_width, default, least)
    digits = places(math.sqrt(max(shorter, 0.0) * longer), default, least)
    while _down(low, digits) <= 0.0 < low and digits < most:
        digits += 1
    return True, digits


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return the range of some values with three significant digits: ``80.7 to 1,080 s``."""
    ends = dict.fromkeys(three_digits(value) for value in (min(values), max(values)))
    return " to ".join(ends) + (f" {unit}" if unit else "")


def three_digits(value: float) -> str:
    """Return a number with three significant digits, or a whole one from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _down(value: float, digits: int) -> float:
    return math.floor(value * 10.0**digits + 1e-9) / 10.0**digits


def _rounded(value: float, digits: int) -> str:
    """Round to some decimal places; negative ones mean tens and hundreds."""
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def megabytes(value: float) -> str:
    """Return a number of bytes in MB."""
    return f"{value / 1e6:,.0f} MB"


def seconds(value: float) -> str:
    """Return a time with three significant digits."""
    return f"{three_digits(value)} s"


def listed(names: Sequence[str]) -> str:
    """Join names: ``a, b and c``."""
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last


def some_of(names: Sequence[str], most: int) -> str:
    """Join names, and only count those after the first ``most``: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def applicable(sentences: Mapping[str, object]) -> list[str]:
    """Return the sentences whose value is true."""
    return [sentence for sentence, is_true in sentences.items() if is_true]
