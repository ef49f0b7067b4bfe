"""The command ``report``."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.analysis.folders import check_different, check_not_empty, drop_superseded, merge_runs
from bench.analysis.rows import Row
from bench.cli.options import ReportOptions, names, report_filters
from bench.cli.output import show, tell
from bench.errors import UserError, choose, number_of
from bench.report import STANDARD, Report, View, make_report
from bench.report import as_json as rows_as_json
from bench.report.compare import FolderComparison, side_by_side
from bench.report.export import NotWritten
from bench.report.from_page import load_page, proofs_of_page
from bench.report.notes import reasons, warnings
from bench.report.selection import Filters, Selection
from bench.report.tables.runs import FORMATS, Format
from bench.report.terminal import columns_on_terminal, runs_on_terminal, table_on_terminal
from bench.storage.results import Store
from bench.storage.text_files import json_text

MOST_LETTERS = 100
"""Letters of the names of merged folders in the name of the folder of their report."""
MOST_ROWS = 200
"""Rows that are printed without being asked for."""
WIDTH = 120
"""Characters of a line where the width of the terminal is not known."""
SUMMARY = ("average", "cases", "failed")
"""Names of the tables that are printed in place of very many rows; without any of them, all are."""
MOST_PROBLEMS = 20
"""Folders that could not be read and are named one by one."""


def report_command(options: ReportOptions) -> None:
    """Write tables and page of results folders; compare them if there are two, earlier one first.

    A comparison gets a page of its own name in the first folder, and three or more folders get a
    folder in it, so that the first folder's own page and tables stay as they are. Raise UserError
    if there are no results, a format, name or column is unknown, or the folder cannot be written.
    """
    folders, out = options.folders, options.out
    filters = Filters(
        **report_filters(options.shared),
        weights=[name for text in options.weights or () for name in names(text) or ()] or None,
        device=names(options.device),
        status=names(options.status),
    )
    if not 0.0 < options.margin <= 50.0:
        raise UserError(f"--margin {options.margin:g}: a margin is above 0 and at most 50 points.")
    view = View(names(options.columns), names(options.sort), margin=options.margin / 100)
    formats = names(options.formats) or []
    for name in formats:
        choose("format", name, FORMATS)
    side = None
    found = [load_page(f) if f.is_file() else Store(f).load() for f in folders]
    if folders[0].is_file() and out is None:
        raise UserError(
            f"'{folders[0]}' is a page, beside which nothing is written.",
            "Name a folder for the report: --out DIR.",
        )
    if len(folders) == 2:
        check_different(folders)
    check_not_empty(folders, found)
    everything, problems = merge_runs(folders, found)
    selection = Selection(filters, [run for runs, _ in found for run in runs])
    runs = selection.kept(everything)
    if selection.options:
        selected = f"Selected from {len(everything)} runs by {selection.options}."
        view = replace(view, selection=" ".join([selected, *selection.absent]))
        tell(view.selection)
    if len(folders) == 2:
        first, second = (drop_superseded(runs) for runs, _ in found)
        chosen = selection.of(first), selection.of(second)
        a, b = (folder.resolve() for folder in folders)
        labels = (a.name, b.name) if a.name != b.name else (str(a), str(b))
        side = side_by_side(*chosen, labels, (first, second))
    proofs = [pair for page in folders if page.is_file() for pair in proofs_of_page(page)]
    report = make_report(runs, folders[0], problems, view, side, options.page, everything, proofs)
    if out is not None and out.resolve() == folders[0].resolve():
        out = None
    if out is None and len(folders) > 2:  # the first folder's own page and tables stay
        others = "-".join(folder.resolve().name or "root" for folder in folders[1:])
        out = folders[0] / f"with-{others[:MOST_LETTERS]}"
        if out.is_symlink():
            raise UserError(f"'{out}' is a link, which may lead anywhere.", "Use --out FOLDER.")
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"Cannot create the folder '{out}': {error.strerror}."
            raise UserError(message, "Name another one with --out.") from error
        report = replace(report, folder=out)
    elif side is not None:
        report = replace(report, compared_with=folders[1].resolve().name or "root")
    if not options.page and report.page_path.exists():
        problems.append(f"'{report.page_path}' is from an earlier report and was not changed")
    written = cast(Sequence[Format], formats)
    write_and_print(report, report.rows, written, problems, options.as_json, view, side)


def write_and_print(
    report: Report, rows: Sequence[Row], formats: Sequence[Format], problems: Sequence[str],
    as_json: bool, view: View = STANDARD, side: FolderComparison | None = None,
) -> None:  # fmt: skip
    """Write a report, then print rows of it, even if it could not be written."""
    paths: list[Path] = []
    try:
        paths = report.write(formats)
    except NotWritten as error:
        paths = error.written
        raise
    finally:
        _print_rows(report, rows, paths, problems, as_json, view, side)


def _print_rows(
    report: Report, rows: Sequence[Row], paths: Sequence[Path], problems: Sequence[str],
    as_json: bool, view: View, side: FolderComparison | None,
) -> None:  # fmt: skip
    """Print the table of runs, what is wrong with them, the answer in one sentence and where the
    page is; or everything as JSON. Of very many runs, summaries are printed in place of rows."""
    for problem in problems[:MOST_PROBLEMS]:
        tell(problem)
    if len(problems) > MOST_PROBLEMS:
        tell(f"{len(problems) - MOST_PROBLEMS:,} more folders could not be read; see the report")
    if as_json:
        more = {"side_by_side": side.as_json()} if side else {}
        show(json_text({**rows_as_json(rows), "problems": list(problems), **more}))
        return
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    if side:
        for table in side.tables:
            show(table_on_terminal(table, width))
            show()
        for sentence in side.sentences:
            show(sentence)
        show()
    if view.columns is not None:
        show(columns_on_terminal(rows, report.columns or (), width))
    elif len(rows) > MOST_ROWS and view.sort is None:
        _print_summary(report, rows, width)
    else:
        show(runs_on_terminal(rows, width))
    for line in [*reasons(rows), *warnings(rows)]:
        show(f"! {line}")
    if side is None:
        show(f"\n{report.headline}")
    pages = [path for path in paths if path.suffix == ".html" and path.parent.name != "tables"]
    if pages:
        show(f"More: {pages[0]}")
    tables = len(paths) - len(pages)
    if paths:
        names = [*map(str, pages)]
        where = report.folder / "tables"
        names += [f"{number_of(tables, 'file')} of tables in {where}"] if tables else []
        tell(f"written: {' and '.join(names)}")


def _print_summary(report: Report, rows: Sequence[Row], width: int) -> None:
    """Print the tables that summarise runs, and how to see the runs themselves."""
    shown = [table for table in report.tables if table.name in SUMMARY] or report.tables
    for table in shown:
        if len(table.rows) <= MOST_ROWS:
            show(table_on_terminal(table, width, is_whole=False))
            show()
    counts = Counter(row.result.status for row in rows)
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    show(
        f"{len(rows):,} runs: {each}. The rows are in the written tables; --columns or --sort "
        f"prints them here, as does a filter that leaves at most {MOST_ROWS}."
    )
