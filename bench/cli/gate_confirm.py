"""``gate --baseline NAME --confirm``: rebuild the baseline's environment, then run A against B."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.cli.gate_compare import BUDGET, comparison_setup, run_comparison
from bench.cli.options import GateOptions, duration_s
from bench.cli.output import tell
from bench.cli.speed_suite import measuring_place, parse_target
from bench.errors import UserError
from bench.gate.environments import rebuilt
from bench.gate.sides import Side, file_of_commit, revision_folder, source_paths
from bench.speed.baseline import Baseline
from bench.speed.software import software_of
from bench.storage.checksums import sha256_of_file
from bench.system import project_root
from bench.workers.process import Interpreters


def confirm_command(options: GateOptions, before: Baseline) -> bool:
    """Compare the baseline's environment and code, rebuilt, with those of now.

    Raises:
        UserError: The baseline's environment or code cannot be rebuilt.
    """
    tell(f"'{before.name}' makes a slowdown suspicious; rebuilding what it ran on")
    place = measuring_place(options.python, before.device)
    chosen = {
        name: rebuilt(software, place.cache, tell) for name, software in before.software.items()
    }
    old = replace(place, interpreters=Interpreters({**place.interpreters.chosen, **chosen}))
    name, software = next(iter(before.software.items()))
    commit: str | None = None
    if software_of(name, place).code != software.code:
        commit = before.thawbench_commit
        if commit is None:
            raise UserError(
                f"Baseline '{before.name}' does not record a commit of Thawbench, so its code "
                "cannot be rebuilt.",
                "Compare two environments: run_bench.py gate --ab OLD_PYTHON NEW_PYTHON",
            )
        code = revision_folder(project_root(), commit, place.cache)
        old = replace(old, site=replace(old.site, root=code))
    target, then = parse_target(options.target), None
    if target is not None:
        folder, then = file_of_commit(target.file, before.commit, place.cache)
        _check_target(before, then)
        old = replace(old, site=replace(old.site, paths=source_paths(folder)))
    a = Side("interpreter", f"baseline {before.name}", old, then, commit)
    b = Side("interpreter", "now", place, target and target.file)
    with_suite = options if target is not None else replace(options, suite=before.suite)
    setup = comparison_setup(with_suite, (a, b), target, list(before.software))
    return run_comparison(options, setup, duration_s("--budget", options.budget or BUDGET))


def _check_target(before: Baseline, then: Path) -> None:
    """Raise UserError if a user's own step was not the file of the commit when it was measured, and
    say so if other files may have been changed."""
    if before.target_sha256 not in (None, sha256_of_file(then)):
        raise UserError(
            f"Baseline '{before.name}' was measured with changes to '{then.name}' that commit "
            f"{before.commit[:12]} does not have, so its code cannot be rebuilt.",
            "Compare two revisions: run_bench.py gate --ab OLD NEW --target FILE.py:FUNCTION",
        )
    if before.has_changes:
        tell(f"'{before.name}' was measured beside changes that its commit does not have")
