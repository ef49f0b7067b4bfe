"""The pool of workers: one does run after run, and is replaced if it cannot do another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.spec.run import RunSpec
from bench.workers import pool
from bench.workers.pool import WorkerKind, WorkerPool, kind_of
from bench.workers.process import Interpreters
from tests.stub_tasks import StubTask

STUB = """
import json, os, sys, time
for number, line in enumerate(sys.stdin):
    task = json.loads(line)
    done = {"event": "done", "pid": os.getpid(), "number": number}
    exec(task.get("code", ""))
    print(json.dumps({**done, **task.get("answer", {})}), flush=True)
    exec(task.get("after", ""))
    print(json.dumps({"event": "idle", "held_bytes": task.get("held_bytes", 10)}), flush=True)
"""
TORCH = WorkerKind("torch", "cpu", "matched", "fp32")
FAILURE = {"kind": "OutOfMemoryError", "message": "no room"}
OOM = {"run_id": "r", "environment_id": "e", "status": "oom", "failure": FAILURE}


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkerPool]:
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stub}"\n')
    python.chmod(0o755)
    interpreters = Interpreters({"torch": python, "keras-tensorflow": python})
    with WorkerPool(interpreters) as made:
        yield made


@pytest.fixture
def do(workers: WorkerPool, tmp_path: Path) -> Callable[..., Any]:
    def do(kind: WorkerKind = TORCH, timeout_s: float | None = None, **task: Any) -> Any:
        return workers.do(kind, StubTask(**task), tmp_path / "log", timeout_s=timeout_s)

    return do


def test_the_same_worker_does_the_next_task(do: Callable[..., Any]) -> None:
    answers = [do().answer for _ in range(3)]
    assert [a.number for a in answers] == [0, 1, 2]
    assert len({a.pid for a in answers}) == 1


def test_another_backend_has_a_worker_of_its_own_and_both_stay(do: Callable[..., Any]) -> None:
    other = TORCH._replace(backend="keras-tensorflow")
    first, second = do(TORCH).answer, do(other).answer
    assert first.pid != second.pid
    assert (do(TORCH).answer.number, do(other).answer.number) == (1, 1)


@pytest.mark.parametrize(
    "change", [{"mode": "native"}, {"precision": "fp64"}, {"code_sha256": "ab"}], ids=str
)
def test_other_settings_of_the_process_need_another_worker_in_its_place(
    do: Callable[..., Any], workers: WorkerPool, change: dict[str, str]
) -> None:
    other = TORCH._replace(**change)
    first, second = do(TORCH).answer, do(other).answer
    assert first.pid != second.pid
    assert set(workers._workers) == {other}, "idle workers do not add up"


def test_on_a_gpu_one_worker_at_a_time_holds_the_device(
    do: Callable[..., Any], workers: WorkerPool
) -> None:
    torch = TORCH._replace(device="cuda:0")
    keras = torch._replace(backend="keras-tensorflow")
    second_gpu = TORCH._replace(device="cuda:1")
    do(TORCH), do(torch), do(second_gpu)
    assert set(workers._workers) == {TORCH, torch, second_gpu}
    do(keras)
    assert set(workers._workers) == {TORCH, second_gpu, keras}


@pytest.mark.parametrize(
    "job",
    [
        {"held_bytes": pool.LEAST_HELD_BYTES + 1},
        {"held_bytes": None},
        {"after": "time.sleep(60)"},
        {"after": "os.abort()"},
        {"answer": {"results": [OOM]}},
        {"answer": {"event": "failed", "status": "crashed", "kind": "ValueError", "message": "m"}},
        {"answer": {"event": "failed", "status": "unavailable", "kind": "u", "message": "m"}},
    ],
    ids=str,
)
def test_a_worker_that_cannot_go_on_is_replaced(
    do: Callable[..., Any],
    workers: WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
    job: dict[str, Any],
) -> None:
    monkeypatch.setattr(workers, "_most_held_bytes", pool.LEAST_HELD_BYTES)
    monkeypatch.setattr(pool, "TIDY_TIMEOUT_S", 1.0)
    first = do().answer.pid
    done = do(**job)
    assert "answer" in job or done.status == "ok", "what comes after the work costs no result"
    again = do().answer
    assert again.number == 0
    assert again.pid != first


@pytest.mark.parametrize(("device", "stays"), [("cpu", False), ("cuda:0", True)])
def test_a_gpus_libraries_are_no_leak(
    do: Callable[..., Any], workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, device: str,
    stays: bool,
) -> None:  # fmt: skip
    """The driver's context and the libraries of CUDA take gigabytes of the host's memory."""
    monkeypatch.setattr(workers, "_most_held_bytes", pool.LEAST_HELD_BYTES)
    kind = TORCH._replace(device=device)
    do(kind, held_bytes=pool.LEAST_HELD_BYTES + 3 * 2**30)
    assert do(kind).answer.number == (1 if stays else 0)


def test_the_pool_knows_its_processes(do: Callable[..., Any], workers: WorkerPool) -> None:
    assert workers.pids == []
    pid = do().answer.pid
    assert len(workers.pids) == 1
    assert pid in workers.pids


def test_what_a_worker_may_hold_is_a_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "machine_bytes", lambda: 128 * 2**30)
    assert WorkerPool(Interpreters({}))._most_held_bytes == 8 * 2**30
    monkeypatch.setattr(pool, "machine_bytes", lambda: 8 * 2**30)
    assert WorkerPool(Interpreters({}))._most_held_bytes == pool.LEAST_HELD_BYTES


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ({"code": "os.abort()"}, "crashed"),
        ({"code": "os._exit(3)"}, "crashed"),
        ({"code": "time.sleep(60)", "timeout_s": 0.3}, "timeout"),
    ],
)
def test_a_crash_costs_its_own_run_only(
    do: Callable[..., Any], job: dict[str, Any], status: str
) -> None:
    do()
    assert do(**job).status == status
    assert do().answer.number == 0


def test_a_worker_that_died_between_two_tasks_is_replaced(do: Callable[..., Any]) -> None:
    first = do(code="import threading; threading.Timer(0.05, os._exit, (7,)).start()").answer
    time.sleep(0.5)
    again = do()
    assert again.status == "ok"
    assert again.answer.pid != first.pid


def test_all_are_ended_at_the_end(do: Callable[..., Any], workers: WorkerPool) -> None:
    do(), do(TORCH._replace(backend="keras-tensorflow"))
    held = list(workers._workers.values())
    assert all(w.process.poll() is None for w in held)
    workers.__exit__(None, None, None)
    assert all(w.process.poll() is not None for w in held)


def test_ctrl_c_ends_the_worker(
    do: Callable[..., Any], workers: WorkerPool, tmp_path: Path
) -> None:
    do()
    (held,) = workers._workers.values()

    def interrupted(event: Any) -> None:
        raise KeyboardInterrupt

    job = {"code": 'print(json.dumps({"event": "step", "share": 0.5}), flush=True); time.sleep(60)'}
    with pytest.raises(KeyboardInterrupt):
        workers.do(TORCH, StubTask(**job), tmp_path / "log", interrupted)
    assert held.process.poll() is not None


def test_each_task_has_its_own_log(do: Callable[..., Any], tmp_path: Path) -> None:
    assert do(code='done["log"] = task["log"]').answer.log == str(tmp_path / "log")


def test_the_kind_is_what_a_process_cannot_change(make_spec: Callable[..., RunSpec]) -> None:
    spec = make_spec(code_sha256="ab" * 32)
    kind = WorkerKind(spec.backend, spec.device, spec.mode, spec.recipe.precision)
    assert kind_of(spec) == kind, "in matched mode the worker does not run the user's code"
    native = spec.model_copy(update={"mode": "native"})
    assert kind_of(native) == kind._replace(mode="native", code_sha256="ab" * 32)
