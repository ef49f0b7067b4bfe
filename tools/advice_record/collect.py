"""Measure the cells of the record: full runs and probes of every cell, then the adviser, within a
share of what the full runs took."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.advise.advice import Advice
from bench.advise.advise import Images, Question, advise, prepare
from bench.advise.budget import Budget
from bench.advise.evidence import ProbeEvidence, gather
from bench.advise.experience import Experience
from bench.advise.trials import Laboratory
from bench.advise.wishes import Wishes
from bench.data import Dataset
from bench.errors import Unavailable
from bench.runner.planner import Planner
from bench.runner.runner import Runner, SilentDisplay
from bench.storage.results import Store
from bench.storage.text_files import json_text, replace_text
from bench.workers.pool import WorkerPool
from bench.workers.process import Interpreters
from tools.advice_record.cells import PLAIN, PX, cells, open_cell, without_split
from tools.advice_record.learn import learn
from tools.advice_record.measured import (
    ADVICE_FILE,
    EVIDENCE_FILE,
    FOLDS_FILE,
    FOLDS_SHARE,
    SHARES,
    load,
    outside,
    time_of,
)
from tools.advice_record.oracle import (
    BACKBONES,
    BACKEND,
    BATCH,
    EPOCHS,
    FILE,
    SEEDS,
    load_oracle,
    run_oracle,
)
from tools.advice_record.planted import FAULTS, with_fault
from tools.advice_record.rules import log_evidence

KEPT = ("depths", "features")
"""Folders of the cache with features and with values of frozen parts."""
HEAD = "linear"
SEED = max(SEEDS) + 1
"""Seed of the adviser's trials, which no full run has: a trial must not be the full run."""


def collect(folder: Path) -> None:
    """Measure what is missing; cells whose data are not installed are left out."""
    planner = Planner(Interpreters({}), device="cpu")
    runner = Runner(Store(folder), planner.cache, planner.interpreters)
    with runner.pool() as workers:
        bench = Bench(folder, planner, workers)
        _each(bench, EVIDENCE_FILE, bench.full_runs_and_probes)
        _each(bench, FILE.format(seed=SEEDS[-1]), bench.further_seeds)
        _each(bench, ADVICE_FILE.format(share=SHARES[-1]), bench.advice)


class Bench:
    """Measures cells: holds a folder for results, a planner and started workers."""

    def __init__(self, folder: Path, planner: Planner, workers: WorkerPool) -> None:
        self.folder, self.planner, self.workers = folder, planner, workers

    def full_runs_and_probes(self, place: Path, dataset: Dataset) -> None:
        """Run every policy to the end, and keep what rules without trials look at."""
        run_oracle(place, dataset, PX, SEEDS[0], self.planner, self.workers, SilentDisplay())
        evidence = ProbeEvidence()
        images = Images(dataset, dataset, is_val_own=True)
        laboratory, _ = self._laboratory(place / "probes", images, Budget(1e6))
        gather(laboratory, BACKBONES, HEAD, evidence, lambda words: None)
        scores = {}
        for backbone in BACKBONES if not evidence.signs else ():
            features = laboratory.features(backbone)
            last = features.depths[-1]
            chosen = laboratory.data.fit_images(0)
            values = np.asarray(features.values[chosen, last.first : last.last], np.float64)
            scores[backbone] = log_evidence(values, laboratory.data.pool.labels[chosen])
        found = {
            "classes": len(dataset.classes),
            "train_images": dataset.train_images,
            "probe_answers": {
                name: "".join("01"[int(right)] for right in one.right)
                for name, one in evidence.last.items()
            },
            "best_probe_top1": {name: one.top1 for name, one in evidence.best.items()},
            "log_evidence": scores,
            "signs": [one.kind for one in evidence.signs],
            "curve": [point._asdict() for point in evidence.curve],
            "planted": {name: self._signs(place, with_fault(dataset, name)) for name in FAULTS},
        }
        replace_text(place / EVIDENCE_FILE, json.dumps(found, indent=1))

    def further_seeds(self, place: Path, dataset: Dataset) -> None:
        """Run every policy to the end with the other seeds."""
        for seed in SEEDS[1:]:
            run_oracle(place, dataset, PX, seed, self.planner, self.workers, SilentDisplay())

    def advice(self, place: Path, dataset: Dataset) -> None:
        """Ask the adviser about a cell, with shares of the full runs' time and the experience of
        the other families; about a plain one also as a folder without a split, which is divided
        into folds."""
        cell = next(cell for cell in cells() if cell.name == place.name)
        experience = learn(outside(load(self.folder), cell.family.name))
        if cell.variant is PLAIN:
            folder = without_split(dataset)
            images = Images(folder, folder, is_val_own=False)
            self._ask(place, FOLDS_FILE, FOLDS_SHARE, images, experience)
        for share in SHARES:
            self._ask(place, ADVICE_FILE, share, Images(dataset, dataset, True), experience)

    def _ask(
        self, place: Path, pattern: str, share: float, images: Images, experience: Experience
    ) -> None:
        """Ask the adviser, unless it was asked, within a share of the full runs' time. Its worker
        has started and its networks are exported, as for the full runs, whose time counts
        neither."""
        file = place / pattern.format(share=share)
        if file.is_file():
            return
        for kind in KEPT:  # what an earlier budget computed would be free
            shutil.rmtree(self.planner.cache / kind, ignore_errors=True)
        trials = place / f"trials-{file.stem.removeprefix('advice-')}"
        shutil.rmtree(trials, ignore_errors=True)  # those of a run that was interrupted
        whole_s = time_of([load_oracle(place, seed) for seed in SEEDS])
        laboratory, question = self._laboratory(trials, images, Budget(share * whole_s))
        laboratory.seed = SEED
        question = replace(question, experience=experience)
        try:
            advice = advise(laboratory, question, images.whole, lambda words: None)[0]
        except Unavailable as error:  # too little time for a probe
            advice = _none(images.whole, str(error), laboratory.budget)
        replace_text(file, json_text(advice.model_dump(mode="json")))

    def _signs(self, place: Path, dataset: Dataset) -> list[str]:
        """Return the kinds of signs that a set cannot support advice."""
        images = Images(dataset, dataset, is_val_own=True)
        laboratory, _ = self._laboratory(place / "planted", images, Budget(1e6))
        evidence = ProbeEvidence()
        gather(laboratory, BACKBONES, HEAD, evidence, lambda words: None)
        return [one.kind for one in evidence.signs]

    def _laboratory(
        self, folder: Path, images: Images, budget: Budget
    ) -> tuple[Laboratory, Question]:
        wishes = Wishes(BACKBONES, (BACKEND,), epochs=EPOCHS)
        question = Question(images.seen.name, budget.seconds, wishes, "cpu", PX, BATCH, folder)
        self.planner.opened = {}
        laboratory = prepare(question, images, self.planner, budget, SilentDisplay())
        laboratory.workers = laboratory.exporters = self.workers
        return laboratory, question


def _none(dataset: Dataset, why: str, budget: Budget) -> Advice:
    """Return that there is no advice."""
    return Advice(
        dataset=dataset.label, train_images=dataset.train_images, test_images=dataset.test_images,
        classes=len(dataset.classes), case=None, similarity=None, size=None, recommendation=None,
        warnings=(why,), spent_s=budget.spent_s, budget_s=budget.seconds,
    )  # fmt: skip


def _each(bench: Bench, last_file: str, measure: Callable[[Path, Dataset], None]) -> None:
    """Measure all cells that lack ``last_file``, with a line of progress for each."""
    every = [cell for cell in cells() if not (bench.folder / cell.name / last_file).is_file()]
    began = time.monotonic()
    for number, cell in enumerate(every, 1):
        try:
            dataset = open_cell(cell, bench.planner.cache)
        except Unavailable as error:
            print(f"{cell.name} is left out: {error}", flush=True)
            continue
        measure(bench.folder / cell.name, dataset)
        each_s = (time.monotonic() - began) / number
        print(
            f"{number}/{len(every)} {cell.name}: {each_s:.0f} s a cell, "
            f"{each_s * (len(every) - number) / 60:.0f} minutes left",
            flush=True,
        )
