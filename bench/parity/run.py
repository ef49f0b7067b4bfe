"""Proofs: drive the workers, judge what they leave, and keep the verdicts."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from bench.catalog.backends import ALLOCATOR
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbones, folder_name, public_name
from bench.parity.compare import (
    Side,
    compare_levels,
    failure_reason,
    first_difference,
    has_constant_logits,
)
from bench.parity.images import proof_split, save_split
from bench.parity.model import Level, PairProof
from bench.parity.plan import DTYPES, Claim, Question, Subject, environments_of, subject_of
from bench.parity.proofs import Proofs
from bench.parity.scheduler import (
    Job,
    estimate_memory_bytes,
    memory_limit_bytes,
    parallel_jobs,
    run_jobs,
    threads_per_worker,
)
from bench.spec.run import OptimizerName
from bench.storage.cache import CACHE_VARIABLE
from bench.workers.process import Event, Finished, fresh_log, run_task
from bench.workers.tasks import ProveAnswer, ProveTask

FLOORS_FROM = "torch"
"""The backend whose noise floors are measured, if it takes part: that is four times the work, and
it is the fastest on large networks (VGG19 at 32 px in float64 without floors, 2 cores: 31 s under
torch, 48 s under TensorFlow)."""
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")
"""Environment variables with the number of threads of OpenMP (torch), TensorFlow and XLA. Parallel
workers with one thread per core each wait for each other: EfficientNet-Lite0 under torch in
float64, two workers on 2 cores: 1.84 s per step; with one thread each 0.29 s."""
ABANDONED_S = 24 * 3600.0
"""Age in seconds after which an exchange folder cannot be in use any more."""


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
    """Prove the pairs of a question that are not proved yet; return all of its pairs, in order.

    Args:
        question: What to compare.
        fresh: True to prove again what is proved already.
        watch: Makes the display of progress.

    Raises:
        UserError, Unavailable: See ``subject_of`` and ``prove``.
    """
    proofs = Proofs(question.cache)
    proved = {} if fresh else {p.key: p for p in proofs.load() if p.passed}
    backbones(question.backbones, question.interpreters, question.cache)  # one worker for all
    subjects = [
        subject_of(backbone, precision, question, proved)
        for backbone in question.backbones
        for precision in question.precisions
    ]
    pairs = [[proved[key] for key in subject.proved] for subject in subjects]
    with watch(subjects, len(question.backends)) as watcher:
        missing = [number for number, subject in enumerate(subjects) if subject.claims]
        workers = parallel_jobs(question.device, len(missing))
        shared = replace(question, threads=threads_per_worker(workers))
        jobs = [
            Job(estimate_memory_bytes(subject), partial(prove, subject, shared, watcher))
            for subject in (subjects[number] for number in missing)
        ]
        for number, new in run_jobs(jobs, workers, memory_limit_bytes()):
            for pair in new:
                proofs.keep(pair)
                watcher.proved(pair)
            pairs[missing[number]] += new
    found = [pair for each in pairs for pair in sorted(each, key=partial(_place, question))]
    reused = sum(len(subject.proved) for subject in subjects)
    if reused:
        print(f"{reused} of {len(found)} pairs were proved before in these environments; "
              "--fresh proves them again", file=sys.stderr)  # fmt: skip
    return found


def _place(question: Question, pair: PairProof) -> tuple[int, ...]:
    """Return the place of a subject's pair in the order of the question."""
    return (
        question.policies.index(pair.policy),
        question.optimizers.index(cast(OptimizerName, pair.optimizer)),
        question.backends.index(pair.backends[1]),
    )


def prove(subject: Subject, question: Question, watcher: Watcher) -> list[PairProof]:
    """Measure a subject with every backend; return the comparison of each with the first, claim by
    claim.

    Raises:
        UserError, Unavailable: A worker found a mistake of the user, or a missing package.
    """
    floors = FLOORS_FROM if FLOORS_FROM in question.backends else question.backends[0]
    order = [floors, *(b for b in question.backends if b != floors)]
    with _exchange_folder(question.cache) as root:
        save_split(proof_split(subject.setting.px, subject.images), root / "data.npz")
        exchange = _Exchange(root, question, subject, watcher)
        rates: Rates | None = None
        failed: dict[str, Finished[ProveAnswer]] = {}
        for backend in order:
            finished = exchange.run(backend, rates)
            if finished.answer is None:
                failed[backend] = finished
                if backend == floors:
                    break
            elif backend == floors:
                rates = finished.answer.learning_rates
        return list(_pairs(exchange, floors, failed))


def worker_variables(threads: int | None) -> dict[str, str]:
    """Return environment variables for the workers of a proof. They keep TensorFlow's allocator
    settings in all backends: VGG19 under torch in float64 spends half of its time on clearing pages
    without them (64 s per proof instead of 31 s).

    Args:
        threads: Threads per worker; None: the framework's own choice.
    """
    return {**ALLOCATOR, **({} if threads is None else dict.fromkeys(THREADS, str(threads)))}


@contextmanager
def _exchange_folder(cache: Path) -> Iterator[Path]:
    """Make a temporary folder for files, and remove folders that killed proofs left behind (some
    gigabytes for VGG19)."""
    place = cache / "exchange"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        try:
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue  # another proof has ended meanwhile
    root = Path(tempfile.mkdtemp(dir=place))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class _Exchange:
    """The folder through which the workers of one proof pass their values."""

    root: Path
    question: Question
    subject: Subject
    watcher: Watcher

    def run(self, backend: str, rates: Rates | None) -> Finished[ProveAnswer]:
        """One backend's worker; measures floors where no learning rates are known yet."""
        self.watcher.measuring(self.subject, backend)
        items = [
            item if rates is None else item.model_copy(update={"learning_rate": rates.get(key)})
            for key, item in self.subject.items.items()
        ]
        task = ProveTask(
            items=tuple(items),
            data=str(self.root / "data.npz"),
            out=str(self.root / backend),
            device=self.question.device,
            floors=rates is None,
        )
        subject = folder_name(self.subject.backbone)
        log = fresh_log(self.question.cache, f"parity-{subject}-{self.subject.precision}-{backend}")

        def on_event(event: Event) -> None:
            if event["event"] == "probed":
                self.watcher.measured()

        finished = run_task(
            backend,
            task,
            log,
            self.question.interpreters,
            on_event,
            variables={
                **worker_variables(self.question.threads),
                CACHE_VARIABLE: str(self.question.cache.absolute()),
            },
        )
        if finished.status == "bad_input":
            raise UserError(finished.message, finished.hint)
        if finished.status == "unavailable":
            raise Unavailable(finished.message)
        return finished

    def side(self, backend: str, claim: Claim) -> Side:
        """Where a backend's values of a claim lie."""
        return Side({part: self.root / backend / key for part, key in claim.items.items()})


def _pairs(
    exchange: _Exchange, floors: str, failed: dict[str, Finished[ProveAnswer]]
) -> Iterator[PairProof]:
    reference, *others = exchange.question.backends
    for claim in exchange.subject.claims:
        for other in others:
            needed = {floors, reference, other}
            broken = [b for b in failed if b in needed]
            if broken:
                first = failed[broken[0]]
                reason = f"{broken[0]} {first.status}: {first.message}"
                yield _pair(exchange, claim, (reference, other), (), None, None, reason)
                continue
            yield _judge(exchange, claim, (reference, other), floors)


def _judge(exchange: _Exchange, claim: Claim, backends: tuple[str, str], floors: str) -> PairProof:
    precision = exchange.subject.precision
    blueprint = exchange.subject.blueprints[claim.weights]
    a, b = (exchange.side(backend, claim) for backend in backends)
    noise = exchange.side(floors, claim)
    levels = compare_levels(a, b, noise, blueprint, precision)
    facts = noise.facts("steps") if "steps" in claim.items else {}
    fall = facts.get("loss_fall")
    fall = fall if fall is not None and math.isfinite(fall) else None
    constant = "forward" in claim.items and has_constant_logits(a, precision)
    reason = failure_reason(levels, fall, constant)
    pair = _pair(exchange, claim, backends, levels, fall, facts.get("learning_rate"), reason)
    return pair.model_copy(
        update={"first_difference": first_difference(a, b, blueprint, precision)}
    )


def _pair(
    exchange: _Exchange,
    claim: Claim,
    backends: tuple[str, str],
    levels: Sequence[Level],
    loss_fall: float | None,
    learning_rate: float | None,
    reason: str | None,
) -> PairProof:
    question, subject = exchange.question, exchange.subject
    ids = {e.backend: e.environment_id for e in environments_of(question)}
    return PairProof(
        backbone=public_name(subject.backbone),
        code_sha256=subject.code.sha256 if subject.code else None,
        policy=claim.policy.name,
        boundary=claim.policy.boundary,
        optimizer=claim.optimizer,
        backends=backends,
        dtype=DTYPES[subject.precision],
        passed=reason is None,
        levels=tuple(levels),
        first_difference=None,
        loss_fall=loss_fall,
        learning_rate=learning_rate,
        px=subject.setting.px,
        batch_size=subject.setting.batch_size,
        head=question.head,
        weights=claim.weights,
        environments=(ids[backends[0]], ids[backends[1]]),
        reason=reason,
    )
