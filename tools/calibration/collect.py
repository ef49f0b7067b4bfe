"""Measure the comparisons of the calibration, each by the gate itself, in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from bench.gate.attribution import cause_of, profiled_launches
from bench.gate.design import ARMS, Arm, Plan
from bench.gate.journal import RESULT_FILE, Journal, read_question
from bench.gate.run import Arms, Comparison, Launcher
from bench.gate.sides import Side, null_side
from bench.speed.cases import TimedCase, cases, prepare, suite_size
from bench.speed.launch import Place, launch_together
from bench.storage.cache import cache_root
from bench.storage.code_digest import shared_digest
from bench.storage.text_files import replace_text
from bench.workers.process import Interpreters, Site
from tools.calibration.bias import BIASES, Bias
from tools.planted_worker import GROWTH_VARIABLE, PART_VARIABLE, SHARE_VARIABLE

SUITE = "calibration"
BACKENDS = ("torch",)
HONEST = 150
"""Number of comparisons of a commit with itself."""
BLOCKS = 6
PLANTED = (0.01, 0.02, 0.05, 0.1)
"""Planted slowdowns, as fractions."""
PLANTED_BLOCKS = 20
MARGIN = 0.03
FOREVER_S = 1e9
PARTS = ("input", "copies", "forward", "backward", "optimizer")
CULPRITS = 10
"""Planted culprits of each part."""
CULPRIT_SHARE = 0.1
CULPRIT_FOLDER = "culprits"


@dataclass(frozen=True)
class Experiment:
    """A comparison to measure."""

    name: str
    plan: Plan
    share: float = 0.0
    """Extra work in the steps of B, as a fraction."""
    bias: Bias | None = None


def experiments() -> Iterator[Experiment]:
    """Yield all comparisons, those of one kind spread over the time of others."""
    six = Plan(margin=MARGIN, looks=(BLOCKS,))
    many = Plan(margin=MARGIN, looks=(PLANTED_BLOCKS,), confirms=False)
    others = [Experiment(f"planted-{share:g}", many, share) for share in PLANTED]
    others += [Experiment(f"bias-{bias.name}", six, bias=bias) for bias in BIASES]
    every = HONEST // len(others)
    for number in range(HONEST):
        yield Experiment(f"same-{number:03}", six)
        if number % every == every - 1 and others:
            yield others.pop(0)
    yield from others


def _prepared() -> tuple[list[TimedCase], Place]:
    """Return the cases of the calibration, and where they are launched."""
    cache, interpreters = cache_root(), Interpreters({})
    size = suite_size(SUITE, "cpu")
    timed = prepare(cases(size, BACKENDS), size, "cpu", interpreters, cache, details=False)
    return timed, Place(interpreters, cache)


def collect(folder: Path) -> None:
    """Measure what is missing."""
    timed, place = _prepared()
    side = Side("setting", "this code", place)
    every = list(experiments())
    check_code(folder)
    began, done_here = time.monotonic(), 0
    for number, one in enumerate(every, 1):
        if (folder / one.name / RESULT_FILE).is_file():
            continue
        _measure(one, folder / one.name, side, timed)
        done_here += 1
        each_s = (time.monotonic() - began) / done_here
        left = each_s * sum(not (folder / e.name / RESULT_FILE).is_file() for e in every)
        print(f"{number}/{len(every)} {one.name}: {left / 60:.0f} minutes left", flush=True)


def check_code(folder: Path) -> None:
    """Exit if comparisons in a folder were measured with other code than that of now."""
    codes = {str(read_question(path.parent)["code"]) for path in folder.glob(f"*/{RESULT_FILE}")}
    if others := codes - {shared_digest()}:
        raise SystemExit(
            f"{folder} holds comparisons that other code measured ({', '.join(sorted(others))}; "
            f"this is {shared_digest()}): name another folder, or check that code out."
        )


def collect_culprits(folder: Path) -> None:
    """Plant a slowdown in each part of a step, profile both sides, and keep the part that is named;
    what was measured before is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    timed, place = _prepared()
    site = Site(module="tools.planted_worker")
    for number in range(CULPRITS):
        for part in PARTS:
            file = folder / f"{part}-{number}.json"
            if file.is_file():
                continue
            case = timed[number % len(timed)]
            variables = {SHARE_VARIABLE: str(CULPRIT_SHARE), PART_VARIABLE: part}
            planted = replace(place, site=site, variables=variables)
            a, b = profiled_launches([(case, place), (case, planted)], Random())
            cause = cause_of(case.name, a.cases[case.name], b.cases[case.name])
            replace_text(file, cause.model_dump_json())
            print(f"{part}: {cause.culprit}", flush=True)


def _measure(one: Experiment, folder: Path, side: Side, timed: Sequence[TimedCase]) -> None:
    b = side
    launcher: Launcher = launch_together
    if one.share:
        variables = {**side.place.variables, SHARE_VARIABLE: str(one.share)}
        site = replace(side.place.site, module="tools.planted_worker")
        b = replace(side, place=replace(side.place, site=site, variables=variables))
    if one.bias is not None:
        b = replace(side, place=one.bias.place(side.place))
        launcher = one.bias.launcher(launch_together)
    places: dict[Arm, Place] = {"A": side.place, "B": b.place, "N": null_side(side).place}
    question = {
        "experiment": one.name, "looks": list(one.plan.looks), "suite": SUITE,
        "code": shared_digest(),
    }  # fmt: skip
    journal = Journal(folder, question)
    comparison = Comparison(
        Arms(places, dict.fromkeys(ARMS, timed)), one.plan, journal, FOREVER_S,
        intended=[SHARE_VARIABLE, GROWTH_VARIABLE], sides=("A", "B"), random=Random(),
        launcher=launcher, is_warm=True,
    )  # fmt: skip
    journal.finish(comparison.run().model_dump(mode="json"))
