"""Several proofs at once: no more than memory and cores bear, and all end together."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from bench.network.blueprint import Network
from bench.parity import scheduler as module
from bench.parity.plan import Subject
from bench.parity.scheduler import (
    COPIES,
    MOST_BYTES,
    MOST_JOBS,
    WORKER_BYTES,
    ProofTask,
    jobs_on,
    most_bytes,
    need_bytes,
    side_by_side,
    threads_of,
)
from bench.parity.tolerances import DEFAULT_SETTING
from bench.spec.run import Precision
from bench.workers.process import WorkerGroup

LIMIT = 100


def test_results_come_with_the_number_of_their_task() -> None:
    tasks = [ProofTask(1, lambda number=number: number * number) for number in range(20)]
    assert sorted(side_by_side(tasks, 3, LIMIT)) == [(n, n * n) for n in range(20)]
    assert list(side_by_side([], 3, LIMIT)) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_run_at_once_as_was_said(jobs: int) -> None:
    meet = threading.Barrier(jobs)
    tasks = [ProofTask(1, lambda: meet.wait(timeout=10.0))] * (2 * jobs)
    assert len(list(side_by_side(tasks, jobs, LIMIT))) == 2 * jobs


def test_a_failure_ends_the_rest() -> None:
    begun: list[int] = []

    def do(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(side_by_side([ProofTask(1, partial(do, n)) for n in range(1000)], 1, LIMIT))
    assert len(begun) < 1000


def test_what_is_finished_when_another_fails_is_not_lost() -> None:
    failing = threading.Event()

    def fail() -> None:
        failing.set()
        raise ValueError("no")

    def finish() -> str:
        assert failing.wait(10.0)
        time.sleep(0.1)
        return "finished"

    results = side_by_side([ProofTask(1, finish), ProofTask(1, fail)], 2, LIMIT)
    assert next(results) == (0, "finished")
    with pytest.raises(ValueError, match="no"):
        next(results)


def test_a_reader_that_leaves_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(WorkerGroup, "end", lambda self: ended.append(True))
    results = side_by_side([ProofTask(1, lambda: 1)] * 3, 1, LIMIT)
    next(results)
    assert not ended
    results.close()  # type: ignore[attr-defined]
    assert ended


def test_memory_is_shared_out_and_given_back() -> None:
    held: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def do(wanted: int) -> None:
        with lock:
            held.append(wanted)
            most.append(sum(held))
        time.sleep(0.01)
        with lock:
            held.remove(wanted)

    wanted = [4, 5, 6, 3, 7, 2, 10, 1]
    tasks = [ProofTask(w, partial(do, w)) for w in wanted]
    assert len(list(side_by_side(tasks, 4, 10))) == len(wanted)
    assert max(most) <= 10
    assert any(m not in wanted for m in most)  # some were at work together


def test_what_fits_goes_before_what_does_not() -> None:
    """And what needs more than there is at all goes when nothing else is at work."""
    order: list[str] = []
    small_began = threading.Event()

    def large() -> None:
        assert small_began.wait(10.0)
        order.append("large")

    def small() -> None:
        small_began.set()

    tasks = [ProofTask(8, large), ProofTask(100, lambda: order.append("huge")), ProofTask(2, small)]
    list(side_by_side(tasks, 2, 10))
    assert order == ["large", "huge"]


@pytest.mark.parametrize(("precision", "item_bytes"), [("fp64", 8), ("fp32", 4)])
def test_need_grows_with_the_network(
    network: Network, precision: Precision, item_bytes: int
) -> None:
    subject = Subject("x", precision, DEFAULT_SETTING)
    assert need_bytes(subject) == WORKER_BYTES
    subject.blueprints["random"] = network.blueprint
    values = sum(tensor.size for tensor in network.tensors.values())
    assert need_bytes(subject) == WORKER_BYTES + COPIES * item_bytes * values


def test_a_gpu_is_held_by_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 64)
    assert jobs_on("cuda:0", 9) == 1
    assert jobs_on("cpu", 9) == MOST_JOBS
    assert jobs_on("cpu", 2) == 2
    assert jobs_on("cpu", 0) == 1
    monkeypatch.setattr(module, "cores", lambda: 1)
    assert jobs_on("cpu", 9) == 1


def test_a_small_machine_bears_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(text: str) -> int:
        monkeypatch.setattr(Path, "read_text", lambda _: text)
        return most_bytes()

    assert told("MemTotal: 9 kB\nMemAvailable:    6291456 kB\n") == 5 * 2**30
    assert told("MemAvailable: 1000 kB\n") == 1
    assert told(f"MemAvailable: {2**40} kB\n") == MOST_BYTES
    assert told("something else\n") == MOST_BYTES


def test_where_there_is_no_memory_one_runs_at_a_time() -> None:
    at_work: list[int] = []
    most: list[int] = []

    def do() -> None:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()

    assert len(list(side_by_side([ProofTask(2**33, do)] * 6, 3, 1))) == 6
    assert max(most) == 1


def test_workers_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 8)
    assert threads_of(4) == 2
    assert threads_of(1) is None
    monkeypatch.setattr(module, "cores", lambda: 2)
    assert threads_of(4) == 1
