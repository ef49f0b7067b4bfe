"""Tests of parallel jobs: limits of memory and cores, failures, and the end of all workers."""

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
    MAX_BYTES,
    MAX_JOBS,
    WORKER_BYTES,
    Job,
    estimate_memory_bytes,
    memory_limit_bytes,
    parallel_jobs,
    run_jobs,
    threads_per_worker,
)
from bench.parity.tolerances import DEFAULT_SETTING
from bench.spec.run import Precision
from bench.workers.process import WorkerGroup

LIMIT = 100


def test_results_come_with_the_number_of_their_task() -> None:
    tasks = [Job(1, lambda number=number: number * number) for number in range(20)]
    assert sorted(run_jobs(tasks, 3, LIMIT)) == [(n, n * n) for n in range(20)]
    assert list(run_jobs([], 3, LIMIT)) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_run_at_once_as_was_said(jobs: int) -> None:
    meet = threading.Barrier(jobs)
    tasks = [Job(1, lambda: meet.wait(timeout=10.0))] * (2 * jobs)
    assert len(list(run_jobs(tasks, jobs, LIMIT))) == 2 * jobs


def test_a_failure_ends_the_rest() -> None:
    begun: list[int] = []

    def do(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(run_jobs([Job(1, partial(do, n)) for n in range(1000)], 1, LIMIT))
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

    results = run_jobs([Job(1, finish), Job(1, fail)], 2, LIMIT)
    assert next(results) == (0, "finished")
    with pytest.raises(ValueError, match="no"):
        next(results)


def test_a_reader_that_leaves_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(WorkerGroup, "end", lambda self: ended.append(True))
    results = run_jobs([Job(1, lambda: 1)] * 3, 1, LIMIT)
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
    tasks = [Job(w, partial(do, w)) for w in wanted]
    assert len(list(run_jobs(tasks, 4, 10))) == len(wanted)
    assert max(most) <= 10
    assert any(m not in wanted for m in most)  # some ran in parallel


def test_what_fits_goes_before_what_does_not() -> None:
    """A job that needs more than the limit runs when no other job does."""
    order: list[str] = []
    small_began = threading.Event()

    def large() -> None:
        assert small_began.wait(10.0)
        order.append("large")

    def small() -> None:
        small_began.set()

    tasks = [Job(8, large), Job(100, lambda: order.append("huge")), Job(2, small)]
    list(run_jobs(tasks, 2, 10))
    assert order == ["large", "huge"]


@pytest.mark.parametrize(("precision", "item_bytes"), [("fp64", 8), ("fp32", 4)])
def test_need_grows_with_the_network(
    network: Network, precision: Precision, item_bytes: int
) -> None:
    subject = Subject("x", precision, DEFAULT_SETTING)
    assert estimate_memory_bytes(subject) == WORKER_BYTES
    subject.blueprints["random"] = network.blueprint
    values = sum(tensor.size for tensor in network.tensors.values())
    assert estimate_memory_bytes(subject) == WORKER_BYTES + COPIES * item_bytes * values


def test_a_gpu_is_held_by_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 64)
    assert parallel_jobs("cuda:0", 9) == 1
    assert parallel_jobs("cpu", 9) == MAX_JOBS
    assert parallel_jobs("cpu", 2) == 2
    assert parallel_jobs("cpu", 0) == 1
    monkeypatch.setattr(module, "cores", lambda: 1)
    assert parallel_jobs("cpu", 9) == 1


def test_a_small_machine_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(text: str) -> int:
        monkeypatch.setattr(Path, "read_text", lambda _: text)
        return memory_limit_bytes()

    assert limit("MemTotal: 9 kB\nMemAvailable:    6291456 kB\n") == 5 * 2**30
    assert limit("MemAvailable: 1000 kB\n") == 1
    assert limit(f"MemAvailable: {2**40} kB\n") == MAX_BYTES
    assert limit("something else\n") == MAX_BYTES


def test_where_there_is_no_memory_one_runs_at_a_time() -> None:
    at_work: list[int] = []
    most: list[int] = []

    def do() -> None:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()

    assert len(list(run_jobs([Job(2**33, do)] * 6, 3, 1))) == 6
    assert max(most) == 1


def test_workers_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 8)
    assert threads_per_worker(4) == 2
    assert threads_per_worker(1) is None
    monkeypatch.setattr(module, "cores", lambda: 2)
    assert threads_per_worker(4) == 1
