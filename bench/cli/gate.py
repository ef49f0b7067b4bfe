"""``gate``: tell whether training became slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.cli.gate_compare import comparison_setup, print_answer, run_comparison
from bench.cli.gate_confirm import confirm_command
from bench.cli.gate_progress import end_line
from bench.cli.options import GateOptions, duration_s, interpreters, names
from bench.cli.speed_suite import (
    check_suite,
    kept_launches,
    launch_watch,
    one_device,
    parse_target,
    software_by_backend,
    timed_cases,
    wanted_backends,
)
from bench.errors import UserError, choose
from bench.gate.baseline import compare_baselines
from bench.gate.design import plan_for
from bench.gate.journal import read_launches, read_question
from bench.gate.run import result_of
from bench.gate.sides import (
    compared_sides,
    setting_sides,
)
from bench.report.gate.formats import FORMATS
from bench.report.gate.words import (
    BASELINE_HEADINGS,
    HEADINGS,
    baseline_sentences,
    gate_sentences,
)
from bench.speed.baseline import Baseline, load_baseline, new_baseline
from bench.speed.launch import Place
from bench.speed.measure import measure_suite
from bench.storage.cache import cache_root

LEAST_MARGIN, MOST_MARGIN = 0.001, 1.0
WAYS = "Compare one of: --ab A B, --ab-env NAME=A,B, --baseline NAME, --stored FOLDER."


def gate_command(options: GateOptions) -> bool:
    """Compare, print the answer, and return False if the exit code shall be 1."""
    if options.what:
        choose("word after `gate`", options.what, ("calibrate",))
        from bench.cli.gate_calibrate import calibrate_command

        return calibrate_command(options)
    for name in names(options.formats) or ():
        choose("format", name, FORMATS)
    if not LEAST_MARGIN <= options.max_slowdown <= MOST_MARGIN:
        raise UserError(
            f"--max-slowdown {options.max_slowdown:g} is no fraction between {LEAST_MARGIN} and "
            f"{MOST_MARGIN:g}.",
            "Write 0.03 for 3 %.",
        )
    given = {
        "--ab": options.ab,
        "--ab-env": options.ab_env,
        "--baseline": options.baseline,
        "--stored": options.stored,
    }
    chosen = [flag for flag, value in given.items() if value]
    if len(chosen) != 1:
        what = "Nothing to compare" if not chosen else f"{' and '.join(chosen)} exclude each other"
        raise UserError(f"{what}.", WAYS)
    if options.baseline:
        return _against_baseline(options)
    if options.stored:
        return _stored(options, options.stored)
    return _ab(options)


def _ab(options: GateOptions) -> bool:
    """Compare two sides that are launched now."""
    budget_s = duration_s("--budget", options.budget)
    target = parse_target(options.target)
    python = interpreters(options.python)
    place = Place(python, cache_root(), one_device(options.device, python))
    if options.ab_env:
        sides = setting_sides(options.ab_env, place)
    else:
        assert options.ab is not None
        sides = compared_sides(options.ab, place, target and target.file)
    setup = comparison_setup(options, sides, target, wanted_backends(options.backends, target))
    return run_comparison(options, setup, budget_s)


def _stored(options: GateOptions, folder: Path) -> bool:
    """Decide again from the launches of a folder."""
    question = read_question(folder)
    plan = plan_for(options.max_slowdown, 1, None)
    plan = replace(plan, looks=tuple(question.get("looks", plan.looks)))
    launches = read_launches(folder)
    if not launches:
        raise UserError(f"'{folder}' holds no launches.", "Compare first: run_bench.py gate --ab …")
    sides = question.get("sides", ["A", "B"])
    result = result_of(
        launches, plan, (str(sides[0]), str(sides[1])), bool(question.get("together", True)),
        question.get("intended", ()),
    )  # fmt: skip
    result = result.model_copy(update={"differs": question.get("differs", {})})
    return print_answer(options, result, gate_sentences(result), HEADINGS, folder)


def _against_baseline(options: GateOptions) -> bool:
    """Compare launches of now, or a second stored baseline, with a stored one."""
    assert options.baseline is not None
    before = load_baseline(options.baselines, options.baseline)
    if options.against is not None:
        now = load_baseline(options.baselines, options.against)
    else:
        now = _measure_like(before, options)
    result = compare_baselines(before, now, options.max_slowdown)
    if result.is_suspicious and options.confirm:
        return confirm_command(options, before)
    sentences = baseline_sentences(result, before.name)
    is_good = print_answer(options, result, sentences, BASELINE_HEADINGS, options.out)
    return is_good and not (result.is_suspicious and options.strict)


def _measure_like(before: Baseline, options: GateOptions) -> Baseline:
    """Measure the suite of a baseline now."""
    python = interpreters(options.python)
    target = parse_target(options.target)
    if (before.suite == "own step") != (target is not None):
        raise UserError(
            f"Baseline '{before.name}' is of the suite '{before.suite}'.",
            "Name the same step with --target."
            if before.suite == "own step"
            else "Leave out --target.",
        )
    device = before.device if options.device == "auto" else options.device
    place = Place(python, cache_root(), one_device(device, python))
    wanted = None if target is not None else list(before.software)
    software = software_by_backend(wanted, target, place)
    suite = before.suite if target is not None else check_suite(before.suite)
    cases = timed_cases(suite, list(software), target, place, details=True)
    each = [sum(one.backend == backend for one in before.launches) for backend in before.software]
    kept = kept_launches(options.baselines, f"after-{before.name}", suite, software, cases)
    try:
        found = measure_suite(cases, place, options.launches or max(each), kept, launch_watch())
    finally:
        end_line()
    kept.remove()
    return new_baseline("now", suite, place.device, cases, software, found)
