"""Reports: from results to tables and a page, without any framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.findings import findings_of
from bench.analysis.folders import known_proofs
from bench.analysis.groups import lost_seeds
from bench.analysis.ranking import MARGIN
from bench.analysis.rows import Row, row_of, rows_of
from bench.errors import UserError
from bench.parity.model import PairProof
from bench.parity.proofs import COPY, proved_subjects, write_copy
from bench.report.answer import answer
from bench.report.compare import FolderComparison
from bench.report.document import document
from bench.report.export import COMPARISON, NAMES, Attempts, table_texts
from bench.report.page import read_document, write_page
from bench.report.selection import chosen_columns, in_order
from bench.report.tables.model import Table
from bench.report.tables.runs import Format, runs_table
from bench.report.tables.standard import standard_set
from bench.spec.base import SCHEMA_VERSION
from bench.storage.results import StoredRun, collector_paused

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class View:
    """Columns, order and description of the table of runs."""

    columns: Sequence[str] | None = None
    """Fields of rows; None: the standard ones."""
    sort: Sequence[str] | None = None
    """Fields of rows, descending with a minus in front; None: the order of cases."""
    selection: str = ""
    """A sentence about runs that were filtered out; empty if none were."""
    margin: float = MARGIN
    """Equivalence margin: largest difference in accuracy (fraction of 1) that counts as equal."""


STANDARD = View()


@dataclass(frozen=True)
class Report:
    """A report, ready to be written."""

    folder: Path
    """Folder to write into."""
    rows: list[Row]
    """The runs, in the order that was asked for."""
    pairs: Sequence[PairProof]
    """Proofs that concern these runs."""
    columns: Sequence[str] | None
    tables: Sequence[Table]
    """All tables but that of the runs and those of a comparison."""
    side: FolderComparison | None
    page: dict[str, Any] | None
    """The document of the page; None: no page is written."""
    headline: str = ""
    """The answer in one or two sentences."""
    compared_with: str | None = None
    """Name of the second folder, if only the comparison and its page are written and the folder's
    own page, tables and proofs stay."""

    @property
    def page_path(self) -> Path:
        """File of the page: ``report.html``, or ``report-vs-B.html`` beside it."""
        name = "" if self.compared_with is None else f"-vs-{self.compared_with}"
        return self.folder / f"report{name}.html"

    @collector_paused()
    def write(self, formats: Sequence[Format]) -> list[Path]:
        """Write the tables and the page; return their paths.

        Raises:
            NotWritten: Some files could not be written; the others were.
        """
        attempts = Attempts(self.folder)
        compared = self.side.tables if self.side else ()
        if self.compared_with is None:
            with attempts.at(self.folder / COPY, is_listed=False):
                write_copy(self.pairs, self.folder)
            texts = table_texts(self.rows, [*self.tables, *compared], formats, self.columns)
            attempts.tables(texts, [*NAMES, COMPARISON] if self.side else NAMES)
        else:
            attempts.tables(table_texts(None, compared, formats), [COMPARISON])
        if self.page is not None:
            with attempts.at(self.page_path):
                write_page(self.page, self.page_path)
        attempts.check()
        return attempts.written


@collector_paused()
def make_report(
    runs: Sequence[StoredRun], folder: Path, problems: Sequence[str] = (), view: View = STANDARD,
    side: FolderComparison | None = None, with_page: bool = True,
    whole: Sequence[StoredRun] | None = None, proofs: Sequence[PairProof] = (),
) -> Report:  # fmt: skip
    """Make a report of runs.

    Args:
        problems: Sentences about what could not be read.
        side: The comparison of ``report A B``.
        with_page: False to leave out the page, which takes longer than all tables.
        whole: All runs from which ``runs`` were selected; None: the same. Failed seeds are
            counted among all of them, since the remaining ones may be the lucky ones.
        proofs: Those that came with a page, beside this machine's and the folder's.

    Raises:
        UserError: There is no such column.
    """
    pairs = known_proofs(folder, runs, proofs)
    proved = proved_subjects(pairs)
    rows = in_order(rows_of(runs, proved), view.sort)
    columns = chosen_columns(view.columns)
    failed = (row_of(run) for run in whole or runs if run.result.status != "ok")
    found = findings_of(rows, proved, lost_seeds(failed), view.margin)
    tables = standard_set(found)
    page = None
    if with_page:
        shown = [*tables, runs_table(rows, columns)]
        page = document(found, shown, problems, view.selection, side)
        page["folder"] = (folder.parent if folder.is_file() else folder).resolve().name
        page["proofs"] = [pair.model_dump(mode="json") for pair in pairs]
    return Report(folder, rows, pairs, columns, tables, side, page, answer(found).headline)


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the document that ``run`` and ``report`` print with ``--json``."""
    return {"schema_version": SCHEMA_VERSION, "rows": [dict(row.fields) for row in rows]}


def load(page: str | Path) -> DataFrame:
    """Return the runs of a page ``report.html`` as a frame, as ``bench.results`` does for a folder;
    nothing else is read.

    Raises:
        UserError: The file does not exist, is not a complete report, or is from a newer Thawbench.
    """
    from bench.analysis.frame import frame_of  # pandas takes a second to import

    path = Path(page)
    if path.is_dir():
        hint = "Load a results folder with bench.results(DIR)."
        raise UserError(f"'{path}' is a folder, not a page.", hint)
    if not path.is_file():
        raise UserError(f"There is no page '{path}'.", "Make one: python run_bench.py report DIR")
    document = read_document(path)
    rows = document.get("rows")
    if not isinstance(rows, list):
        raise UserError(f"'{path}' holds no runs.")
    return frame_of(rows, document.get("environments", {}), document.get("problems", []))
