"""``run``: plan a suite, do the missing runs, write tables and report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.analysis.folders import load_runs
from bench.cli.output import RESULTS, print_json
from bench.cli.progress import display, label
from bench.cli.report import print_rows
from bench.errors import UserError
from bench.report import make_report
from bench.report.export import NotWritten
from bench.runner.devices import check_gpu_visible
from bench.runner.planner import PlannedRun, Planner
from bench.runner.runner import Runner
from bench.runner.suite import Options, apply_options, load_suite, options_suite
from bench.storage.results import Store
from bench.workers.process import Interpreters


@dataclass(frozen=True)
class RunCommand:
    """The options of ``run``."""

    suite: str | None
    """Name or file; None: the grid consists of the options alone."""
    options: Options
    """Options that narrow or override the suite."""
    weights: dict[str, str]
    """Backbone, or '' for all → 'pretrained', 'random' or a path."""
    device: str
    """auto, cpu, cuda:N or all."""
    timeout_s: float | None
    """Time limit of a run."""
    fresh: bool
    """True to repeat runs that have results."""
    dry_run: bool
    """True to list the runs without doing them."""
    skip_unreadable: bool
    """True to leave out images that cannot be read."""
    out: Path | None
    """Results folder; None: results/runs/SUITE."""
    interpreters: Interpreters
    as_json: bool
    """True to print JSON instead of the table."""


def run_command(command: RunCommand) -> bool:
    """Plan, do the missing runs, report; return True if every run is ok.

    Raises:
        UserError, Unavailable: See ``Planner.plan`` and ``Runner.run_all``.
    """
    base = load_suite(command.suite) if command.suite else options_suite(command.options)
    suite = apply_options(base, command.options)
    planner = Planner(
        command.interpreters,
        command.weights,
        command.device,
        command.skip_unreadable,
        download=not command.dry_run,
    )
    runs = planner.plan(suite)
    for reason in planner.skipped():
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
    check_gpu_visible(command.device, missing, command.interpreters)
    store.prepare()
    if len(missing) < len(runs):
        done = f"{len(runs) - len(missing)} of {len(runs)} runs have results already"
        print(f"{done}; --fresh repeats them", file=sys.stderr)
    if missing:
        progress = display([r.spec for r in missing])
        progress.note(f"{len(missing)} of {len(runs)} runs to do, results in {store.root}")
        elsewhere = sum(store.has_other_environment(r.spec.run_id) for r in missing)
        if elsewhere and not command.fresh:
            progress.note(
                f"{elsewhere} of them have results from another environment (versions, machine or "
                "Thawbench's own code): those are kept, but do not replace these runs"
            )
        runner = Runner(store, planner.cache, command.interpreters, command.timeout_s)
        try:
            runner.run_all(missing, progress)
        finally:
            progress.close()
    stored, problems = load_runs([store.root], keys)
    report = make_report(stored, store.root, problems)
    rows = [row for row in report.rows if row.key in keys]
    paths: list[Path] = []
    try:
        paths = report.write(("md", "csv"))
    except NotWritten as error:
        paths = error.written
        raise
    finally:  # if writing failed, the terminal still shows the results
        print_rows(rows, paths, problems, command.as_json)
    return len(rows) == len(runs) and all(row.is_ok for row in rows)


def _check_images(out: Path, datasets: Sequence[str]) -> None:
    """Raise UserError if the results folder lies among images, where its folders would be taken for
    classes."""
    for name in datasets:
        kind, colon, path = name.partition(":")
        if colon and out.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(
                f"Results folder '{out}' lies in the folder of {kind}:{path}: results there would "
                "be taken for classes.",
                "Name another folder with --out.",
            )


def _print_dry_run(
    runs: Sequence[PlannedRun], missing: Sequence[PlannedRun], as_json: bool
) -> None:
    """List the runs. Problems that only a worker finds, such as a network that cannot be exported
    or an image that cannot be read, are not known yet."""
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
        print(f"unavailable: {reason}")
    print(f"{len(missing)} of {len(runs)} runs to do", file=sys.stderr)


def _state(run: dict[str, Any]) -> str:
    if not run["missing"]:
        return "done"
    return "to do, but unavailable" if run["unavailable"] else "to do"
