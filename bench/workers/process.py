"""Worker processes: one framework each, with a time limit."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.catalog.backends import BACKENDS
from bench.spec.run import Status
from bench.system import project_root

Event = dict[str, Any]
STARTED_VARIABLE = "THAWBENCH_WORKER_STARTED"
"""Environment variable of a worker: when it was started, in seconds since the epoch."""


@dataclass(frozen=True)
class Finished:
    """How a job ended."""

    answer: Event | None
    """What the task gave; None if it failed."""
    status: Status | str = "ok"
    """'ok', 'unavailable', 'bad_input', 'timeout', 'oom' or 'crashed'."""
    kind: str = ""
    """Of the failure."""
    message: str = ""
    """Of the failure, for people."""
    hint: str | None = None
    """What mends it."""


@dataclass(frozen=True)
class Interpreters:
    """Which Python runs the workers of a backend."""

    chosen: dict[str, Path]
    """Backend → interpreter, where it is not the default."""

    def of(self, backend: str) -> Path:
        """The user's choice, else ``.venv-tensorflow`` for TensorFlow where ``make`` built it for
        the GPU (DESIGN section 8), else this interpreter."""
        if backend in self.chosen:
            return self.chosen[backend]
        second = project_root() / ".venv-tensorflow" / "bin" / "python"
        if backend == "keras-tensorflow" and second.is_file():
            return second
        return Path(sys.executable)


class Stopped(Exception):
    """The group that a worker belongs to was ended."""


class WorkerGroup:
    """Workers of several threads, which can be ended together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Workers that this thread starts inside belong to the group.

        Raises:
            Stopped: It was ended.
        """
        if self._ended:
            raise Stopped
        token = _group.set(self)
        try:
            yield
        finally:
            _group.reset(token)

    def end(self) -> None:
        """End all that run; whoever waits for one, or comes afterwards, gets ``Stopped``."""
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill(process)

    @contextmanager
    def holding(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """While a worker runs.

        Raises:
            Stopped: The group was ended, before or meanwhile.
        """
        with self._lock:
            self._running.add(process)
            if self._ended:
                _kill(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)
        if self._ended:
            raise Stopped


_group: ContextVar[WorkerGroup | None] = ContextVar("group", default=None)


def run_job(
    backend: str,
    job: dict[str, Any],
    log: Path,
    interpreters: Interpreters,
    on_event: Callable[[Event], None] = lambda event: None,
    timeout_s: float | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Finished:
    """Do one job in a worker process of its own.

    Args:
        backend: Whose worker.
        job: 'task' and its arguments, see ``backends.worker``.
        log: File that the worker's output goes to.
        interpreters: Which Python.
        on_event: Called with each event that the task sends.
        timeout_s: After which the worker is ended.
        variables: Of its environment, besides the backend's own.

    Raises:
        Stopped: The group of this thread was ended.
    """
    worker = Worker(backend, log, interpreters, variables)
    group = _group.get()
    try:
        with nullcontext() if group is None else group.holding(worker.process):
            return worker.do(job, log, on_event, timeout_s)
    finally:
        worker.end()


class Worker:
    """A process that does jobs for a backend, one after the other."""

    def __init__(
        self,
        backend: str,
        log: Path,
        interpreters: Interpreters,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start it; arguments as those of ``run_job``. ``log`` takes its output from now on."""
        self._backend = backend
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [str(interpreters.of(backend)), "-P", "-m", "backends.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**_variables(backend), **variables, STARTED_VARIABLE: repr(time.time())},
                start_new_session=True,
            )
        self._events = _reader(self.process)

    def do(
        self,
        job: dict[str, Any],
        log: Path,
        on_event: Callable[[Event], None] = lambda event: None,
        timeout_s: float | None = None,
    ) -> Finished:
        """Do one job; arguments as those of ``run_job``, ``log`` where the last words are read.

        A worker that gave no answer is of no use afterwards: ``end`` it. Of one that did, ask
        ``held_bytes`` before the next job.
        """
        killed_before = _oom_kills()
        whole = {**job, "backend": self._backend}
        finished = _converse(self.process, self._events, whole, log, on_event, timeout_s)
        if finished.kind == "SIGKILL" and _oom_kills() > killed_before:
            message = "the worker was killed because the machine's memory ran out"
            return Finished(None, "oom", "SIGKILL", message)
        return finished

    def held_bytes(self, patience_s: float) -> int | None:
        """Memory that the worker holds, once it has tidied up after its last job; None if it is
        gone, does not know, or is not ready within ``patience_s``."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                event = self._events.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return None
            if event is None:
                return None
            if event["event"] == "idle":
                held: int | None = event["held_bytes"]
                return held

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def end(self) -> None:
        """Make sure that the process and its children are gone."""
        _end(self.process)


def _variables(backend: str) -> dict[str, str]:
    paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi counts, so that cuda:1 is one card
        **BACKENDS[backend].variables,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "PYTHONUNBUFFERED": "1",
    }


def _converse(
    process: subprocess.Popen[bytes],
    events: queue.Queue[Event | None],
    job: dict[str, Any],
    log: Path,
    on_event: Callable[[Event], None],
    timeout_s: float | None,
) -> Finished:
    assert process.stdin is not None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return _died(process, log)
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            event = events.get(timeout=left)
        except queue.Empty:
            return Finished(None, "timeout", "timeout", f"not done within {timeout_s:g} s")
        if event is None:
            return _died(process, log)
        if event["event"] == "done":
            return Finished(event)
        if event["event"] == "failed":
            return Finished(
                None, event["status"], event["kind"], event["message"], event.get("hint")
            )
        on_event(event)


def _reader(process: subprocess.Popen[bytes]) -> queue.Queue[Event | None]:
    """The worker's events, in a queue that a time limit can wait on; None at their end."""
    events: queue.Queue[Event | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut short by a crash
            if isinstance(event, dict) and "event" in event:
                events.put(event)
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    return events


def _died(process: subprocess.Popen[bytes], log: Path) -> Finished:
    """A worker that ended, or closed its pipe, without an answer."""
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return Finished(None, "crashed", "silent", "the worker closed its pipe and went on")
    kind = _signal_name(-code) if code < 0 else f"exit code {code}"
    cause = f"signal {kind}" if code < 0 else kind
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
    return Finished(None, "crashed", kind, f"the worker ended by {cause}: {last[0][:300]}")


def _oom_kills() -> int:
    """How often Linux has killed for want of memory since it started (/proc/vmstat)."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return str(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The worker and its children, also those that outlived it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the worker and its children are gone."""
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass
