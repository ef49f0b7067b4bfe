"""Parallel jobs under a memory limit: most of a proof is one thread that traces and compiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bench.parity.plan import Subject
from bench.spec.run import Precision
from bench.system import cores
from bench.workers.process import WorkerGroup

MAX_JOBS = 4
MAX_BYTES = 20 * 2**30
"""Memory that the workers of proofs may hold together, if the machine has as much."""
SPARE_BYTES = 2**30
WORKER_BYTES = 2 * 2**30
COPIES = 11
"""Copies of its network that a worker holds besides its framework: weights, start, gradients,
moments, their successors, values on their way to a file. Measured with ResNet152 and VGG19 under
TensorFlow."""
ITEM_BYTES: dict[Precision, int] = {"fp64": 8, "fp32": 4}
T = TypeVar("T")


def estimate_memory_bytes(subject: Subject) -> int:
    """Return roughly the peak memory of a worker that proves a subject."""
    shapes = (blueprint.shapes.values() for blueprint in subject.blueprints.values())
    values = max((sum(map(math.prod, each)) for each in shapes), default=0)
    return WORKER_BYTES + COPIES * ITEM_BYTES[subject.precision] * values


def memory_limit_bytes() -> int:
    """Return the memory that all workers together may use on this machine now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (each for each in lines if each.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024 - SPARE_BYTES
        return max(1, min(MAX_BYTES, available))  # with 0 every job would fit
    except (OSError, ValueError):  # not Linux, or an old one
        return MAX_BYTES


def parallel_jobs(device: str, jobs: int) -> int:
    """Return how many of ``jobs`` to run in parallel: on a GPU one, since a worker occupies it."""
    return max(1, min(MAX_JOBS, cores(), jobs)) if device == "cpu" else 1


def threads_per_worker(parallel: int) -> int | None:
    """Return the threads of each of ``parallel`` workers; None: the framework's own choice."""
    return max(1, cores() // parallel) if parallel > 1 else None


@dataclass(frozen=True)
class Job(Generic[T]):
    """Work that may run in parallel with other jobs."""

    memory_bytes: int
    do: Callable[[], T]
    """The work; called once in a pool thread."""


def run_jobs(jobs: Sequence[Job[T]], parallel: int, limit_bytes: int) -> Iterator[tuple[int, T]]:
    """Run jobs in parallel; yield (number of the job, its result) as they finish.

    The next job to start is the first that fits into the free memory; one that needs more than the
    limit runs alone. An exception in a job, or in the consumer, ends the workers of all jobs;
    results of other jobs that have finished by then are yielded before the exception is raised.
    """
    group = WorkerGroup()
    needs = [min(job.memory_bytes, limit_bytes) for job in jobs]
    waiting = list(range(len(jobs)))
    running: dict[Future[T], int] = {}

    def do(job: Job[T]) -> T:
        with group.joined():
            return job.do()

    def start() -> None:
        for number in tuple(waiting):
            free_bytes = limit_bytes - sum(needs[each] for each in running.values())
            if len(running) < parallel and needs[number] <= free_bytes:
                running[pool.submit(do, jobs[number])] = number
                waiting.remove(number)

    pool = ThreadPoolExecutor(parallel)
    error: BaseException | None = None
    try:
        start()
        while running:
            finished = [(running.pop(f), f) for f in wait(running, None, FIRST_COMPLETED).done]
            errors = [e for _, future in finished if (e := future.exception())]
            if errors and error is None:
                error = errors[0]
                group.end()
                waiting.clear()
            start()
            yield from ((n, future.result()) for n, future in finished if not future.exception())
        if error is not None:
            raise error
    finally:
        group.end()
        pool.shutdown(wait=True, cancel_futures=True)
