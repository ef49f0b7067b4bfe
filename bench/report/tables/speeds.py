"""Cells, verdicts and notes about speeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from bench.analysis import intervals
from bench.analysis.findings import BackendPair
from bench.analysis.groups import SeedGroup
from bench.analysis.intervals import Estimate
from bench.analysis.rows import UNSTEADY
from bench.analysis.speed import is_unsteady, rate_of, unless_shared
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
    whole = _printed(group, speed.whole, "train_images_per_s")
    return whole, _printed(group, speed.effective, "effective_images_per_s")


def fit_cell(group: SeedGroup) -> TableCell:
    """Return the cell of the fit's seconds."""
    values = [row.result.fit_s for row in group.rows if row.result.fit_s]
    if len(values) < len(group.rows):
        return text(None)
    return _printed(group, unless_shared(intervals.mean_rate(values), group), "fit_s", "s")


def _printed(group: SeedGroup, e: Estimate | None, field: str, unit: str = "") -> TableCell:
    cell = estimated(e, partial(measured, unit=unit))
    return unless_unsteady(cell, group, [row[field] for row in group.rows], unit)


def unless_unsteady(
    cell: TableCell, group: SeedGroup, values: Iterable[float | None], unit: str
) -> TableCell:
    """Return a cell; if the machine was busy, with the range of the runs' values as its text."""
    if cell.raw is None or not is_unsteady(group):
        return cell
    known = [value for value in values if value is not None]
    return figure(f"{spread(known, unit)}, unsteady", cell.raw)


def speed_verdict(pair: BackendPair) -> str | None:
    """Return which backend is faster, in words; None without a ratio."""
    e = pair.speed.ratio
    if e is None:
        return None
    if e.low is None:
        return "no interval"
    if not pair.speed.is_real:
        return "tie" if e.holds_neutral else "tie after correction"
    here = " in these runs" if e.about == "models" else ""
    return f"{(pair.b if e.value > 1.0 else pair.a).row.spec.backend} is faster{here}"


def faster(pair: BackendPair) -> str:
    """Return which backend is faster, and by how much; the difference must be real."""
    first, second, e = pair.a.row.spec.backend, pair.b.row.spec.backend, pair.speed.ratio
    assert e is not None
    assert e.low is not None
    assert e.high is not None
    if e.value >= 1.0:
        return f"{second} is {times(e)} as fast as {first}"
    turned = replace(e, value=1 / e.value, low=1 / e.high, high=1 / e.low)
    return f"{first} is {times(turned)} as fast as {second}"
