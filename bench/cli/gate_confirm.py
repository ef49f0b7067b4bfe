"""``gate --baseline NAME --confirm``: rebuild the baseline's environment, then run A against B."""

from __future__ import annotations

from dataclasses import replace

from bench.cli.gate_compare import Setup, comparison_setup, run_comparison
from bench.cli.options import GateOptions, duration_s, interpreters
from bench.cli.output import tell
from bench.cli.speed_suite import Target, one_device, parse_target
from bench.gate.environments import rebuilt
from bench.gate.sides import Side, revision_folder
from bench.speed.baseline import Baseline
from bench.speed.launch import Place, software_of
from bench.storage.cache import cache_root
from bench.system import project_root
from bench.workers.process import Interpreters


def confirm_command(options: GateOptions, before: Baseline) -> bool:
    """Compare the baseline's environment and code, rebuilt, with those of now.

    Raises:
        UserError: The environment or the code of then cannot be had.
    """
    tell(f"'{before.name}' makes a slowdown suspicious; rebuilding what it ran on")
    python = interpreters(options.python)
    place = Place(python, cache_root(), one_device(before.device, python))
    chosen = {
        name: rebuilt(software, place.cache, tell) for name, software in before.software.items()
    }
    old = replace(place, interpreters=Interpreters({**python.chosen, **chosen}))
    name, software = next(iter(before.software.items()))
    commit = None
    if software_of(name, place).code != software.code:
        code = revision_folder(project_root(), before.commit, place.cache)
        old, commit = replace(old, site=replace(old.site, root=code)), before.commit
    a = Side("interpreter", f"baseline {before.name}", old, commit=commit)
    b = Side("interpreter", "now", place)
    target: Target | None = parse_target(options.target)
    with_suite = options if target is not None else replace(options, suite=before.suite)
    setup: Setup = comparison_setup(with_suite, (a, b), target, list(before.software))
    return run_comparison(options, setup, duration_s("--budget", options.budget))
