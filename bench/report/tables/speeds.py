"""bench.report.tables.speeds."""

from __future__ import annotations

from dataclasses import replace

from bench.analysis import intervals
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.rows import UNSTEADY
from bench.analysis.speed import (
    SpeedComparison,
    is_unsteady,
    rate_of,
    shares_prefix,
    without_interval,
)
from bench.report.format import measured, spread, times
from bench.report.tables.model import TableCell, estimated, figure, text

SPEED_NOTE = (
    "train images/s: whole steps, the median window. effective images/s: images of all epochs "
    "over the time of all training, where the values of a frozen part were computed once or "
    "the policy has phases. The two are never compared. Figures are geometric means over the "
    "runs; intervals are over the runs where there are three or more, else over the windows "
    "of whole steps; runs that shared one computing of a frozen part have none. They speak of "
    "runs like these, one after the other: not of how a machine drifts over hours."
)
UNSTEADY_NOTE = (
    f"unsteady: slow steps took over {UNSTEADY:g} times the median one, or the fit without "
    "compilation over as many times that of another seed, or inference that of another run of "
    "the same network: the machine was probably busy with other work. The range of the runs "
    "stands there, and no speed is compared."
)


def rate_cells(cell: SeedGroup) -> tuple[TableCell, TableCell]:
    """Of whole steps, and effective ones."""
    speed = rate_of(cell)
    return (
        _printed(cell, speed.whole, "train_images_per_s"),
        _printed(cell, speed.effective, "effective_images_per_s"),
    )


def fit_cell(cell: SeedGroup) -> TableCell:
    """Seconds of a fit."""
    values = [row.result.fit_s for row in cell.rows if row.result.fit_s]
    if len(values) < len(cell.rows):
        return text(None)
    found = intervals.mean_rate(values)
    return _printed(cell, without_interval(found) if shares_prefix(cell) else found, "fit_s", "s")


def _printed(cell: SeedGroup, e: Estimate | None, field: str, unit: str = "") -> TableCell:
    if e is None:
        return text(None)
    if is_unsteady(cell):
        known = [row[field] for row in cell.rows if row[field] is not None]
        return figure(f"{spread(known, unit)}, unsteady", e.value)
    return estimated(measured(e, unit), e)


def speed_verdict(found: SpeedComparison, first: str, second: str) -> str | None:
    """Return a comparison in words; None without a ratio.

    Args:
        found: From ``compare_speeds``.
        first: Name of the first group's backend.
        second: Name of the second's.
    """
    if found.ratio is None:
        return None
    if found.ratio.low is None:
        return "no interval"
    if not found.is_real:
        holds = found.ratio.low <= 1.0 <= (found.ratio.high or 1.0)
        return "tie" if holds else "tie after correction"
    here = " in these runs" if found.ratio.about == "models" else ""
    return f"{second if found.ratio.value > 1.0 else first} is faster{here}"


def faster(found: SpeedComparison, names: tuple[str, str]) -> str:
    """A sentence's part: which is faster, and how much.

    Args:
        found: With a ratio that is real.
        names: Of the two.
    """
    e = found.ratio
    assert e is not None
    assert e.low is not None
    assert e.high is not None
    if e.value >= 1.0:
        return f"{names[1]} is {times(e)} as fast as {names[0]}"
    turned = replace(e, value=1 / e.value, low=1 / e.high, high=1 / e.low)
    return f"{names[0]} is {times(turned)} as fast as {names[1]}"
