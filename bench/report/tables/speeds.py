"""Cells, verdicts and notes about speeds."""

from __future__ import annotations

from dataclasses import replace

from bench.analysis import intervals
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.rows import UNSTEADY
from bench.analysis.speed import SpeedComparison, is_unsteady, rate_of, unless_shared
from bench.report.format import measured, spread, times
from bench.report.tables.model import TableCell, estimated, figure, text

SPEED_NOTE = (
    "train images/s: median window of whole steps. effective images/s: images of all epochs over "
    "the time of all training, if the values of a frozen part were computed once or the policy has "
    "phases. The two are never compared. Values are geometric means over the runs. Intervals are "
    "over the runs if there are three or more, else over the windows of whole steps. Runs that "
    "shared the values of a frozen part have no interval. Intervals do not cover how a machine "
    "drifts over hours."
)
UNSTEADY_NOTE = (
    f"unsteady: slow steps took over {UNSTEADY:g} times the median one. Or the fit (without "
    "compilation) took that much longer than another seed's, or inference than another run's of "
    "the same network. The machine was probably busy with other work. The range of the runs is "
    "shown, and no speed is compared."
)


def rate_cells(group: SeedGroup) -> tuple[TableCell, TableCell]:
    """Return the cells of whole steps and of effective rates."""
    speed = rate_of(group)
    return (
        _printed(group, speed.whole, "train_images_per_s"),
        _printed(group, speed.effective, "effective_images_per_s"),
    )


def fit_cell(group: SeedGroup) -> TableCell:
    """Return the cell of the fit's seconds."""
    values = [row.result.fit_s for row in group.rows if row.result.fit_s]
    if len(values) < len(group.rows):
        return text(None)
    return _printed(group, unless_shared(intervals.mean_rate(values), group), "fit_s", "s")


def _printed(group: SeedGroup, e: Estimate | None, field: str, unit: str = "") -> TableCell:
    if e is None:
        return text(None)
    if is_unsteady(group):
        known = [row[field] for row in group.rows if row[field] is not None]
        return figure(f"{spread(known, unit)}, unsteady", e.value)
    return estimated(measured(e, unit), e)


def speed_verdict(found: SpeedComparison, first: str, second: str) -> str | None:
    """Return a comparison of two backends, given by their names, in words; None without a ratio."""
    e = found.ratio
    if e is None:
        return None
    if e.low is None:
        return "no interval"
    if not found.is_real:
        return "tie" if e.low <= 1.0 <= (e.high or 1.0) else "tie after correction"
    here = " in these runs" if e.about == "models" else ""
    return f"{second if e.value > 1.0 else first} is faster{here}"


def faster(found: SpeedComparison, names: tuple[str, str]) -> str:
    """Return a part of a sentence: which backend is faster, and by how much; the difference must be
    real."""
    e = found.ratio
    assert e is not None
    assert e.low is not None
    assert e.high is not None
    if e.value >= 1.0:
        return f"{names[1]} is {times(e)} as fast as {names[0]}"
    turned = replace(e, value=1 / e.value, low=1 / e.high, high=1 / e.low)
    return f"{names[0]} is {times(turned)} as fast as {names[1]}"
