"""bench.cli.report."""

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
    """``report`` with its options."""

    folders: Sequence[Path]
    """Results folders; of two, the second is what became of the first."""
    formats: Sequence[str]
    """Of the tables."""
    filters: Filters
    """Which runs."""
    view: View
    """Columns and order of the table of runs."""
    as_json: bool
    """Print JSON instead of the table."""
    with_page: bool = True
    """Write the page too."""
    out: Path | None = None
    """Folder to write into; None: the first one."""


def report_command(command: ReportCommand) -> None:
    """Tables and page of results folders; of two folders, what differs between them besides.

    Raises:
        UserError: No results, an unknown format, name or column, or a folder that cannot be
            written.
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
    if told := command.filters.told():
        told = f"Selected from {len(everything)} runs by {told}."
        view = replace(view, selection=" ".join([told, *selection.absent]))
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
                f"'{command.out}' cannot be made a folder: {error.strerror}.",
                "Name another one with --out.",
            ) from error
        report = replace(report, folder=command.out)
    paths: list[Path] = []
    try:
        paths = report.write(cast(Sequence[Format], command.formats))
    except NotWritten as error:
        paths = error.written
        raise
    finally:  # what cannot be written can still be read here
        if not command.with_page and (report.folder / "report.html").exists():
            problems.append("report.html there was left as it was: it is of an earlier report")
        print_rows(report.rows, paths, problems, command.as_json, view, side)


def _short_names(folders: Sequence[Path]) -> tuple[str, str]:
    """Of two folders: their last parts, or the whole paths where these are alike."""
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
