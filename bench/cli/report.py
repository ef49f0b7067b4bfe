"""The command ``report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from bench.analysis.folders import check_different, check_not_empty, drop_superseded, merge_runs
from bench.analysis.rows import Row
from bench.cli.output import print_json
from bench.errors import UserError, choose
from bench.report import STANDARD, View, make_report
from bench.report import as_json as rows_as_json
from bench.report.compare import FolderComparison, side_by_side
from bench.report.export import NotWritten, as_text
from bench.report.notes import footnotes, reasons
from bench.report.select import Filters, Selection
from bench.report.tables.runs import FORMATS, Format, runs_text
from bench.storage.results import Store


@dataclass(frozen=True)
class ReportCommand:
    """The options of ``report``."""

    folders: Sequence[Path]
    """Results folders; two are compared, the first being the earlier one."""
    formats: Sequence[str]
    """Formats of the tables."""
    filters: Filters
    """Selects the runs."""
    view: View
    """Columns and order of the table of runs."""
    as_json: bool
    """True to print JSON instead of the table."""
    with_page: bool = True
    """False to write tables only."""
    out: Path | None = None
    """Folder to write into; None: the first results folder, where a comparison gets a page of its
    own name and leaves the folder's own page and tables as they are."""


def report_command(command: ReportCommand) -> None:
    """Write tables and page of results folders, and compare them if there are two.

    Raises:
        UserError: There are no results, a format, name or column is unknown, or the folder cannot
            be written.
    """
    for name in command.formats:
        choose("format", name, FORMATS)
    folders, view, side = command.folders, command.view, None
    found = [Store(folder).load() for folder in folders]
    if len(folders) == 2:
        check_different(folders)
    check_not_empty(folders, found)
    everything, problems = merge_runs(folders, found)
    selection = Selection(command.filters, [run for runs, _ in found for run in runs])
    runs = selection.kept(everything)
    if options := command.filters.as_options():
        selected = f"Selected from {len(everything)} runs by {options}."
        view = replace(view, selection=" ".join([selected, *selection.absent]))
        print(view.selection, file=sys.stderr)
    if len(folders) == 2:
        first, second = (drop_superseded(runs) for runs, _ in found)
        chosen = selection.of(first), selection.of(second)
        side = side_by_side(*chosen, _short_names(folders), (first, second))
    report = make_report(runs, folders[0], problems, view, side, command.with_page, everything)
    if command.out is not None:
        try:
            command.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot create the folder '{command.out}': {error.strerror}.",
                "Name another one with --out.",
            ) from error
        report = replace(report, folder=command.out)
    elif side is not None:
        report = replace(report, compared_with=folders[1].resolve().name or "root")
    paths: list[Path] = []
    try:
        paths = report.write(cast(Sequence[Format], command.formats))
    except NotWritten as error:
        paths = error.written
        raise
    finally:  # print the results even if they could not be written
        if not command.with_page and report.page_path.exists():
            problems.append(f"'{report.page_path}' is from an earlier report and was not changed")
        print_rows(report.rows, paths, problems, command.as_json, view, side)


def _short_names(folders: Sequence[Path]) -> tuple[str, str]:
    """Return the last parts of two paths, or the whole paths if their last parts are equal."""
    a, b = (folder.resolve() for folder in folders)
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def print_rows(
    rows: Sequence[Row],
    paths: Sequence[Path],
    problems: Sequence[str],
    as_json: bool,
    view: View = STANDARD,
    side: FolderComparison | None = None,
) -> None:
    """Print the table of runs with its notes, and the files written, or everything as JSON."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if as_json:
        more = {"side_by_side": side.as_json()} if side else {}
        print_json({**rows_as_json(rows), "problems": list(problems), **more})
        return
    if side:
        for table in side.tables:
            print(as_text(table, "terminal"))
        for sentence in side.sentences:
            print(sentence)
        print()
    print(runs_text(rows, "terminal", view.columns))
    for line in [*reasons(rows), *footnotes(rows)]:
        print(line)
    if paths:
        print("written: " + ", ".join(str(p) for p in paths), file=sys.stderr)
