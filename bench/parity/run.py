"""Proofs: drive the workers, judge what they leave, and keep the verdicts."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from bench.catalog.backends import ALLOCATOR
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbones, folder_name
from bench.parity.compare import (
    Side,
    compare_levels,
    failure_reason,
    first_difference,
    has_constant_logits,
)
from bench.parity.inputs import proof_split, save_split
from bench.parity.model import PairProof
from bench.parity.plan import Claim, Question, Subject, subject_of
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
    """Prove the pairs of a question that are not proved yet, if ``fresh`` also those that are;
    return all of its pairs, in order.

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
    reused = sum(map(len, pairs))
    with watch(subjects, len(question.backends)) as watcher:
        missing = [(number, subject) for number, subject in enumerate(subjects) if subject.claims]
        workers = parallel_jobs(question.device, len(missing))
        shared = replace(question, threads=threads_per_worker(workers))
        jobs = [
            Job(estimate_memory_bytes(subject), partial(prove, subject, shared, watcher))
            for _, subject in missing
        ]
        for job, new in run_jobs(jobs, workers, memory_limit_bytes()):
            for pair in new:
                proofs.keep(pair)
                watcher.proved(pair)
            pairs[missing[job][0]] += new
    found = [pair for each in pairs for pair in sorted(each, key=partial(_place, question))]
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
        proof = _Proof(root, question, subject, watcher)
        rates: Rates | None = None
        failed: dict[str, Finished[ProveAnswer]] = {}
        for backend in order:
            finished = proof.measure(backend, rates)
            if finished.answer is None:
                failed[backend] = finished
                if backend == floors:
                    break
            elif backend == floors:
                rates = finished.answer.learning_rates
        return list(proof.pairs(floors, failed))


def worker_variables(threads: int | None) -> dict[str, str]:
    """Return environment variables for the workers of a proof. They keep TensorFlow's allocator
    settings in all backends: VGG19 under torch in float64 spends half of its time on clearing pages
    without them (64 s per proof instead of 31 s). With None, frameworks choose their threads."""
    return {**ALLOCATOR, **({} if threads is None else dict.fromkeys(THREADS, str(threads)))}


@contextmanager
def _exchange_folder(cache: Path) -> Iterator[Path]:
    """Make a temporary folder; remove those that killed proofs left (some gigabytes for VGG19)."""
    place = cache / "exchange"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        with suppress(FileNotFoundError):  # another proof has ended meanwhile
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as root:
        yield Path(root)


@dataclass
class _Proof:
    """A proof in progress, with the folder through which its workers pass their values."""

    root: Path
    question: Question
    subject: Subject
    watcher: Watcher

    def measure(self, backend: str, rates: Rates | None) -> Finished[ProveAnswer]:
        """Run the worker of one backend; without ``rates`` it also measures noise floors and
        searches for learning rates.

        Raises:
            UserError, Unavailable: See ``prove``.
        """
        question, subject = self.question, self.subject
        self.watcher.measuring(subject, backend)
        items = [
            item if rates is None else item.model_copy(update={"learning_rate": rates.get(key)})
            for key, item in subject.items.items()
        ]
        task = ProveTask(
            items=tuple(items),
            data=str(self.root / "data.npz"),
            out=str(self.root / backend),
            device=question.device,
            floors=rates is None,
        )
        name = f"parity-{folder_name(subject.backbone)}-{subject.precision}-{backend}"

        def on_event(event: Event) -> None:
            if event["event"] == "probed":
                self.watcher.measured()

        finished = run_task(
            backend,
            task,
            fresh_log(question.cache, name),
            question.interpreters,
            on_event,
            variables={
                **worker_variables(question.threads),
                CACHE_VARIABLE: str(question.cache.absolute()),
            },
        )
        if finished.status == "bad_input":
            raise UserError(finished.message, finished.hint)
        if finished.status == "unavailable":
            raise Unavailable(finished.message)
        return finished

    def pairs(self, floors: str, failed: dict[str, Finished[ProveAnswer]]) -> Iterator[PairProof]:
        """Yield the verdicts on all claims, given the backend whose noise floors were measured and
        those that failed."""
        reference, *others = self.question.backends
        for claim in self.subject.claims:
            for other, key in zip(others, claim.keys, strict=True):
                backends = (reference, other)
                broken = next((b for b in failed if b in (floors, *backends)), None)
                if broken is None:
                    found = self._judge(claim, backends, floors)
                else:
                    reason = f"{broken} {failed[broken].status}: {failed[broken].message}"
                    found = {"passed": False, "reason": reason, "levels": (), "loss_fall": None,
                             "learning_rate": None, "first_difference": None}  # fmt: skip
                yield PairProof(**key._asdict(), backends=backends, **found)

    def _judge(self, claim: Claim, backends: tuple[str, str], floors: str) -> dict[str, Any]:
        """Return the fields of a ``PairProof`` that hold the verdict."""
        precision, blueprint = self.subject.precision, self.subject.blueprints[claim.weights]
        a, b, noise = (
            Side({part: self.root / backend / key for part, key in claim.items.items()})
            for backend in (*backends, floors)
        )
        levels = compare_levels(a, b, noise, blueprint, precision)
        facts = noise.facts("steps") if "steps" in claim.items else {}
        fall = facts.get("loss_fall")
        fall = fall if fall is not None and math.isfinite(fall) else None
        constant = "forward" in claim.items and has_constant_logits(a, precision)
        reason = failure_reason(levels, fall, constant)
        return {
            "passed": reason is None,
            "reason": reason,
            "levels": levels,
            "loss_fall": fall,
            "learning_rate": facts.get("learning_rate"),
            "first_difference": first_difference(a, b, blueprint, precision),
        }
