"""From results to tables and a page, without any framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import SCHEMA_VERSION
from bench.cache import cache_root
from bench.memory import collector_paused
from bench.parity.model import Pair
from bench.parity.proofs import COPY, Proofs, read_copy, shown, write_copy
from bench.report.cells import lost_seeds
from bench.report.document import document
from bench.report.filters import chosen_columns, in_order
from bench.report.findings import findings_of
from bench.report.folders import load_runs as load_runs
from bench.report.page import write_page
from bench.report.rows import row_of, rows_of
from bench.report.side_by_side import SideBySide
from bench.report.standard_set import standard_set
from bench.report.table_model import Table
from bench.report.tables import Format
from bench.report.twins import Row
from bench.report.write import Attempts, runs_table, table_texts
from bench.store import StoredRun

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class View:
    """How the table of runs is shown."""

    columns: Sequence[str] | None = None
    """Fields of rows; None: the standard ones."""
    sort: Sequence[str] | None = None
    """Fields of rows, with a minus: descending; None: the order of cases."""
    selection: str = ""
    """A sentence on what was left out; empty: nothing was."""


STANDARD = View()


@dataclass(frozen=True)
class Report:
    """A report, ready to be written."""

    folder: Path
    """Where to."""
    rows: list[Row]
    """In the order that was asked for."""
    pairs: Sequence[Pair]
    """Proofs that speak of them."""
    columns: Sequence[str] | None
    """Of the table of runs."""
    tables: Sequence[Table]
    """All others."""
    page: dict[str, Any] | None
    """The document of the page; None: there is none."""

    @collector_paused()
    def write(self, formats: Sequence[Format]) -> list[Path]:
        """Write ``tables/*`` and ``report.html``; returns the paths.

        Raises:
            NotWritten: Some of it, or all; the rest has been written.
        """
        attempts = Attempts(self.folder)
        attempts.run(self.folder / COPY, lambda _: write_copy(self.pairs, self.folder), False)
        attempts.tables(table_texts(self.rows, self.tables, formats, self.columns))
        if self.page is not None:
            page = self.page
            attempts.run(self.folder / "report.html", lambda path: write_page(page, path))
        attempts.check()
        return attempts.written


@collector_paused()
def make_report(
    runs: Sequence[StoredRun],
    folder: Path,
    problems: Sequence[str] = (),
    view: View = STANDARD,
    side: SideBySide | None = None,
    with_page: bool = True,
    whole: Sequence[StoredRun] | None = None,
) -> Report:
    """A report of runs.

    Args:
        runs: That it is about.
        folder: That it will be written into.
        problems: Sentences about what could not be read.
        view: Of the table of runs.
        side: Of ``report A B``.
        with_page: Whether there is to be a page, which takes longer than all tables.
        whole: All runs that the others were chosen from; None: those. Seeds that failed are counted
            among all, for those that are left may be the lucky ones.

    Raises:
        UserError: There is no such column.
    """
    pairs = known_proofs(folder, runs)
    proved = shown(pairs)
    rows = in_order(rows_of(runs, proved), view.sort)
    columns = chosen_columns(view.columns, rows)
    failed = (row_of(run) for run in whole or runs if run.result.status != "ok")
    found = findings_of(rows, runs, proved, lost_seeds(failed))
    tables = standard_set(found)
    page = None
    if with_page:
        shown_tables = [*tables, runs_table(rows, columns)]
        page = document(found, shown_tables, problems, view.selection, side)
    return Report(folder, rows, pairs, columns, [*tables, *(side.tables if side else ())], page)


def write_report(
    runs: Sequence[StoredRun],
    folder: Path,
    formats: Sequence[Format],
    problems: Sequence[str] = (),
) -> tuple[list[Row], list[Path]]:
    """Make a report and write it; returns the rows and the paths.

    Raises:
        NotWritten: Some of it cannot be written.
    """
    made = make_report(runs, folder, problems)
    return made.rows, made.write(formats)


def known_proofs(folder: Path, runs: Sequence[StoredRun]) -> list[Pair]:
    """Proofs that speak of the runs' environments: this machine's, and those beside the results."""
    environments = {run.result.environment_id for run in runs}
    pairs = [*read_copy(folder), *Proofs(cache_root()).load()]
    newest = {pair.about: pair for pair in pairs}  # this machine's come last
    # Also through a third environment, with which two were compared.
    return [pair for pair in newest.values() if environments & set(pair.environments)]


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The document that ``run`` and ``report`` print with ``--json``."""
    return {"schema_version": SCHEMA_VERSION, "rows": list(rows)}


def load(page: str | Path) -> DataFrame:
    """The runs of a ``report.html`` as a pandas frame, as ``bench.results`` gives a folder's.

    Raises:
        UserError: There is no such file, it is no whole page of Thawbench, or one of a newer one.
    """
    from bench.report import frame  # which reads folders by what is above

    return frame.load(page)
