"""``gate calibrate``: measure the gate's false alarms and power on this machine."""

from __future__ import annotations

import math
from random import Random

from tabulate import tabulate

from bench.cli.gate_compare import FOLDER, SUITE, calibrated_name, margin_of
from bench.cli.gate_progress import end_line, show_line
from bench.cli.options import GateOptions, duration_s
from bench.cli.output import show, tell
from bench.cli.run_clock import duration
from bench.cli.speed_suite import (
    measuring_place,
    parse_target,
    software_by_backend,
    suite_name,
    timed_cases,
    wanted_backends,
)
from bench.gate.calibration import Calibration, calibrate, machine_of, save_calibration
from bench.gate.design import Arm, Plan
from bench.gate.journal import Journal, question_folder
from bench.gate.run import Arms, Comparison
from bench.gate.sides import Side, null_side
from bench.report.gate.words import percent
from bench.spec.base import short_hash
from bench.speed.launch import Place
from bench.storage.checksums import sha256_of_file
from bench.storage.text_files import json_text

MANY_BLOCKS = 100_000
BUDGET = "10m"


def calibrate_command(options: GateOptions) -> bool:
    """Launch A against A within the budget, then print and store what that says."""
    budget_s = duration_s("--budget", options.budget or BUDGET)
    target = parse_target(options.target)
    suite = suite_name(options.suite or SUITE, target)
    place = measuring_place(options.python, options.device)
    software = software_by_backend(wanted_backends(options.backends, target), target, place)
    cases = timed_cases(suite, list(software), target, place, details=False)
    side = Side("setting", "this code", place)
    question = {
        "calibrate": calibrated_name(suite, place.device, options), "device": place.device,
        "machine": machine_of(software),
        "run": short_hash({n: own.model_dump(mode="json") for n, own in software.items()}),
        "target": target and sha256_of_file(target.file),
    }  # fmt: skip
    journal = Journal(
        options.out or question_folder(FOLDER, question),
        question,
        fresh=options.fresh,
        stale_s=math.inf,
    )
    if journal.launches:
        tell(f"going on with {len(journal.launches)} launches in {journal.folder}")
    places: dict[Arm, Place] = {"A": place, "B": place, "N": null_side(side).place}
    arms = Arms(places, {"A": cases, "B": cases, "N": cases}, shares_gpu=options.turns)
    plan = Plan(margin=margin_of(options), looks=(MANY_BLOCKS,))
    comparison = Comparison(
        arms, plan, journal, budget_s, random=Random(),
        watch=lambda now: show_line(f"block {now.blocks + 1}, {duration(budget_s)} in all"),
    )  # fmt: skip
    try:
        comparison.collect_all()
    finally:
        end_line()
    found = calibrate(
        journal.launches,
        calibrated_name(suite, place.device, options),
        place.device,
        software,
        margin_of(options),
        arms.together,
    )
    path = save_calibration(found, place.cache)
    show(json_text(found.model_dump(mode="json")) if options.as_json else _text(found))
    tell(f"stored in {path}; the launches are kept in {journal.folder}, repeat to add to them")
    return True


def _text(found: Calibration) -> str:
    spreads = [
        [name, percent(own.within), percent(own.between), percent(own.block)]
        for name, own in found.spreads.items()
    ]
    looks = list(next(iter(found.power.values())))
    power = [
        [f"{float(slowdown):.0%}", *(f"{shares[look]:.0%}" for look in looks),
         found.needed_blocks[slowdown] or "more", found.needed_launches[slowdown] or "more"]
        for slowdown, shares in found.power.items()
    ]  # fmt: skip
    headings = ["benchmark", "within a launch", "between launches", "ratio of a block"]
    return "\n".join(
        [
            f"{found.blocks} blocks of A against A.",
            "",
            tabulate(spreads, headings, "simple", disable_numparse=True),
            "",
            f"False alarms: {percent(found.false_alarm_rate)} of {found.repeats} comparisons that "
            f"were drawn from these blocks; {found.disjoint_alarms} of {found.disjoint} that share "
            f"none, by which alone the rate is at most {percent(found.disjoint_bound)}.",
            "",
            "Slowdowns that are found and confirmed, by blocks; margin: at most half of them.",
            "",
            tabulate(power, ["slowdown", *looks, "blocks for 95 %", "launches for 95 %"], "simple",
                     disable_numparse=True),
            "",
            "Blocks are those of --ab; a slowdown is confirmed by as many again. Launches are "
            "those of --baseline; drift between sessions is not counted.",
        ]
    )  # fmt: skip
