"""What ``run`` and ``report`` do, apart from reading the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tabulate import tabulate

from bench.cli import RESULTS, print_json
from bench.devices import check_seen
from bench.errors import UserError, choose
from bench.launch import Interpreters
from bench.prepare import PlannedRun, Preparation
from bench.progress import display, label
from bench.report import STANDARD, View, load_runs, make_report
from bench.report import as_json as rows_as_json
from bench.report.filters import Filters, Selection
from bench.report.folders import check_apart, check_full, outstanding, together
from bench.report.notes import footnotes, reasons
from bench.report.side_by_side import SideBySide, side_by_side
from bench.report.tables import FORMATS, Format, runs_text
from bench.report.twins import Row
from bench.report.write import NotWritten, as_text
from bench.runner import Runner
from bench.store import Store
from bench.suite import Options, apply_options, load_suite, options_suite


@dataclass(frozen=True)
class RunCommand:
    """``run`` with its options."""

    suite: str | None
    """Name or file; None for the grid of just the options."""
    options: Options
    """That narrow or override it."""
    weights: dict[str, str]
    """Backbone, or '' for all → pretrained, random or a path."""
    device: str
    """As given."""
    timeout_s: float | None
    """For one run."""
    fresh: bool
    """Run again what is there."""
    dry_run: bool
    """Only list."""
    skip_unreadable: bool
    """Leave out images that cannot be read."""
    out: Path | None
    """Results folder."""
    interpreters: Interpreters
    """Which Python runs which backend."""
    as_json: bool
    """Print JSON instead of the table."""


def run_command(command: RunCommand) -> bool:
    """Plan, run what is missing, report; returns whether every run is ok.

    Raises:
        UserError, Unavailable: See ``Preparation.plan`` and ``Runner.run_all``.
    """
    base = load_suite(command.suite) if command.suite else options_suite(command.options)
    suite = apply_options(base, command.options)
    preparation = Preparation(
        command.interpreters,
        command.weights,
        command.device,
        command.skip_unreadable,
        download=not command.dry_run,
    )
    runs = preparation.plan(suite)
    for reason in preparation.skipped():
        print(f"left out: {reason}", file=sys.stderr)
    store = Store(command.out or RESULTS / suite.name)
    _check_images(store.root, [grid.dataset for grid in suite.grid])
    keys = {(r.spec.run_id, r.environment.environment_id) for r in runs}
    missing = [
        r
        for r in runs
        if command.fresh or store.is_missing(r.spec.run_id, r.environment.environment_id)
    ]
    if command.dry_run:
        _print_dry_run(runs, missing, command.as_json)
        return True
    check_seen(command.device, missing, command.interpreters)
    store.prepare()
    if len(missing) < len(runs):
        there = f"{len(runs) - len(missing)} of {len(runs)} runs are there already"
        print(f"{there}; --fresh runs them again", file=sys.stderr)
    if missing:
        progress = display([r.spec for r in missing])
        progress.note(f"{len(missing)} of {len(runs)} runs to do, results in {store.root}")
        elsewhere = sum(store.has_other_environment(r.spec.run_id) for r in missing)
        if elsewhere and not command.fresh:
            progress.note(
                f"{elsewhere} of them have results from another environment (versions, machine or "
                "Thawbench's own code): those are kept, and do not stand for these"
            )
        runner = Runner(store, preparation.cache, command.interpreters, command.timeout_s)
        try:
            runner.run_all(missing, progress)
        finally:
            progress.close()
    stored, problems = load_runs([store.root], keys)
    report = make_report(stored, store.root, problems)
    rows = [row for row in report.rows if (row["run_id"], row["environment_id"]) in keys]
    paths: list[Path] = []
    try:
        paths = report.write(("md", "csv"))
    except NotWritten as error:
        paths = error.written
        raise
    finally:  # what cannot be written can still be read here
        _print_rows(rows, paths, problems, command.as_json)
    return len(rows) == len(runs) and all(row["status"] == "ok" for row in rows)


def _check_images(out: Path, datasets: Sequence[str]) -> None:
    """Results are never written among images: their folders would be taken for classes.

    Raises:
        UserError: They would be.
    """
    for name in datasets:
        kind, colon, path = name.partition(":")
        if colon and out.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(
                f"'{out}' lies in the folder of {kind}:{path}: results there would be taken for "
                "classes.",
                "Name another folder with --out.",
            )


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
        check_apart(folders)
    check_full(folders, found)
    everything, problems = together(folders, found)
    selection = Selection(command.filters, [run for runs, _ in found for run in runs])
    runs = selection.kept(everything)
    if told := command.filters.told():
        told = f"Selected from {len(everything)} runs by {told}."
        view = replace(view, selection=" ".join([told, *selection.absent]))
        print(view.selection, file=sys.stderr)
    if len(folders) == 2:
        first, second = (outstanding(runs) for runs, _ in found)
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
        _print_rows(report.rows, paths, problems, command.as_json, view, side)


def _short_names(folders: Sequence[Path]) -> tuple[str, str]:
    """Of two folders: their last parts, or the whole paths where these are alike."""
    a, b = (folder.resolve() for folder in folders)
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _print_dry_run(
    runs: Sequence[PlannedRun], missing: Sequence[PlannedRun], as_json: bool
) -> None:
    """What would be done; what only a worker finds out (a network that cannot be rebuilt, an image
    that cannot be read) is not known yet."""
    absent = {(r.spec.run_id, r.environment.environment_id) for r in missing}
    listed = [
        {
            "run_id": run.spec.run_id,
            "run": label(run.spec),
            "missing": (run.spec.run_id, run.environment.environment_id) in absent,
            "unavailable": run.unavailable,
        }
        for run in runs
    ]
    if as_json:
        print_json({"runs": listed})
        return
    rows = [(run["run_id"], run["run"], _state(run)) for run in listed]
    print(tabulate(rows, headers=["run", "", ""], disable_numparse=True))
    for reason in dict.fromkeys(r.unavailable for r in missing if r.unavailable):
        print(f"not here: {reason}")
    print(f"{len(missing)} of {len(runs)} runs to do", file=sys.stderr)


def _state(run: dict[str, Any]) -> str:
    if not run["missing"]:
        return "there"
    return "to do; not all is here" if run["unavailable"] else "to do"


def _print_rows(
    rows: Sequence[Row],
    paths: Sequence[Path],
    problems: Sequence[str],
    as_json: bool,
    view: View = STANDARD,
    side: SideBySide | None = None,
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
