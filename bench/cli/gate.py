"""``gate``: tell whether training became slower."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tabulate import tabulate

from bench.catalog.backends import DEFAULT_BACKENDS, OWN_STEP
from bench.cli.options import GateOptions, duration_s, interpreters, names
from bench.cli.output import show, tell
from bench.cli.run_clock import duration
from bench.cli.speed_suite import (
    Target,
    check_suite,
    end_watch,
    launch_watch,
    one_device,
    parse_target,
    software_by_backend,
    timed_cases,
    wanted_backends,
)
from bench.errors import UserError, choose
from bench.gate.baseline import compare_baselines
from bench.gate.circumstances import Differences, software_differences
from bench.gate.design import Arm, plan_for
from bench.gate.journal import Journal, question_folder, read_launches, read_question
from bench.gate.run import Arms, Comparison, GateResult, Progress, as_document, result_of
from bench.gate.sides import (
    Side,
    common_backends,
    compared_sides,
    null_side,
    setting_sides,
)
from bench.report.gate.formats import FORMATS, Answer
from bench.report.gate.words import (
    BASELINE_HEADINGS,
    HEADINGS,
    baseline_sentences,
    gate_sentences,
    rows_of,
)
from bench.speed.baseline import Baseline, load_baseline, new_baseline
from bench.speed.cases import TimedCase
from bench.speed.launch import Place, benchmark_names, lacking, software_of
from bench.speed.measure import measure_suite
from bench.storage.cache import cache_root
from bench.storage.text_files import json_text, replace_text
from bench.workers.tasks import Software

FOLDER = Path("results/gates")
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


@dataclass(frozen=True)
class Setup:
    """A comparison that is ready to run."""

    sides: tuple[Side, Side]
    software: tuple[dict[str, Software], dict[str, Software]]
    cases: dict[Arm, Sequence[TimedCase]]
    intended: list[str]
    """Environment variables that are meant to differ."""
    suite: str

    @property
    def differs(self) -> Differences:
        """What differs between the sides, the thing compared included."""
        a, b = self.sides
        found: Differences = {}
        if a.kind == "revision":
            found["commit"] = [a.commit, b.commit]
        for name in self.intended:
            found[name] = [side.place.variables.get(name) for side in self.sides]
        for backend in self.software[0]:
            pair = self.software[0][backend], self.software[1][backend]
            found |= software_differences(*pair)
        return found


def _ab(options: GateOptions) -> bool:
    """Compare two sides that are launched now."""
    budget_s = duration_s("--budget", options.budget)
    target = parse_target(options.target)
    python = interpreters(options.python)
    place = Place(python, cache_root(), one_device(options.device, python))
    if options.ab_env:
        sides = setting_sides(options.ab_env, place)
        sides = tuple(replace(side, target=target and target.file) for side in sides)
    else:
        assert options.ab is not None
        sides = compared_sides(options.ab, place, target and target.file)
    setup = _set_up(options, sides, target)
    return run_comparison(options, setup, budget_s)


def _set_up(options: GateOptions, sides: tuple[Side, Side], target: Target | None) -> Setup:
    """Find what both sides can run, and prepare their cases."""
    suite = check_suite(options.suite) if target is None else "own step"
    wanted = wanted_backends(options.backends, target)
    asked = [OWN_STEP] if target is not None else list(wanted or DEFAULT_BACKENDS)
    found = tuple({name: software_of(name, side.place) for name in asked} for side in sides)
    lacks = {
        name: {
            side.label: missing
            for side, own in zip(sides, found, strict=True)
            if (missing := lacking(name, own[name]))
        }
        for name in asked
    }
    backends, remarks = common_backends(wanted, lacks, asked)
    for remark in remarks:
        tell(remark)

    def cases_of(side: Side) -> list[TimedCase]:
        own = None if target is None else target._replace(file=side.target or target.file)
        place = replace(side.place, interpreters=interpreters(options.python))
        return timed_cases(suite, backends, own, place, details=False)

    a, b = (cases_of(side) for side in sides)
    intended = sorted({name for side in sides for name in side.place.variables})
    software = tuple({name: own[name] for name in backends} for own in found)
    return Setup(sides, (software[0], software[1]), {"A": a, "B": b, "N": a}, intended, suite)


def run_comparison(options: GateOptions, setup: Setup, budget_s: float) -> bool:
    """Collect launches and print the answer; see ``gate_command`` for the result."""
    a, b = setup.sides
    benchmarks = benchmark_names(setup.cases["A"])
    plan = plan_for(options.max_slowdown, len(benchmarks), options.blocks)
    question = {
        "sides": [a.label, b.label], "kind": a.kind, "commits": [a.commit, b.commit],
        "suite": setup.suite, "shapes": {case.name: case.shape for case in setup.cases["A"]},
        "device": a.place.device, "margin": plan.margin, "looks": list(plan.looks),
        "intended": setup.intended, "differs": setup.differs,
        "together": a.place.device == "cpu",
    }  # fmt: skip
    folder = options.out or question_folder(FOLDER, question)
    journal = Journal(folder, question, fresh=options.fresh)
    if journal.launches:
        tell(f"going on with {len(journal.launches)} launches in {folder}")
    places: dict[Arm, Place] = {"A": a.place, "B": b.place, "N": null_side(a).place}
    comparison = Comparison(
        Arms(places, setup.cases), plan, journal, budget_s, setup.intended, (a.label, b.label),
        Random(), watch=_watch,
    )  # fmt: skip
    is_interrupted = False
    try:
        result = comparison.run()
    except KeyboardInterrupt:
        is_interrupted = True
        result = comparison.result()
        result = result.model_copy(update={"remarks": ("It was interrupted.",)})
    finally:
        end_watch()
    result = _completed(result, setup)
    if result.verdict == "slower" and options.explain and not is_interrupted:
        result = _explained(result, setup)
    is_good = _print(options, result, gate_sentences(result), HEADINGS, folder)
    if is_interrupted:
        raise KeyboardInterrupt
    journal.finish(as_document(result))
    return is_good


def _completed(result: GateResult, setup: Setup) -> GateResult:
    """Add what differs between the sides, and the gate's false-alarm rate on this machine."""
    from bench.gate.calibration import false_alarm_rate

    rate = false_alarm_rate(setup.suite, setup.sides[0].place.device, setup.software[0])
    return result.model_copy(update={"differs": setup.differs, "false_alarm_rate": rate})


def _explained(result: GateResult, setup: Setup) -> GateResult:
    return result


def _watch(now: Progress) -> None:
    left = f", {duration(now.left_s)} to the look" if now.left_s is not None else ""
    words = "confirming: " if now.stage == "confirm" else ""
    text = f"{words}block {now.blocks + 1} of {now.wanted}{left}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


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
    return _print(options, result, gate_sentences(result), HEADINGS, folder)


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
        from bench.cli.gate_confirm import confirm_command

        return confirm_command(options, before)
    sentences = baseline_sentences(result, before.name)
    is_good = _print(options, result, sentences, BASELINE_HEADINGS, options.out)
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
    try:
        found = measure_suite(cases, place, options.launches or max(each), launch_watch())
    finally:
        end_watch()
    return new_baseline("now", suite, place.device, cases, software, found)


def _print(
    options: GateOptions, result: Any, sentences: Sequence[str], headings: Sequence[str],
    folder: Path | None,
) -> bool:  # fmt: skip
    """Print an answer and write its files; return False if the exit code shall be 1."""
    answer = Answer(result, sentences, headings, rows_of(result), options.strict)
    if options.as_json:
        show(json_text(result.model_dump(mode="json")))
    else:
        first, *rest = sentences
        table = tabulate(answer.rows, headings, "simple", disable_numparse=True)
        show("\n".join([first, "", table, "", *rest]))
    for name in names(options.formats) or ():
        file, write = FORMATS[name]
        place = folder or Path()
        place.mkdir(parents=True, exist_ok=True)
        replace_text(place / file, write(answer))
        tell(f"wrote {place / file}")
    if result.verdict == "slower":
        return False
    return not (options.strict and result.verdict == "cannot tell")
