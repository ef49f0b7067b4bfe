"""bench.report.tables.speeds."""

from __future__ import annotations

from dataclasses import replace

from bench.analysis import intervals as statistics
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.speed import (
    SpeedComparison,
    is_unsteady,
    rate_of,
    shares_prefix,
    without_interval,
)
from bench.report.format import measured, spread, times
from bench.report.tables.model import TableCell, estimated, figure, text


def rate_cells(cell: SeedGroup) -> tuple[TableCell, TableCell]:
    """Of whole steps, and effective ones."""
    speed = rate_of(cell)
    return (
        _printed(cell, speed.whole, "train_images_per_s"),
        _printed(cell, speed.effective, "effective_images_per_s"),
    )


def fit_cell(cell: SeedGroup) -> TableCell:
    """Seconds of a fit."""
    values = [row["fit_s"] for row in cell.rows]
    if not all(values):
        return text(None)
    found = statistics.mean_rate(values)
    return _printed(cell, without_interval(found) if shares_prefix(cell) else found, "fit_s", "s")


def _printed(cell: SeedGroup, e: Estimate | None, field: str, unit: str = "") -> TableCell:
    if e is None:
        return text(None)
    if is_unsteady(cell):
        known = [row[field] for row in cell.rows if row[field] is not None]
        return figure(f"{spread(known, unit)}, unsteady", e.value)
    return estimated(measured(e, unit), e)


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
