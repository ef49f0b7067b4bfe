"""Proofs: drive the workers, judge what they leave, and keep the verdicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from bench.catalog.backends import ALLOCATOR
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbones, folder_name
from bench.parity import compare, scheduler
from bench.parity.inputs import proof_split, save_split
from bench.parity.model import Level, PairProof, ProofKey
from bench.parity.plan import Claim, Question, Subject, subject_of
from bench.parity.proofs import Proofs
from bench.spec.run import OptimizerName
from bench.storage.atomic import temporary_folder
from bench.storage.cache import CACHE_VARIABLE
from bench.workers.events import Probed, Progress
from bench.workers.process import Finished, fresh_log, run_task
from bench.workers.tasks import ProveAnswer, ProveTask

FLOORS_FROM = "torch"
"""The backend whose noise floors are measured, if it takes part: that is four times the work, and
it is the fastest on large networks (VGG19 at 32 px in float64 without floors, 2 cores: 31 s under
torch, 48 s under TensorFlow)."""
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")
"""Environment variables with the number of threads of OpenMP (torch), TensorFlow and XLA. Parallel
workers with one thread per core each wait for each other: EfficientNet-Lite0 under torch in
float64, two workers on 2 cores: 1.84 s per step; with one thread each 0.29 s."""


class Watcher(Protocol):
    """Display of the progress of proofs."""

    def measuring(self, subject: Subject, backend: str) -> None:
        """Report that a worker starts."""

    def measured(self) -> None:
        """Report that a worker has measured an item."""

    def proved(self, pair: PairProof) -> None:
        """Report the verdict on a pair."""


Watch = Callable[[Sequence[Subject], int], AbstractContextManager[Watcher]]
"""Makes the display of progress for subjects and a number of backends."""
Rates = dict[str, float | None]
"""Key of an item → learning rate of its steps."""


def prove_missing(question: Question, fresh: bool, watch: Watch) -> list[PairProof]:
    """Prove the pairs of a question that are not proved yet, if ``fresh`` also those that are;
    return all of its pairs, in order. Raise what ``subject_of`` and ``prove`` raise."""
    proofs = Proofs(question.cache)
    proved = {} if fresh else {p.key: p for p in proofs.load() if p.passed}
    backbones(question.backbones, question.interpreters, question.cache)  # one worker for all
    subjects = [
        subject_of(backbone, precision, question, proved)
        for backbone in question.backbones
        for precision in question.precisions
    ]
    pairs = [[proved[key] for key in subject.proved] for subject in subjects]
    reused = sum(map(len, pairs))
    with watch(subjects, len(question.backends)) as watcher:
        missing = [(number, subject) for number, subject in enumerate(subjects) if subject.claims]
        workers = scheduler.parallel_jobs(question.device, len(missing))
        shared = replace(question, threads=scheduler.threads_per_worker(workers))
        jobs = [
            scheduler.Job(scheduler.estimate_memory_bytes(s), partial(prove, s, shared, watcher))
            for _, s in missing
        ]
        for job, new in scheduler.run_jobs(jobs, workers, scheduler.memory_limit_bytes()):
            for pair in new:
                proofs.keep(pair)
                watcher.proved(pair)
            pairs[missing[job][0]] += new

    def place(pair: PairProof) -> tuple[int, ...]:
        optimizer = cast(OptimizerName, pair.optimizer)
        return (
            question.policies.index(pair.policy), question.optimizers.index(optimizer),
            question.backends.index(pair.backends[1]),
        )  # fmt: skip

    found = [pair for each in pairs for pair in sorted(each, key=place)]
    if reused:
        print(f"{reused} of {len(found)} pairs were proved before in these environments; "
              "--fresh proves them again", file=sys.stderr)  # fmt: skip
    return found


def prove(subject: Subject, question: Question, watcher: Watcher) -> list[PairProof]:
    """Measure a subject with every backend; return the comparison of each with the first, claim by
    claim. Raise UserError or Unavailable for what a worker found: a mistake of the user, or a
    missing package."""
    reference, *others = question.backends
    floors = FLOORS_FROM if FLOORS_FROM in question.backends else reference
    with temporary_folder(question.cache / "exchange") as root:  # some gigabytes for VGG19
        save_split(proof_split(subject.setting.px, subject.images), root / "data.npz")
        rates: Rates | None = None
        failures: dict[str, str] = {}
        for backend in sorted(question.backends, key=lambda backend: backend != floors):
            watcher.measuring(subject, backend)
            finished = _measure(subject, question, backend, rates, root, watcher)
            if finished.answer is None:
                failures[backend] = f"{backend} {finished.status}: {finished.message}"
            elif rates is None:
                rates = finished.answer.learning_rates
            if rates is None:
                break  # without noise floors no pair can pass
        return [
            _judge(subject, claim, key, (reference, other), floors, failures, root)
            for claim in subject.claims
            for other, key in zip(others, claim.keys, strict=True)
        ]


def worker_variables(threads: int | None) -> dict[str, str]:
    """Return environment variables for the workers of a proof. They keep TensorFlow's allocator
    settings in all backends: VGG19 under torch in float64 spends half of its time on clearing pages
    without them (64 s per proof instead of 31 s). With None, frameworks choose their threads."""
    return {**ALLOCATOR, **({} if threads is None else dict.fromkeys(THREADS, str(threads)))}


def _measure(
    subject: Subject, question: Question, backend: str, rates: Rates | None, root: Path,
    watcher: Watcher,
) -> Finished[ProveAnswer]:  # fmt: skip
    """Run the worker of one backend, which leaves its values in a folder in ``root``; without
    ``rates`` it also measures noise floors and searches for learning rates."""
    items = [
        item if rates is None else item.model_copy(update={"learning_rate": rates.get(key)})
        for key, item in subject.items.items()
    ]
    task = ProveTask(
        items=tuple(items), data=str(root / "data.npz"), out=str(root / backend),
        device=question.device, floors=rates is None,
    )  # fmt: skip
    name = f"parity-{folder_name(subject.backbone)}-{subject.precision}-{backend}"
    cache = {CACHE_VARIABLE: str(question.cache.absolute())}

    def on_event(event: Progress) -> None:
        if isinstance(event, Probed):
            watcher.measured()

    finished = run_task(
        backend, task, fresh_log(question.cache, name), question.interpreters, on_event,
        variables={**worker_variables(question.threads), **cache},
    )  # fmt: skip
    if finished.status == "bad_input":
        raise UserError(finished.message, finished.hint)
    if finished.status == "unavailable":
        raise Unavailable(finished.message)
    return finished


def _judge(
    subject: Subject, claim: Claim, key: ProofKey, backends: tuple[str, str], floors: str,
    failures: dict[str, str], root: Path,
) -> PairProof:  # fmt: skip
    """Return the verdict on a claim about two backends, from the files in ``root``; ``floors`` is
    the backend whose noise floors were measured, ``failures`` says why a worker left no values."""
    involved = (floors, *backends)
    reason = next((why for backend, why in failures.items() if backend in involved), None)
    levels: tuple[Level, ...] = ()
    first, fall, rate = None, None, None
    if reason is None:
        precision, blueprint = subject.precision, subject.blueprints[claim.about.weights]
        a, b, noise = (
            compare.Side({part: root / backend / item for part, item in claim.items.items()})
            for backend in (*backends, floors)
        )
        levels = compare.compare_levels(a, b, noise, blueprint, precision)
        facts = noise.facts("steps") if "steps" in claim.items else {}
        rate, fall = facts.get("learning_rate"), facts.get("loss_fall")
        fall = fall if fall is not None and math.isfinite(fall) else None
        constant = "forward" in claim.items and compare.has_constant_logits(a, precision)
        reason = compare.failure_reason(levels, fall, constant)
        first = compare.first_difference(a, b, blueprint, precision)
    return PairProof(
        **dict(key), backends=backends, passed=reason is None, reason=reason, levels=levels,
        loss_fall=fall, learning_rate=rate, first_difference=first,
    )  # fmt: skip
