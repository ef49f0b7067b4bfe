"""Shows what is asked, and keeps what was shown."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import cast

from bench.backbones import backbones
from bench.parity.model import Pair
from bench.parity.plan import Question, subject_of
from bench.parity.proofs import Proofs
from bench.parity.prove import prove
from bench.parity.side_by_side import (
    Task,
    jobs_on,
    most_bytes,
    need_bytes,
    side_by_side,
    threads_of,
)
from bench.parity.watch import watcher
from bench.spec import OptimizerName


def show(question: Question, fresh: bool) -> list[Pair]:
    """Show what has not been shown yet; every pair asked for, in the order of the question.

    Args:
        question: What is asked.
        fresh: Whether to show again what was shown.

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
    with watcher(subjects, len(question.backends)) as watching:
        open_ones = [number for number, subject in enumerate(subjects) if subject.claims]
        jobs = jobs_on(question.device, len(open_ones))
        shared = replace(question, threads=threads_of(jobs))
        tasks = [
            Task(need_bytes(subject), partial(prove, subject, shared, watching))
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


def _place(question: Question, pair: Pair) -> tuple[int, ...]:
    """Where a pair of a subject stands in the question."""
    return (
        question.policies.index(pair.policy),
        question.optimizers.index(cast(OptimizerName, pair.optimizer)),
        question.backends.index(pair.backends[1]),
    )
