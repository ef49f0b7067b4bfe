"""``run``: plan a suite, do the missing runs, write tables and report."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from bench.analysis.folders import load_runs
from bench.cli.options import DEFAULT_SUITE, RunOptions, file_rules, interpreters, run_choices
from bench.cli.output import show, tell
from bench.cli.progress import display, labels, summary, watcher
from bench.cli.report import write_and_print
from bench.data import FileRules, has_path
from bench.data.image_files import MOST_NAMED
from bench.errors import UserError
from bench.network.backbones import weights_choice
from bench.report import make_report
from bench.runner.devices import check_gpu_visible
from bench.runner.planner import PlannedRun, Planner
from bench.runner.prove import prove_first
from bench.runner.runner import Runner
from bench.runner.suite import apply_options, load_suite, number_of_runs, options_suite
from bench.storage.cache import limit_bytes
from bench.storage.results import Store
from bench.storage.text_files import json_text
from bench.system import other_work
from bench.system.gpu import occupied

MOST_RUNS = 10_000
"""Largest number of runs that are planned without ``--yes``."""
BUSY_SHARE = 0.15
"""Share of the cores in use by other processes from which on a user is warned."""
RESULTS = Path("results") / "runs"
"""Folder of the results of all suites, unless ``--out`` names another one."""


def run_command(given: RunOptions) -> bool:
    """Plan, do the missing runs, report; return True if every run is ok. Raise what
    ``Planner.plan`` and ``Runner.run_all`` raise."""
    options = run_choices(given.shared)
    limit_bytes()  # a wrong size of the cache is said before any work
    if given.timeout is not None and not 0 < given.timeout <= threading.TIMEOUT_MAX:
        raise UserError(
            f"--timeout {given.timeout:g}: a time limit must be above 0 seconds and at most "
            f"{threading.TIMEOUT_MAX:.0f}."
        )
    weights = dict(weights_choice(choice) for choice in given.weights or ())
    python = interpreters(given.python)
    if given.timeout is not None:
        python = replace(python, own_code_s=given.timeout)
    # Without a suite, the grid consists of the options alone.
    name = given.suite if given.suite is not None or options["datasets"] else DEFAULT_SUITE
    suite = apply_options(load_suite(name) if name else options_suite(options), options)
    count = number_of_runs(suite)
    if count > MOST_RUNS and not given.yes:
        raise UserError(
            f"These are {count:,} runs, before devices are counted.",
            f"Narrow the lists, or plan more than {MOST_RUNS:,} runs with --yes.",
        )
    fold = None if given.folds is None else (1, given.folds)
    rules = replace(file_rules(given), fold=fold)
    _check_rules(rules, [grid.dataset for grid in suite.grid])
    planner = Planner(
        python, weights, given.device, file_rules(given), download=not given.dry_run,
        folds=given.folds,
    )  # fmt: skip
    runs = planner.plan(suite)
    skipped = planner.skipped()
    for reason in skipped[:MOST_NAMED]:
        tell(f"left out: {reason}")
    if len(skipped) > MOST_NAMED:
        tell(f"left out: {len(skipped) - MOST_NAMED:,} more files")
    for remark in planner.remarks():
        tell(remark)
    store = Store(given.out or RESULTS / suite.name)
    _check_images(store.root, [grid.dataset for grid in suite.grid])
    if not given.dry_run:
        store.discard_partials()  # puts back what a killed --fresh was replacing
    missing = [run for run in runs if given.fresh or store.is_missing(*run.key)]
    if given.dry_run:
        _print_dry_run(runs, missing, given.as_json)
        return True
    startable = [run.spec for run in missing if run.unavailable is None]
    check_gpu_visible(given.device, startable, python)
    store.prepare()
    proofs = prove_first(runs, python, planner.cache, watcher) if given.prove else []
    for pair in proofs:
        if not pair.passed:
            tell(f"NOT PROVED: {summary(pair)}")
    if len(missing) < len(runs):
        done = f"{len(runs) - len(missing)} of {len(runs)} runs have results already"
        tell(f"{done}; --fresh repeats them")
    if missing:
        progress = display([run.spec for run in missing])
        progress.note(f"{len(missing)} of {len(runs)} runs to do, results in {store.root}")
        if (work := other_work()) is not None and work.others > BUSY_SHARE:
            progress.note(
                f"other processes use {work.others:.0%} of the cores: speeds will be too low; end "
                "them, or repeat these runs later with --fresh"
            )
        for device in sorted({run.spec.device for run in missing} - {"cpu"}):
            if problem := occupied(int(device.removeprefix("cuda:"))):
                progress.note(
                    f"{device}: {problem}: speeds may be too low, and memory may be short"
                )
        elsewhere = sum(store.has_other_environment(run.spec.run_id) for run in missing)
        if elsewhere and not given.fresh:
            progress.note(
                f"{elsewhere} of them have results from another environment (versions, machine or "
                "Thawbench's own code): those are kept, but do not replace these runs"
            )
        try:
            Runner(store, planner.cache, python, given.timeout).run_all(missing, progress)
        finally:
            progress.close()
    keys = {run.key for run in runs}
    stored, problems = load_runs([store.root], keys)
    report = make_report(stored, store.root, problems)
    rows = [row for row in report.rows if row.key in keys]
    write_and_print(report, rows, ("md", "csv"), problems, given.as_json)
    is_valid = len(rows) == len(runs) and all(row.is_valid for row in rows)
    return is_valid and all(pair.passed for pair in proofs)


def _check_rules(rules: FileRules, datasets: Sequence[str]) -> None:
    """Raise UserError for options about a user's own files where there are none."""
    if rules.options() and not any(map(has_path, datasets)):
        raise UserError(
            f"{rules.options()[0]} is about images of your own, and these runs use "
            f"{', '.join(sorted(set(datasets)))}.",
            "Leave it out, or name a folder: --datasets folder:PATH.",
        )
    for option in rules.options():
        others = [name for name in datasets if not name.startswith("folder:")]
        if others and option.startswith(("--folds", "--group-by")):
            raise UserError(
                f"{option} is about folder:PATH, and these runs use "
                f"{', '.join(sorted(set(others)))}, too.",
                "Run the folder alone: --datasets folder:PATH.",
            )


def _check_images(out: Path, datasets: Sequence[str]) -> None:
    """Raise UserError if the results folder lies among images, where its folders would be taken for
    classes."""
    for name in datasets:
        kind, _, path = name.partition(":")
        if has_path(name) and out.resolve().is_relative_to(
            Path(os.path.expanduser(path)).resolve()
        ):
            raise UserError(
                f"Results folder '{out}' lies in the folder of {kind}:{path}: results there would "
                "be taken for classes.",
                "Name another folder with --out.",
            )


def _print_dry_run(runs: list[PlannedRun], missing: list[PlannedRun], as_json: bool) -> None:
    """List the runs. Problems that only a worker finds, such as a network that cannot be exported
    or an image that cannot be read, are not known yet."""
    absent, words = {run.key for run in missing}, labels([run.spec for run in runs])
    if as_json:
        listed = [
            {
                "run_id": run.spec.run_id,
                "run": words[run.spec.run_id],
                "missing": run.key in absent,
                "unavailable": run.unavailable,
            }
            for run in runs
        ]
        show(json_text({"runs": listed}))
        return
    to_do = {True: "to do, but unavailable", False: "to do"}
    states = [to_do[bool(r.unavailable)] if r.key in absent else "done" for r in runs]
    rows = [(r.spec.run_id, words[r.spec.run_id], s) for r, s in zip(runs, states, strict=True)]
    show(tabulate(rows, headers=["run id", "run", "state"], disable_numparse=True))
    for reason in dict.fromkeys(r.unavailable for r in missing if r.unavailable):
        show(f"unavailable: {reason}")
    tell(f"{len(missing)} of {len(runs)} runs to do")
    tell("images, weights files and the device are opened by the run itself, not by --dry-run")
