"""From results to tables and a page, without any framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.findings import findings_of
from bench.analysis.folders import known_proofs
from bench.analysis.groups import lost_seeds
from bench.analysis.rows import Row, row_of, rows_of
from bench.errors import UserError
from bench.parity.model import PairProof
from bench.parity.proofs import COPY, proved_subjects, write_copy
from bench.report.compare import FolderComparison
from bench.report.export import Attempts, runs_table, table_texts
from bench.report.page import document, read_document, write_page
from bench.report.select import chosen_columns, in_order
from bench.report.tables.model import Table
from bench.report.tables.runs import Format
from bench.report.tables.standard import standard_set
from bench.spec.base import SCHEMA_VERSION
from bench.storage.results import StoredRun, collector_paused

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
    pairs: Sequence[PairProof]
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
    side: FolderComparison | None = None,
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
    proved = proved_subjects(pairs)
    rows = in_order(rows_of(runs, proved), view.sort)
    columns = chosen_columns(view.columns)
    failed = (row_of(run) for run in whole or runs if run.result.status != "ok")
    found = findings_of(rows, proved, lost_seeds(failed))
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


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The document that ``run`` and ``report`` print with ``--json``."""
    return {"schema_version": SCHEMA_VERSION, "rows": [row.fields for row in rows]}


def load(page: str | Path) -> DataFrame:
    """The runs of a report's page, as ``results`` gives those of a folder.

    Args:
        page: A ``report.html``, wherever it came from: all that is read lies in it.

    Returns:
        The frame, with the same ``attrs``.

    Raises:
        UserError: There is no such file, it is no whole page of Thawbench, or one of a newer one.
    """
    from bench.analysis.frame import frame_of  # pandas takes a second to import

    path = Path(page)
    if path.is_dir():
        raise UserError(f"'{path}' is a folder, no page.", "Of results: bench.results(DIR).")
    if not path.is_file():
        raise UserError(f"There is no page '{path}'.", "Make one: python run_bench.py report DIR")
    document = read_document(path)
    rows = document.get("rows")
    if not isinstance(rows, list):
        raise UserError(f"'{path}' holds no runs.")
    return frame_of(rows, document.get("environments", {}), document.get("problems", []))
