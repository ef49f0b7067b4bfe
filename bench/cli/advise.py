"""``advise``: recommend a strategy for a data set within a budget."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from tabulate import tabulate

from bench.advise.advice import Advice
from bench.advise.advise import (
    LEAST_BUDGET_S,
    Images,
    Question,
    advise,
    embedded_backbones,
    open_images,
    prepare,
)
from bench.advise.budget import Budget, BudgetSpent, ended_by, uninterrupted
from bench.advise.cost import full_run_s
from bench.advise.eject.train import train_project
from bench.advise.eject.write import (
    Project,
    check_has_script,
    check_new,
    unused_folder,
    write_project,
)
from bench.advise.plan import Step, plan_of
from bench.advise.trials import Laboratory, admitted
from bench.advise.wishes import Wishes
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.cli.gate_progress import end_line, show_line
from bench.cli.options import AdviseOptions, duration_s, file_rules, interpreters, names, paths
from bench.cli.output import show, tell
from bench.cli.run_clock import duration
from bench.data import Dataset
from bench.data.image_files import first_of
from bench.errors import AnsweredInterrupt, Unavailable, UserError, choose, number_of
from bench.network.backbones import backbone, check_name
from bench.network.blueprint import Network
from bench.report.advice.page import write_advice_page
from bench.report.advice.words import advice_text
from bench.runner.devices import resolve_devices
from bench.runner.planner import Planner, missing_packages
from bench.runner.runner import SilentDisplay
from bench.spec.base import short_hash
from bench.storage.text_files import json_text
from bench.workers.process import Interpreters, environment_of

FOLDER = Path("results") / "advice"
BUDGET = "10m"
CPU_PX, GPU_PX = 96, 224
MOST_BUDGET_S = 100 * 86_400.0
MOST_OVER = 1.03
"""Time over the budget at which a full run within it is ended: nearly done, it is worth more."""
END_S = 1.5
"""Time for ending workers, and for writing the answer and its page."""


class NotesAlone(SilentDisplay):
    """Shows notes only; the line of progress reports trials."""

    def note(self, text: str) -> None:
        """Show a note."""
        tell(text)


def advise_command(options: AdviseOptions) -> bool:
    """Give advice and print it; return False if there is no recommendation, or if the project could
    not be written or trained."""
    # Processor time so far stands for the time that the program took to start.
    budget = Budget(_budget_s(options), before_s=time.process_time(), reserved_s=END_S)
    if budget.seconds < LEAST_BUDGET_S:
        raise UserError(
            f"--budget: {budget.seconds:.3g} s are too short even for the first evidence.",
            f"It needs {LEAST_BUDGET_S:.0f} s or more: --budget 10m.",
        )
    if options.budget_usd is not None:
        tell(f"{options.budget_usd:g} dollars are {duration(budget.seconds)} of this machine")
    if options.eject is not None:
        check_new(options.eject)
    question = _question(options, budget.seconds)
    if options.eject is not None or options.train:
        check_has_script(question.wishes)
    try:
        with ended_by(budget):
            images, laboratory = _laboratory(options, question, budget)
    except BudgetSpent:
        raise UserError(
            f"--budget: {budget.seconds:.0f} s were over before the images were read.",
            f"Use --budget {math.ceil(4 * budget.seconds)}s or more, or a folder with some of the "
            "images.",
        ) from None

    def on_progress(words: str) -> None:
        left = duration(max(budget.seconds - budget.spent_s, 0.0))
        show_line(f"{words} ({left} of the budget left)")

    def on_first(advice: Advice) -> None:
        end_line()
        tell(advice_text(advice, is_first=True))

    with laboratory:
        if options.dry_run:
            _show_plan(plan_of(laboratory, question.wishes), budget.seconds, options.as_json)
            return True
        _tell_plan(laboratory, question)
        try:
            advice, is_interrupted = advise(
                laboratory, question, images.whole, on_progress, on_first
            )
        finally:
            end_line()
    has_project = True
    if is_interrupted and (options.eject is not None or options.train):
        tell("No project is written after Ctrl-C; the same command goes on, and writes it.")
    elif options.eject is not None or options.train:
        try:
            advice = _begin_project(options, advice, laboratory, question, images.whole)
        except KeyboardInterrupt:  # the advice stands, in the cases below as well
            is_interrupted = True
        except (UserError, Unavailable, OSError) as error:
            advice = advice.model_copy(update={"warnings": (*advice.warnings, str(error))})
            has_project = False
    with uninterrupted():
        _show_advice(advice, question.folder / "advice.html", options.as_json)
    if is_interrupted:
        tell("interrupted: the same command goes on from here")
        raise AnsweredInterrupt
    return advice.recommendation is not None and has_project


def _show_advice(advice: Advice, page: Path, as_json: bool) -> None:
    """Print the advice and write its page."""
    show(json_text(advice.model_dump(mode="json")) if as_json else advice_text(advice))
    try:
        write_advice_page(advice, page)
        tell(f"wrote {page}")
    except OSError as error:  # the answer is printed already
        tell(f"{page} cannot be written: {error.strerror or error}")


def _question(options: AdviseOptions, budget_s: float) -> Question:
    """Return what the options ask."""
    python = interpreters(options.python)
    (device, *others), remark = resolve_devices(options.device, python)
    if others:
        raise UserError("--device all: advice is for one device.", "Use cpu or cuda:0.")
    if remark:
        tell(remark)
    px = options.px or (CPU_PX if device == "cpu" else GPU_PX)
    key = short_hash({"dataset": options.dataset, "px": px, "device": device})
    slug = re.sub(r"[^A-Za-z0-9]+", "-", options.dataset.rpartition("/")[2]).strip("-").lower()
    return Question(
        options.dataset, budget_s, _wishes(options, device, python), device, px,
        options.batch_size, options.out or FOLDER / f"{slug[:40]}-{key}", options.train_images,
    )  # fmt: skip


def _laboratory(
    options: AdviseOptions, question: Question, budget: Budget
) -> tuple[Images, Laboratory]:
    """Open and decode the images; return them, and what measures on them."""
    planner = Planner(interpreters(options.python), device=question.device)
    images = open_images(question, file_rules(options), planner.cache)
    whole, seen = images.whole, images.seen
    for remark in whole.remarks:
        tell(remark)
    if whole.skipped:
        was = "was" if len(whole.skipped) == 1 else "were"
        tell(f"{number_of(len(whole.skipped), 'file')} {was} left out: {first_of(whole.skipped)}")
    if seen.train_images < whole.train_images:
        tell(f"{seen.train_images:,} of {whole.train_images:,} training images are looked at")
    tell(
        f"{whole.label}: {whole.train_images:,} training images of {len(whole.classes):,} "
        f"classes, {question.px} px, on {question.device}, for {duration(budget.seconds)} at most"
    )
    return images, prepare(question, images, planner, budget, NotesAlone())


def _tell_plan(laboratory: Laboratory, question: Question) -> None:
    """Print what is planned, with the costs for the first network that is available; the others are
    exported when it is their turn."""
    backbones = admitted(laboratory, question.wishes)
    for number, name in enumerate(backbones, 1):
        probe, *trials = plan_of(laboratory, replace(question.wishes, backbones=(name,)))
        if trials:
            others = len(backbones) - number
            further = f", and of {number_of(others, 'other network')}" if others else ""
            each_s = [step.seconds for step in trials]
            tell(
                f"planned: {probe.words}, some {probe.seconds:.0f} s{further}; then trials in the "
                f"order of their chances until the budget ends. A trial of {name} takes "
                f"{min(each_s):.0f} to {max(each_s):.0f} s (--dry-run shows the whole plan)"
            )
            return


def _begin_project(
    options: AdviseOptions, advice: Advice, laboratory: Laboratory, question: Question,
    whole: Dataset,
) -> Advice:  # fmt: skip
    """Write the project of the recommendation and, with ``--train``, do its full run, which takes
    time beside the budget; return the advice with the outcome."""
    strategy = advice.recommendation
    if strategy is None:
        return advice
    planner = laboratory.planner
    network = Network.load(laboratory.blueprint(strategy.backbone, pretrained=True))
    kind, _, path = question.dataset.partition(":")
    project = Project(
        strategy, whole, backbone(strategy.backbone, planner.interpreters, planner.cache), network,
        question.px, question.batch_size,
        images=str(Path(path).expanduser().absolute()) if kind == "folder" else "",
        packages=environment_of(
            strategy.backend, question.device, planner.interpreters
        ).packages,
    )  # fmt: skip
    folder = options.eject or unused_folder(question.folder / "project")
    write_project(folder, project, planner.cache)
    tell(f"wrote the project into {folder}")
    if not options.train:
        return advice
    is_within = laboratory.budget.full_run_s > 0
    if strategy.train_s is not None:
        where = "within" if is_within else "after"
        seconds = full_run_s(strategy)
        tell(
            f"the full run takes some {duration(seconds)} with its start and the saving of the "
            f"model, {where} the budget"
        )
    budget = laboratory.budget
    limit_s = max(MOST_OVER * budget.seconds - budget.spent_s, 1.0) if is_within else None
    trained = train_project(folder, strategy, planner.interpreters, question.device, tell, limit_s)
    spent_s = budget.spent_s if is_within else advice.spent_s
    return advice.after_training(trained).model_copy(update={"spent_s": spent_s})


def _show_plan(steps: Sequence[Step], budget_s: float, as_json: bool) -> None:
    """Print the plan with its estimated cost, and up to where the budget lasts in this order."""
    ends_s = list(accumulate(step.seconds for step in steps))
    plan = [
        {**step._asdict(), "fits": end_s <= budget_s}
        for step, end_s in zip(steps, ends_s, strict=True)
    ]
    if as_json:
        show(json_text({"plan": plan, "budget_s": budget_s}))
        return
    rows = [(one["words"], f"{one['seconds']:.0f}", "yes" if one["fits"] else "no") for one in plan]
    headings = ["step", "seconds", f"within {duration(budget_s)}"]
    show(tabulate(rows, headings, "simple", disable_numparse=True))
    show(
        f"\n{ends_s[-1] if ends_s else 0.0:.0f} s in all, as estimated. Probes decide the order of "
        "the trials; networks that they leave behind have none. More folds and learning rates "
        "follow within the budget."
    )


def _budget_s(options: AdviseOptions) -> float:
    """Return the seconds of the budget; raise UserError if they are too many for a timer."""
    seconds = _given_budget_s(options)
    if seconds > MOST_BUDGET_S:
        raise UserError(
            f"A budget of {seconds / 86_400:,.0f} days is too long: "
            f"{MOST_BUDGET_S / 86_400:.0f} days are the most.",
            "Use --budget 10m.",
        )
    return seconds


def _given_budget_s(options: AdviseOptions) -> float:
    """Return the seconds of ``--budget``, or of ``--budget-usd`` at ``--price-per-hour``."""
    if options.budget_usd is None and options.price_per_hour is None:
        return duration_s("--budget", BUDGET if options.budget is None else options.budget)
    if options.budget is not None:
        raise UserError(
            "--budget excludes --budget-usd and --price-per-hour.",
            "Give a time, or money and its price.",
        )
    if options.budget_usd is None or options.price_per_hour is None:
        raise UserError("--budget-usd and --price-per-hour belong together.", "Give both.")
    given = (options.budget_usd, options.price_per_hour)
    if not all(math.isfinite(value) and value > 0 for value in given):
        raise UserError("--budget-usd and --price-per-hour must be numbers above 0.")
    return 3600 * options.budget_usd / options.price_per_hour


def _wishes(options: AdviseOptions, device: str, python: Interpreters) -> Wishes:
    """Return candidates and constraints; raise UserError for a name that is unknown."""
    chosen = paths(names(options.backbones))
    for name in chosen or ():
        check_name("backbone in --backbones", name)
    backends = names(options.frameworks)
    for backend in backends or ():
        choose("framework in --frameworks", backend, BACKENDS)
    installed = [
        one
        for one in backends or DEFAULT_BACKENDS
        if missing_packages(environment_of(one, device, python)) is None
    ]
    if not installed or (backends and len(installed) < len(backends)):
        lacking = [one for one in backends or DEFAULT_BACKENDS if one not in installed]
        why = missing_packages(environment_of(lacking[0], device, python))
        raise UserError(f"--frameworks: {why}.")
    return Wishes(
        backbones=tuple(chosen or embedded_backbones()), backends=tuple(installed),
        head=options.head, epochs=options.epochs, max_parameters=options.max_parameters,
        max_infer_ms=options.max_infer_ms,
        max_memory_bytes=None if options.max_memory is None else _bytes(options.max_memory),
        margin=options.margin / 100, wants_full_run=options.train,
        target_top1=None if options.target is None else options.target / 100,
    )  # fmt: skip


def _bytes(text: str) -> int:
    """Return the bytes of 800MB or 4GB; raise UserError if it is none."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(MB|GB)", text.strip())
    if match is None:
        raise UserError(f"--max-memory: '{text[:40]}' is no size.", "Write 800MB or 4GB.")
    return max(1, int(float(match[1]) * {"MB": 1e6, "GB": 1e9}[match[2]]))
