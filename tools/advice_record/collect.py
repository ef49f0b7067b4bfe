"""Measure the cells of the record: the oracle, then the adviser within a share of its cost."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np

from bench.advise.advice import Advice
from bench.advise.advise import Images, Question, advise, prepare
from bench.advise.budget import Budget
from bench.advise.evidence import ProbeEvidence, gather
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
from tools.advice_record.cells import PX, cells, open_cell
from tools.advice_record.oracle import BACKBONES, BACKEND, BATCH, EPOCHS, FullRun, run_oracle
from tools.advice_record.rules import log_evidence

SHARES = (0.05, 0.1, 0.2)
"""Budgets of the adviser over the cost of the oracle."""
KEPT = ("depths", "features")
"""Folders of the cache with features and with values of frozen parts."""
ADVICE_FILE, EVIDENCE_FILE = "advice-{share:g}.json", "evidence.json"


def collect(folder: Path) -> None:
    """Measure what is missing, cell by cell; cells whose data are not installed are left out."""
    planner = Planner(Interpreters({}), device="cpu")
    every = list(cells())
    began, done = time.monotonic(), 0
    runner = Runner(Store(folder), planner.cache, planner.interpreters)
    with runner.pool() as workers:
        for number, cell in enumerate(every, 1):
            place = folder / cell.name
            if _is_complete(place):
                continue
            try:
                dataset = open_cell(cell, planner.cache)
            except Unavailable as error:
                print(f"{cell.name} is left out: {error}", flush=True)
                continue
            _measure(place, dataset, planner, workers)
            done += 1
            each_s = (time.monotonic() - began) / done
            left = sum(not _is_complete(folder / other.name) for other in every)
            print(
                f"{number}/{len(every)} {cell.name}: {each_s:.0f} s a cell, "
                f"{each_s * left / 60:.0f} minutes left",
                flush=True,
            )


def _is_complete(place: Path) -> bool:
    return (place / EVIDENCE_FILE).is_file()


def _measure(place: Path, dataset: Dataset, planner: Planner, workers: WorkerPool) -> None:
    runs = run_oracle(place, dataset, PX, planner, workers, SilentDisplay())
    for share in SHARES:
        file = place / ADVICE_FILE.format(share=share)
        if not file.is_file():
            for kind in KEPT:  # what an earlier budget computed would be free
                shutil.rmtree(planner.cache / kind, ignore_errors=True)
            advice = _advice(place / f"trials-{share:g}", dataset, runs, share, planner, workers)
            replace_text(file, json_text(advice.model_dump(mode="json")))
    if not (place / EVIDENCE_FILE).is_file():
        _keep_evidence(place, dataset, planner, workers)


def _laboratory(
    folder: Path, dataset: Dataset, budget: Budget, planner: Planner, workers: WorkerPool
) -> tuple[Laboratory, Question]:
    wishes = Wishes(BACKBONES, (BACKEND,), epochs=EPOCHS)
    question = Question(dataset.name, budget.seconds, wishes, "cpu", PX, BATCH, folder)
    planner.opened = {}
    laboratory = prepare(question, Images(dataset, dataset), planner, budget, SilentDisplay())
    laboratory.workers = workers
    return laboratory, question


def _advice(
    folder: Path, dataset: Dataset, runs: list[FullRun], share: float, planner: Planner,
    workers: WorkerPool,
) -> Advice:  # fmt: skip
    """Let the adviser loose on a cell, with a share of the oracle's time. Its worker has started
    and its networks are exported, as in the oracle, whose time counts neither."""
    seconds = share * sum(run.fit_s for run in runs)
    laboratory, question = _laboratory(folder, dataset, Budget(seconds), planner, workers)
    return advise(laboratory, question, dataset, lambda words: None)[0]


def _keep_evidence(place: Path, dataset: Dataset, planner: Planner, workers: WorkerPool) -> None:
    """Write what rules without trials look at: probes and LogME."""
    laboratory, _ = _laboratory(place / "probes", dataset, Budget(1e6), planner, workers)
    evidence = ProbeEvidence()
    gather(laboratory, BACKBONES, evidence, lambda words: None)
    scores = {}
    for backbone in BACKBONES:
        features = laboratory.features(backbone)
        last = features.depths[-1]
        chosen = laboratory.data.fit_images(0)
        values = np.asarray(features.values[chosen, last.first : last.last], np.float64)
        scores[backbone] = log_evidence(values, laboratory.data.pool.labels[chosen])
    found = {
        "probe_top1": {name: one.top1 for name, one in evidence.best.items()},
        "log_evidence": scores,
        "signs": [one.kind for one in evidence.signs],
    }
    replace_text(place / EVIDENCE_FILE, json.dumps(found, indent=1))
