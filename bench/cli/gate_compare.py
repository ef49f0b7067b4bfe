"""A comparison of two sides on the command line: set up, run, explained and printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tabulate import tabulate

from bench.catalog.backends import DEFAULT_BACKENDS, OWN_STEP
from bench.cli.gate_progress import end_line, show_progress
from bench.cli.options import GateOptions, interpreters, names
from bench.cli.output import show, tell
from bench.cli.speed_suite import (
    Target,
    is_own,
    suite_name,
    timed_cases,
)
from bench.errors import Unavailable, UserError
from bench.gate.attribution import Direction, find_causes
from bench.gate.calibration import false_alarm_rate
from bench.gate.circumstances import Differences, knob_differences
from bench.gate.design import Arm, plan_for
from bench.gate.journal import Journal, question_folder
from bench.gate.run import Arms, Comparison, GateResult
from bench.gate.samples import ArmLaunch
from bench.gate.sides import (
    Side,
    common_backends,
    null_side,
)
from bench.report.gate.formats import FORMATS, Answer
from bench.report.gate.words import (
    HEADINGS,
    gate_sentences,
    rows_of,
)
from bench.spec.base import short_hash
from bench.speed.cases import TimedCase
from bench.speed.launch import Place
from bench.speed.software import lacking, software_differences, software_of
from bench.speed.values import benchmark_names
from bench.storage.checksums import sha256_of_file
from bench.storage.text_files import json_text, replace_text
from bench.workers.tasks import Software

FOLDER = Path("results/gates")
SUITE, MARGIN, BUDGET = "small", 0.03, "20m"
"""Defaults of ``--suite``, ``--max-slowdown`` and ``--budget``."""
LEAST_MARGIN, MOST_MARGIN = 0.001, 1.0


def margin_of(options: GateOptions) -> float:
    """Return the slowdown of ``--max-slowdown``; raise UserError if it is no such fraction."""
    margin = MARGIN if options.max_slowdown is None else options.max_slowdown
    if not LEAST_MARGIN <= margin <= MOST_MARGIN:
        raise UserError(
            f"--max-slowdown {margin:g} is no fraction between {LEAST_MARGIN} and {MOST_MARGIN:g}.",
            "Write 0.03 for 3 %.",
        )
    return margin


@dataclass(frozen=True)
class Setup:
    """A comparison that is ready to run."""

    sides: tuple[Side, Side]
    software: tuple[dict[str, Software], dict[str, Software]]
    cases: dict[Arm, Sequence[TimedCase]]
    null: Side
    """A once more, launched in another way."""
    intended: list[str]
    """Environment variables that are meant to differ."""
    suite: str
    remarks: tuple[str, ...] = ()
    """Sentences on backends that were left out."""

    @property
    def differs(self) -> Differences:
        """Differences between the sides, by field, including the one that is compared."""
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


def comparison_setup(
    options: GateOptions, sides: tuple[Side, Side], target: Target | None,
    wanted: Sequence[str] | None,
) -> Setup:  # fmt: skip
    """Find what both sides can run, and prepare their cases.

    Args:
        wanted: Backends; None for the usual ones that both sides have.

    Raises:
        UserError: A side cannot run what was asked for.
    """
    suite = suite_name(options.suite or SUITE, target)
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
        # Both sides train networks that this process's own exporter has exported.
        place = replace(side.place, interpreters=interpreters(options.python))
        return timed_cases(suite, backends, own, place, details=False)

    null = null_side(sides[0])
    a, b, n = (cases_of(side) for side in (*sides, null))
    intended = sorted({name for side in sides for name in side.place.variables})
    software = tuple({name: own[name] for name in backends} for own in found)
    cases: dict[Arm, Sequence[TimedCase]] = {"A": a, "B": b, "N": n}
    both = software[0], software[1]
    return Setup(sides, both, cases, null, intended, suite, tuple(remarks))


def run_comparison(options: GateOptions, setup: Setup, budget_s: float) -> bool:
    """Collect launches and print the answer; see ``gate_command`` for the result."""
    a, b = setup.sides
    benchmarks = benchmark_names(setup.cases["A"])
    plan = plan_for(margin_of(options), len(benchmarks), options.blocks)
    places: dict[Arm, Place] = {"A": a.place, "B": b.place, "N": setup.null.place}
    arms = Arms(places, setup.cases, shares_gpu=options.turns)
    question = {
        "sides": [a.label, b.label], "kind": a.kind, "commits": [a.commit, b.commit],
        "suite": setup.suite, "shapes": {case.name: case.shape for case in setup.cases["A"]},
        "device": a.place.device, "margin": plan.margin, "looks": list(plan.looks),
        "intended": setup.intended, "differs": setup.differs,
        "run": short_hash([
            {name: one.model_dump(mode="json") for name, one in own.items()}
            for own in setup.software
        ]),
        "targets": [side.target and sha256_of_file(side.target) for side in setup.sides],
        "together": arms.together,
    }  # fmt: skip
    folder = options.out or question_folder(FOLDER, question)
    journal = Journal(folder, question, fresh=options.fresh)
    if journal.launches:
        tell(f"going on with {len(journal.launches)} launches in {folder}")
    comparison = Comparison(
        arms, plan, journal, budget_s, setup.intended, (a.label, b.label),
        Random(), watch=show_progress,
    )  # fmt: skip
    is_interrupted = False
    try:
        result = comparison.run()
    except KeyboardInterrupt:
        is_interrupted = True
        result = comparison.result()
        remark = f"Interrupted after {result.blocks} blocks; the same command goes on within a day."
        result = result.model_copy(update={"remarks": (remark,)})
    finally:
        end_line()
    result = _completed(
        result, setup, journal.launches, calibrated_name(setup.suite, a.place.device, options)
    )
    if options.explain and not is_interrupted:
        result = _explained(result, setup)
    sentences = gate_sentences(result)
    if is_interrupted:  # what follows is no answer yet
        sentences.sort(key=lambda sentence: sentence not in result.remarks)
    is_good = print_answer(options, result, sentences, HEADINGS, folder)
    if is_interrupted:
        raise KeyboardInterrupt
    journal.finish(result.model_dump(mode="json"))
    return is_good


def calibrated_name(suite: str, device: str, options: GateOptions) -> str:
    """Return the name under which a calibration is kept: turns on a GPU have errors of their own,
    while on a CPU there are always turns."""
    return f"{suite} in turns" if options.turns and device != "cpu" else suite


def _completed(
    result: GateResult, setup: Setup, launches: Sequence[ArmLaunch], calibrated: str
) -> GateResult:
    """Add what differs between the sides, and the gate's false-alarm rate on this machine."""
    place = setup.sides[0].place
    rate = false_alarm_rate(calibrated, place.device, setup.software[0], result.margin, place.cache)
    differs = {**setup.differs, **knob_differences(launches)}
    remarks = (*result.remarks, *setup.remarks)
    return result.model_copy(
        update={"differs": differs, "false_alarm_rate": rate, "remarks": remarks}
    )


def _explained(result: GateResult, setup: Setup) -> GateResult:
    """Add where the cases that are slower or faster lost or gained time."""
    changed: dict[str, Direction] = {}
    unprofiled = []
    for one in result.benchmarks:
        if one.verdict not in ("slower", "faster"):
            continue
        measure, _, case = one.name.partition(" ")
        if measure == "inference" or is_own(setup.suite):
            unprofiled.append(one.name)
        else:
            changed[case] = "slower" if "slower" in (one.verdict, changed.get(case)) else "faster"
    if unprofiled:
        remark = (
            f"{', '.join(unprofiled)}: not profiled; only training steps of a suite's cases are."
        )
        result = result.model_copy(update={"remarks": (*result.remarks, remark)})
    if not changed:
        return result
    tell("profiling a launch of each side")
    places = {"A": setup.sides[0].place, "B": setup.sides[1].place}
    cases = {"A": setup.cases["A"], "B": setup.cases["B"]}
    try:
        causes = find_causes(cases, places, changed, Random())
    except (UserError, Unavailable) as error:
        remark = f"The causes could not be profiled: {error}"
        return result.model_copy(update={"remarks": (*result.remarks, remark)})
    return result.model_copy(update={"causes": tuple(causes)})


def print_answer(
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
