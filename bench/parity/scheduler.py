"""Several proofs at once: most of a proof is one thread that traces and compiles."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bench.parity.plan import Subject
from bench.spec.run import Precision
from bench.system import cores
from bench.workers.process import WorkerGroup

MOST_JOBS = 4
MOST_BYTES = 20 * 2**30
"""What the workers of proofs may hold together, where the machine has as much."""
SPARE_BYTES = 2**30
WORKER_BYTES = 2 * 2**30
COPIES = 11
"""A worker holds its framework, and its network about so often: weights, start, gradients,
moments, their successors, values on their way to a file. Seen with ResNet152 and VGG19 under
TensorFlow."""
ITEM_BYTES: dict[Precision, int] = {"fp64": 8, "fp32": 4}
T = TypeVar("T")


def need_bytes(subject: Subject) -> int:
    """Most memory that a worker of a proof holds, roughly."""
    shapes = (blueprint.shapes.values() for blueprint in subject.blueprints.values())
    values = max((sum(map(math.prod, each)) for each in shapes), default=0)
    return WORKER_BYTES + COPIES * ITEM_BYTES[subject.precision] * values


def jobs_on(device: str, tasks: int) -> int:
    """How many of so many proofs at once: on a GPU one worker at a time holds the device."""
    return max(1, min(MOST_JOBS, cores(), tasks)) if device == "cpu" else 1


def most_bytes() -> int:
    """What the workers of proofs may hold together on this machine now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (each for each in lines if each.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024 - SPARE_BYTES
        return max(1, min(MOST_BYTES, available))  # of nothing, everybody's share would fit
    except (OSError, ValueError):  # not Linux, or an old one
        return MOST_BYTES


def threads_of(jobs: int) -> int | None:
    """Threads of each worker where so many run at once; None: its framework's own choice."""
    return max(1, cores() // jobs) if jobs > 1 else None


@dataclass(frozen=True)
class ProofTask(Generic[T]):
    """Something to be done beside others."""

    need_bytes: int
    """Most memory that its workers hold."""
    do: Callable[[], T]
    """It."""


def side_by_side(
    tasks: Sequence[ProofTask[T]], jobs: int, limit_bytes: int
) -> Iterator[tuple[int, T]]:
    """Do tasks; each result with its task's number, as they come. An exception of one, or of the
    reader, ends the workers of all.

    Args:
        tasks: What to do. The next one is the first that fits into the memory that is left; one
            that needs more than there is at all runs alone.
        jobs: How many at once.
        limit_bytes: What they may hold together.
    """
    group, turns = WorkerGroup(), _Turns([task.need_bytes for task in tasks], limit_bytes)

    def one() -> tuple[int, T]:
        with turns.next() as number, group.joined():
            return number, tasks[number].do()

    pool = ThreadPoolExecutor(jobs)
    failed: BaseException | None = None
    try:
        for future in as_completed([pool.submit(one) for _ in tasks]):
            error = future.exception()
            if error is None:
                yield future.result()
            elif failed is None:  # what others have finished meanwhile is not lost
                failed = error
                group.end()  # also for those that are not begun
        if failed is not None:
            raise failed
    finally:
        group.end()
        pool.shutdown(wait=True, cancel_futures=True)


class _Turns:
    """Whose turn it is, by the memory that is left."""

    def __init__(self, needs: Sequence[int], total: int) -> None:
        self._waiting = {number: min(need, total) for number, need in enumerate(needs)}
        self._left = total
        self._changed = threading.Condition()

    @contextmanager
    def next(self) -> Iterator[int]:
        """The number of a task that fits, which holds its memory inside; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._fitting() is not None)
            number = self._fitting()
            assert number is not None
            need = self._waiting.pop(number)
            self._left -= need
        try:
            yield number
        finally:
            with self._changed:
                self._left += need
                self._changed.notify_all()

    def _fitting(self) -> int | None:
        fitting = (n for n, need in self._waiting.items() if need <= self._left)
        return next(fitting, None)
