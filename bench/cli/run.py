"""What ``run`` and ``report`` do, apart from reading the command line."""

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
from bench.runner.devices import check_seen
from bench.runner.planner import PlannedRun, Preparation
from bench.runner.runner import Runner
from bench.runner.suite import Options, apply_options, load_suite, options_suite
from bench.storage.results import Store
from bench.workers.process import Interpreters


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
    rows = [row for row in report.rows if row.key in keys]
    paths: list[Path] = []
    try:
        paths = report.write(("md", "csv"))
    except NotWritten as error:
        paths = error.written
        raise
    finally:  # what cannot be written can still be read here
        print_rows(rows, paths, problems, command.as_json)
    return len(rows) == len(runs) and all(row.is_ok for row in rows)


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
