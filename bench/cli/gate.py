"""``gate``: tell whether training became slower."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.cli.gate_calibrate import calibrate_command
from bench.cli.gate_compare import (
    BUDGET,
    FOLDER,
    MARGIN,
    comparison_setup,
    margin_of,
    print_answer,
    run_comparison,
)
from bench.cli.gate_confirm import confirm_command
from bench.cli.gate_progress import end_line
from bench.cli.options import GateOptions, duration_s, names
from bench.cli.speed_suite import (
    is_own,
    kept_launches,
    launch_watch,
    measuring_place,
    parse_target,
    software_by_backend,
    suite_name,
    timed_cases,
    wanted_backends,
)
from bench.errors import Unavailable, UserError, choose
from bench.gate.baseline import (
    LEAST_LAUNCHES,
    check_comparable,
    check_launches,
    check_machine,
    check_shapes,
    compare_baselines,
)
from bench.gate.circumstances import knob_differences
from bench.gate.design import LOOKS, Plan
from bench.gate.journal import read_launches, read_question
from bench.gate.run import read_result, result_of
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
from bench.speed.measure import measure_suite

USAGE_ERROR = 2
WAYS = "Compare one of: --ab A B, --ab-env NAME=A,B, --baseline NAME, --stored FOLDER."


def gate_command(options: GateOptions) -> bool:
    """Compare, print the answer, and return False if the exit code shall be 1, which means slower:
    an error of any kind ends with 2."""
    try:
        return _gate(options)
    except Exception as error:
        error.exit_code = USAGE_ERROR  # type: ignore[attr-defined]
        raise


def _gate(options: GateOptions) -> bool:
    for name in names(options.formats) or ():
        choose("format", name, FORMATS)
    margin_of(options)
    _check_idle(options)
    if options.what:
        choose("word after `gate`", options.what, ("calibrate",))
        return calibrate_command(options)
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


OWN_OPTIONS = {
    "calibrate": ("--suite", "--backends", "--target", "--max-slowdown", "--budget", "--fresh",
                  "--turns"),
    "--ab": ("--suite", "--backends", "--target", "--max-slowdown", "--budget", "--fresh",
             "--blocks", "--turns", "--strict", "--format"),
    "--baseline": ("--target", "--max-slowdown", "--launches", "--against", "--strict", "--format",
                   "--confirm"),
    "--confirm": ("--budget", "--blocks", "--fresh", "--turns"),
    "--stored": ("--max-slowdown", "--strict", "--format"),
}  # fmt: skip
"""Way of comparing → the options that mean something to it, besides those of all."""


def _check_idle(options: GateOptions) -> None:
    """Raise UserError for options that have no effect, or exclude each other."""
    given = {
        "--suite": options.suite is not None,
        "--backends": options.backends is not None,
        "--target": options.target is not None,
        "--max-slowdown": options.max_slowdown is not None,
        "--budget": options.budget is not None,
        "--blocks": options.blocks is not None,
        "--launches": options.launches is not None,
        "--against": options.against is not None,
        "--turns": options.turns,
        "--strict": options.strict,
        "--confirm": options.confirm,
        "--fresh": options.fresh,
        "--format": options.formats is not None,
    }
    way = options.what
    if not way:
        way = "--baseline" if options.baseline else "--stored" if options.stored else "--ab"
    known = {*OWN_OPTIONS.get(way, given), *(OWN_OPTIONS["--confirm"] if options.confirm else ())}
    idle = [flag for flag, is_given in given.items() if is_given and flag not in known]
    if idle:
        raise UserError(f"{', '.join(idle)} has no effect here.", "See run_bench.py gate --help.")
    if options.against is not None and options.confirm:
        raise UserError(
            "--against and --confirm exclude each other: --confirm compares with what is "
            "installed now.",
            "Leave out --against, or compare two environments with --ab A B.",
        )


def _ab(options: GateOptions) -> bool:
    """Compare two sides that are launched now."""
    budget_s = duration_s("--budget", options.budget or BUDGET)
    target = parse_target(options.target)
    place = measuring_place(options.python, options.device)
    if options.ab_env:
        sides = setting_sides(options.ab_env, place, target and target.file)
    else:
        assert options.ab is not None
        sides = compared_sides(options.ab, place, target and target.file)
    setup = comparison_setup(options, sides, target, wanted_backends(options.backends, target))
    return run_comparison(options, setup, budget_s)


def _stored(options: GateOptions, folder: Path) -> bool:
    """Decide again from the launches of a folder."""
    question = read_question(folder)
    margin = question.get("margin", MARGIN)
    if options.max_slowdown is not None:
        margin = margin_of(options)
    plan = Plan(margin, tuple(question.get("looks", LOOKS)))
    launches = read_launches(folder)
    if not launches:
        raise UserError(f"'{folder}' holds no launches.", "Compare first: run_bench.py gate --ab …")
    sides = question.get("sides", ["A", "B"])
    result = result_of(
        launches, plan, (str(sides[0]), str(sides[1])), bool(question.get("together", True)),
        question.get("intended", ()),
    )  # fmt: skip
    changes: dict[str, object] = {
        "differs": {**question.get("differs", {}), **knob_differences(launches)}
    }
    before = read_result(folder)
    if before is not None:  # what the launches alone do not show
        changes["causes"] = before.causes
        if before.margin == margin:
            changes["false_alarm_rate"] = before.false_alarm_rate
    result = result.model_copy(update=changes)
    return print_answer(options, result, gate_sentences(result), HEADINGS, folder)


def _against_baseline(options: GateOptions) -> bool:
    """Compare launches of now, or a second stored baseline, with a stored one."""
    assert options.baseline is not None
    before = load_baseline(options.baselines, options.baseline)
    check_launches(before)
    if options.against is not None:
        now = load_baseline(options.baselines, options.against)
    else:
        now = _measure_like(before, options)
    result = compare_baselines(before, now, margin_of(options))
    sentences = baseline_sentences(result, before.name)
    if result.is_suspicious and options.confirm:
        try:
            return confirm_command(options, before)
        except (UserError, Unavailable) as error:
            sentences.append(f"It could not be confirmed: {error}")
    folder = options.out or FOLDER / f"baseline-{before.name}"
    return print_answer(options, result, sentences, BASELINE_HEADINGS, folder)


def _measure_like(before: Baseline, options: GateOptions) -> Baseline:
    """Measure the suite of a baseline now."""
    target = parse_target(options.target)
    if is_own(before.suite) != (target is not None):
        mend = "Leave out --target." if target is not None else "Name the step with --target."
        raise UserError(f"Baseline '{before.name}' is of '{before.suite}'.", mend)
    device = before.device if options.device == "auto" else options.device
    place = measuring_place(options.python, device)
    wanted = None if target is not None else list(before.software)
    software = software_by_backend(wanted, target, place)
    suite = suite_name(before.suite, target)
    check_machine(before, software)
    cases = timed_cases(suite, list(software), target, place, details=True)
    check_shapes(before, {case.name: case.shape for case in cases})
    each = Counter((one.backend, one.precision) for one in before.launches)
    if options.launches is not None and options.launches < LEAST_LAUNCHES:
        raise UserError(
            f"--launches {options.launches}: the spread between launches needs {LEAST_LAUNCHES}.",
            f"Use --launches {max(each.values())}, as the baseline has.",
        )
    kept = kept_launches(options.baselines, f"after-{before.name}", suite, software, cases)
    try:
        found = measure_suite(
            cases, place, options.launches or max(each.values()), kept, launch_watch()
        )
    finally:
        end_line()
    now = new_baseline("now", suite, place.device, cases, software, found)
    check_comparable(before, now)
    kept.remove()
    return now
