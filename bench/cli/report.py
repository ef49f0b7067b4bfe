"""The command ``report``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.analysis.folders import check_different, check_not_empty, drop_superseded, merge_runs
from bench.analysis.rows import Row
from bench.cli.options import ReportOptions, names, report_filters
from bench.cli.output import show, tell
from bench.errors import UserError, choose
from bench.report import STANDARD, Report, View, make_report
from bench.report import as_json as rows_as_json
from bench.report.compare import FolderComparison, side_by_side
from bench.report.export import NotWritten, as_text
from bench.report.notes import footnotes, reasons
from bench.report.selection import Filters, Selection
from bench.report.tables.runs import FORMATS, Format, runs_text
from bench.storage.results import Store
from bench.storage.text_files import json_text

MOST_LETTERS = 100
"""Letters of the names of merged folders in the name of the folder of their report."""
MOST_ROWS = 200
"""Rows that are printed without being asked for."""
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
    view = View(names(options.columns), names(options.sort))
    formats = names(options.formats) or []
    for name in formats:
        choose("format", name, FORMATS)
    side = None
    found = [Store(folder).load() for folder in folders]
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
    report = make_report(runs, folders[0], problems, view, side, options.page, everything)
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
    """Print the table of runs with its notes, and the files written, or everything as JSON. Of very
    many runs, summaries are printed in place of rows."""
    for problem in problems[:MOST_PROBLEMS]:
        tell(problem)
    if len(problems) > MOST_PROBLEMS:
        tell(f"{len(problems) - MOST_PROBLEMS:,} more folders could not be read; see the report")
    if as_json:
        more = {"side_by_side": side.as_json()} if side else {}
        show(json_text({**rows_as_json(rows), "problems": list(problems), **more}))
        return
    if side:
        for table in side.tables:
            show(as_text(table, "terminal"))
        for sentence in side.sentences:
            show(sentence)
        show()
    if len(rows) > MOST_ROWS and view.columns is None and view.sort is None:
        _print_summary(report, rows)
    else:
        show(runs_text(rows, "terminal", view.columns))
    for line in [*reasons(rows), *footnotes(rows)]:
        show(line)
    if paths:
        tell("written: " + ", ".join(str(p) for p in paths))


def _print_summary(report: Report, rows: Sequence[Row]) -> None:
    """Print the tables that summarise runs, and how to see the runs themselves."""
    for table in report.tables:
        if len(table.rows) <= MOST_ROWS:
            show(as_text(table, "terminal"))
    counts = Counter(row.result.status for row in rows)
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    show(
        f"{len(rows):,} runs: {each}. The rows are in the written tables; --columns or --sort "
        f"prints them here, as does a filter that leaves at most {MOST_ROWS}."
    )
