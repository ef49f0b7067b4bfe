"""Drives the workers of a proof and judges what they leave.

Shows what is asked, and keeps what was shown."""

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
from bench.parity.compare import Side, first_difference, is_blind, levels_of, reason_of
from bench.parity.inputs import proof_split, save_split
from bench.parity.model import Level, PairProof
from bench.parity.plan import DTYPES, Claim, Question, Subject, environments_of, subject_of
from bench.parity.proofs import Proofs
from bench.parity.scheduler import (
    ProofTask,
    jobs_on,
    most_bytes,
    need_bytes,
    side_by_side,
    threads_of,
)
from bench.spec.run import OptimizerName
from bench.storage.cache import CACHE_VARIABLE
from bench.workers.process import Event, Finished, fresh_log, run_task
from bench.workers.tasks import ProveAnswer, ProveTask

FLOORS_FROM = "torch"
"""The backend whose own movement is measured, where it takes part: that is four times the work, and
it is the quickest where networks are large (VGG19 at 32 px in float64, no floors, 2 cores: 31 s
under torch, 48 s under TensorFlow)."""
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")
"""What tells OpenMP (torch), TensorFlow and XLA how many threads to start. Workers that start one a
core each, side by side, wait for one another: EfficientNet-Lite0 under torch in float64, two at a
time on 2 cores, 1.84 s a step; with one thread each 0.29 s."""


def worker_variables(threads: int | None) -> dict[str, str]:
    """The environment of a proof's workers. In float64 TensorFlow's heap is kept too; VGG19 under
    torch spends half of its time on clearing pages otherwise (64 s a proof, 31 s so).

    Args:
        threads: Of each; None: as many as its framework takes.
    """
    return {**ALLOCATOR, **({} if threads is None else dict.fromkeys(THREADS, str(threads)))}


ABANDONED_S = 24 * 3600.0
"""Age of an exchange folder that nobody can be using any more."""


class Watcher(Protocol):
    """Where the progress of a proof goes."""

    def measuring(self, subject: Subject, backend: str) -> None:
        """A worker starts."""

    def measured(self) -> None:
        """A worker has measured an item."""

    def proved(self, pair: PairProof) -> None:
        """Report the verdict on a pair."""


Rates = dict[str, float | None]
"""Key of an item → learning rate that it was measured at."""


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


def prove(subject: Subject, question: Question, watcher: Watcher) -> list[PairProof]:
    """Measure a subject with every backend and compare each with the first.

    Returns:
        A pair for each claim and backend but the first.

    Raises:
        UserError, Unavailable: A worker found that the question was wrong or a package missing.
    """
    floors = FLOORS_FROM if FLOORS_FROM in question.backends else question.backends[0]
    order = [floors, *(b for b in question.backends if b != floors)]
    with _folder(question.cache) as root:
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


@contextmanager
def _folder(cache: Path) -> Iterator[Path]:
    place = cache / "exchange"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():  # of a proof that was killed, for VGG19 some gigabytes
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
    levels = levels_of(a, b, noise, blueprint, precision)
    facts = noise.facts("steps") if "steps" in claim.items else {}
    fall = facts.get("loss_fall")
    fall = fall if fall is not None and math.isfinite(fall) else None
    reason = reason_of(levels, fall, "forward" in claim.items and is_blind(a, precision))
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


Watch = Callable[[Sequence[Subject], int], AbstractContextManager[Watcher]]


def show(question: Question, fresh: bool, watch: Watch) -> list[PairProof]:
    """Show what has not been shown yet; every pair asked for, in the order of the question.

    Args:
        question: What is asked.
        fresh: Whether to show again what was shown.
        watch: Makes the display of progress for some subjects and a number of backends.

    Raises:
        UserError, Unavailable: See ``subject_of`` and ``prove``.
    """
    proofs = Proofs(question.cache)
    known = {} if fresh else {p.about: p for p in proofs.load() if p.passed}
    backbones(question.backbones, question.interpreters, question.cache)  # one worker for all
    subjects = [
        subject_of(backbone, precision, question, known)
        for backbone in question.backbones
        for precision in question.precisions
    ]
    pairs = [[known[about] for about in subject.known] for subject in subjects]
    with watch(subjects, len(question.backends)) as watching:
        open_ones = [number for number, subject in enumerate(subjects) if subject.claims]
        jobs = jobs_on(question.device, len(open_ones))
        shared = replace(question, threads=threads_of(jobs))
        tasks = [
            ProofTask(need_bytes(subject), partial(prove, subject, shared, watching))
            for subject in (subjects[number] for number in open_ones)
        ]
        for task, new in side_by_side(tasks, jobs, most_bytes()):
            for pair in new:
                proofs.keep(pair)
                watching.proved(pair)
            pairs[open_ones[task]] += new
    found = [pair for each in pairs for pair in sorted(each, key=partial(_place, question))]
    reused = sum(len(subject.known) for subject in subjects)
    if reused:
        print(f"{reused} of {len(found)} pairs were shown before in these environments; "
              "--fresh shows them again", file=sys.stderr)  # fmt: skip
    return found


def _place(question: Question, pair: PairProof) -> tuple[int, ...]:
    """Where a pair of a subject stands in the question."""
    return (
        question.policies.index(pair.policy),
        question.optimizers.index(cast(OptimizerName, pair.optimizer)),
        question.backends.index(pair.backends[1]),
    )
