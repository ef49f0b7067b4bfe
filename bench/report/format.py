"""Numbers as text: one decimal for accuracies in percent and differences in points, two for ratios,
three significant digits for all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.analysis.intervals import Estimate

MINUS = "−"
ABSENT = "–"
"""Text of a missing value."""
LOPSIDED = 1.3
"""Ratio of an interval's longer arm to its shorter one above which ± would mislead."""
WIDE = 0.095
"""Half-width of an accuracy's interval above which its decimals say nothing."""


def signed(value: float, digits: int, sign: str = "-") -> str:
    """Return a number with a typographic minus, and with a plus if ``sign`` is '+'; 0 has none."""
    shown = f"{value:{sign}z.{digits}f}"
    return shown.replace("-", MINUS) if float(shown) else shown.lstrip("+")


def is_lopsided(e: Estimate) -> bool:
    """Return True if ± would mislead: one arm of the interval is much longer than the other."""
    if e.low is None or e.high is None:
        return False
    shorter, longer = sorted((e.value - e.low, e.high - e.value))
    return longer > LOPSIDED * shorter + 0.001


def percent(e: Estimate, unit: str = "%") -> str:
    """Return an accuracy: ``85.8 ± 2.1%``, or ``100% (91 to 100)`` near 0 or 1."""
    half = e.half_width
    if half is None or e.low is None or e.high is None:
        return f"{100 * e.value:.1f}{unit}"
    digits = 0 if half > WIDE else 1
    value, low, high = (f"{100 * share:.{digits}f}" for share in (e.value, e.low, e.high))
    if is_lopsided(e):
        return f"{value}{unit} ({low} to {high})"
    return f"{value} ± {100 * half:.{digits}f}{unit}"


def ends(e: Estimate, none: float = 0.0, scale: float = 100.0, digits: int = 1) -> str:
    """Return an interval: ``(−0.3 to 3.1)``, with as many digits as show on which side of ``none``
    it lies; empty without one."""
    if e.low is None or e.high is None:
        return ""
    while digits < 4 and e.excludes_neutral:
        if all(float(f"{scale * end:.{digits}f}") != scale * none for end in (e.low, e.high)):
            break
        digits += 1
    return f"({signed(scale * e.low, digits)} to {signed(scale * e.high, digits)})"


def points(e: Estimate) -> str:
    """Return a difference of accuracies: ``+1.4 points (−0.3 to 3.1)``."""
    return f"{signed(100 * e.value, 1, '+')} points {ends(e)}".rstrip()


def margin_words(margin: float) -> str:
    """Return a difference in accuracy (fraction of 1) in words: ``1 point``, ``0.5 points``."""
    return "1 point" if abs(margin - 0.01) < 1e-9 else f"{100 * margin:g} points"


def times(e: Estimate) -> str:
    """Return a ratio: ``1.23 × (1.18 to 1.29)``."""
    return f"{ratio(e.value)} × {ends(e, 1.0, 1.0, 2)}".rstrip()


def ratio(value: float) -> str:
    """Return a factor with three significant digits."""
    return f"{value:.2f}" if 0.1 <= value < 10 else f"{value:.3g}"


def three_digits(value: float) -> str:
    """Return a number with three significant digits, or a whole one from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def megabytes(value: float) -> str:
    """Return a number of bytes in MB."""
    return f"{value / 1e6:,.0f} MB"


def seconds(value: float) -> str:
    """Return a time with three significant digits, in hours from two hours on."""
    if value >= 7200:
        return f"{value / 3600:.{0 if value > 36_000 else 1}f} hours"
    return f"{three_digits(value)} s" if value < 300 else f"{value / 60:.0f} minutes"


def share(value: float) -> str:
    """Return a fraction in percent: ``39 %``, ``<1 %``."""
    return "<1 %" if value < 0.01 else f"{100 * value:.0f} %"


def relative_time(value: float) -> str:
    """Return a time over another one: ``39 %``, from twice as long on ``19.8 ×``."""
    return share(value) if value < 2 else f"{value:.3g} ×"


def chance(value: float) -> str:
    """Return a probability in percent, which is never certain: ``39 %``, ``<1 %``, ``>99 %``."""
    return ">99 %" if value > 0.99 else share(value)


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
