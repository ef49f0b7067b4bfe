"""Worker processes: start one, give it tasks, read its events, end it."""

from __future__ import annotations

import functools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, cast

from pydantic import ValidationError

from bench.catalog.backends import BACKENDS
from bench.errors import Unavailable, UserError, WorkerFailed, first_line
from bench.spec.run import Environment, Status
from bench.storage.cache import CACHE_VARIABLE, cache_root
from bench.system import project_root
from bench.workers.environment import VARIABLES
from bench.workers.tasks import (
    NOT_INSTALLED,
    STARTED_VARIABLE,
    Answer,
    EnvironmentTask,
    Task,
)

Event = dict[str, Any]
"""A message that a worker sends during a task: {'event': kind, …}."""


@dataclass(frozen=True)
class Finished(Generic[Answer]):
    """The end of a task: its answer, or its failure."""

    answer: Answer | None
    """Answer of the worker; None if the task failed."""
    status: Status | Literal["bad_input"] = "ok"
    """Status; 'bad_input' is a mistake of the user."""
    kind: str = ""
    """Failure in a word: name of the exception, signal …"""
    message: str = ""
    """Failure in a sentence."""
    hint: str | None = None
    """Command or change that fixes it."""

    def require(self, what: str, log: Path) -> Answer:
        """Return the answer.

        Args:
            what: The task in words for the message, as in "exporting vgg16".
            log: File that holds the worker's output.

        Raises:
            UserError: The task found a mistake of the user.
            Unavailable: Something that the task needs is not available here.
            WorkerFailed: The worker crashed, or ran out of memory or time.
        """
        if self.answer is not None:
            return self.answer
        if self.status == "bad_input":
            raise UserError(self.message, self.hint)
        if self.status == "unavailable":
            raise Unavailable(self.message)
        raise WorkerFailed(f"{what} failed: {self.message} (the worker's output: {log})")


@dataclass(frozen=True)
class Interpreters:
    """The Python interpreter of each backend's workers."""

    chosen: dict[str, Path]
    """Backend → interpreter, for those that the user chose."""

    def of(self, backend: str) -> Path:
        """Return the user's choice, else ``.venv-tensorflow`` for TensorFlow if ``make`` created it
        for a GPU (docs/design.md, Devices), else this interpreter."""
        if backend in self.chosen:
            return self.chosen[backend]
        second = project_root() / ".venv-tensorflow" / "bin" / "python"
        if backend == "keras-tensorflow" and second.is_file():
            return second
        return Path(sys.executable)


class Stopped(Exception):
    """Raised in threads that wait for a worker whose group was ended."""


class WorkerGroup:
    """Workers of several threads that can be ended together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let workers that this thread starts inside belong to the group.

        Raises:
            Stopped: The group was ended.
        """
        if self._ended:
            raise Stopped
        token = _group.set(self)
        try:
            yield
        finally:
            _group.reset(token)

    def end(self) -> None:
        """End all workers; threads that wait for one, or start one later, get ``Stopped``."""
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill(process)

    @contextmanager
    def holding(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Let a running worker belong to the group.

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


def run_task(
    backend: str,
    task: Task[Answer],
    log: Path,
    interpreters: Interpreters,
    on_event: Callable[[Event], None] = lambda event: None,
    timeout_s: float | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Finished[Answer]:
    """Do a task in a new worker process and return how it ended.

    Args:
        backend: Backend of the worker.
        task: Task to do.
        log: File that the worker's output is appended to.
        interpreters: Python interpreter of each backend.
        on_event: Called with each event that the task sends.
        timeout_s: Time after which the worker is ended.
        variables: Environment variables of the worker, besides those of its backend.

    Raises:
        Stopped: The worker group of this thread was ended.
    """
    worker = Worker(backend, log, interpreters, variables)
    group = _group.get()
    try:
        with nullcontext() if group is None else group.holding(worker.process):
            return worker.do(task, log, on_event, timeout_s)
    finally:
        worker.end()


def ask(
    backend: str,
    task: Task[Answer],
    interpreters: Interpreters,
    what: str,
    cache: Path | None = None,
    timeout_s: float | None = None,
) -> Answer:
    """Do a task in a new worker process and return its answer.

    Args:
        backend: Backend of the worker.
        task: Task to do.
        interpreters: Python interpreter of each backend.
        what: The task in words, as in "exporting vgg16", for messages and the name of its log.
        cache: Root of the cache that the worker uses and that gets its log; None: the user's.
        timeout_s: Time after which the worker is ended.

    Raises:
        UserError, Unavailable, WorkerFailed: See ``Finished.require``.
    """
    root = cache or cache_root()
    log = fresh_log(root, f"{what}-{backend}")
    variables = {CACHE_VARIABLE: str(root.absolute())}
    finished = run_task(backend, task, log, interpreters, timeout_s=timeout_s, variables=variables)
    return finished.require(what, log)


def fresh_log(cache: Path, name: str) -> Path:
    """Return the path of a log in the cache, after deleting the log of an earlier task."""
    log = cache / "logs" / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    return log


class Worker:
    """A process that does tasks for a backend, one after the other."""

    def __init__(
        self,
        backend: str,
        log: Path,
        interpreters: Interpreters,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start the process; see ``run_task`` for the arguments."""
        self._packages = BACKENDS[backend].packages
        adapter = BACKENDS[backend].adapter
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [str(interpreters.of(backend)), "-P", "-m", "backends.worker", backend, adapter],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**_variables(backend), **variables, STARTED_VARIABLE: repr(time.time())},
                start_new_session=True,
            )
        self._events = _reader(self.process)

    def do(
        self,
        task: Task[Answer],
        log: Path,
        on_event: Callable[[Event], None] = lambda event: None,
        timeout_s: float | None = None,
    ) -> Finished[Answer]:
        """Do a task; see ``run_task`` for the arguments. ``log`` is read for the last line of a
        worker that died.

        The caller must end a worker that gave no answer, and call ``held_bytes`` before the next
        task of any other.
        """
        killed_before = _oom_kills()
        line = task.model_dump_json().encode() + b"\n"
        end = _converse(self.process, self._events, line, log, on_event, timeout_s)
        if end.kind == "SIGKILL" and _oom_kills() > killed_before:
            message = "the worker was killed because the machine ran out of memory"
            return Finished(None, "oom", "SIGKILL", message)
        if end.answer is None:
            message = end.message
            if end.kind == NOT_INSTALLED:
                message += f"; install its packages: pip install {' '.join(self._packages)}"
            return Finished(None, end.status, end.kind, message, end.hint)
        try:
            answer = cast(Answer, task.answer_type.model_validate(end.answer))
        except ValidationError as error:
            message = f"the worker's answer is not as expected: {first_line(error)}"
            return Finished(None, "crashed", "ValidationError", message)
        return Finished(answer)

    def held_bytes(self, timeout_s: float) -> int | None:
        """Return the memory that the worker holds after it has tidied up its last task; None if it
        ended, does not know, or is not ready within ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
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
        """Return True if the process has not ended."""
        return self.process.poll() is None

    def end(self) -> None:
        """Kill the process and its children, and wait for it."""
        _kill(self.process)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def _variables(backend: str) -> dict[str, str]:
    paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi, which names the GPUs
        **BACKENDS[backend].variables,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "PYTHONUNBUFFERED": "1",
    }


_Ended = Finished[dict[str, Any]]


def _converse(
    process: subprocess.Popen[bytes],
    events: queue.Queue[Event | None],
    line: bytes,
    log: Path,
    on_event: Callable[[Event], None],
    timeout_s: float | None,
) -> _Ended:
    """Send a task, pass its events on, and return how it ended."""
    assert process.stdin is not None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        process.stdin.write(line)
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
            return Finished({name: value for name, value in event.items() if name != "event"})
        if event["event"] == "failed":
            return Finished(
                None, event["status"], event["kind"], event["message"], event.get("hint")
            )
        on_event(event)


def _reader(process: subprocess.Popen[bytes]) -> queue.Queue[Event | None]:
    """Return a queue of the worker's events, for waiting with a time limit; None ends them."""
    events: queue.Queue[Event | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:  # closed here alone: another thread's close would fail a read
            for line in process.stdout:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # cut short by a crash, or printed by a library
                if isinstance(event, dict) and "event" in event:
                    events.put(event)
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    return events


def _died(process: subprocess.Popen[bytes], log: Path) -> _Ended:
    """Return the end of a task whose worker ended, or closed its pipe, without an answer."""
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        message = "the worker closed its output without an answer"
        return Finished(None, "crashed", "silent", message)
    kind = _signal_name(-code) if code < 0 else f"exit code {code}"
    cause = f"signal {kind}" if code < 0 else kind
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
    return Finished(None, "crashed", kind, f"the worker ended by {cause}: {last[0][:300]}")


def _oom_kills() -> int:
    """Return how many processes Linux has killed for lack of memory since it started."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return str(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its children, also children that outlived it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


ENVIRONMENT_TIMEOUT_S = 60.0


def environment_of(backend: str, device: str, interpreters: Interpreters) -> Environment:
    """Ask the interpreter that would do the runs for their environment.

    Raises:
        UserError: That interpreter cannot run Thawbench.
    """
    settings = tuple(os.environ.get(name) for name in VARIABLES)
    return _environment(backend, device, interpreters.of(backend), settings)


@functools.cache
def _environment(
    backend: str, device: str, python: Path, settings: tuple[str | None, ...]
) -> Environment:
    """Ask once for each combination of arguments."""
    entry = BACKENDS[backend]
    task = EnvironmentTask(
        device=device, packages=(*entry.packages, *entry.also), variables=tuple(entry.variables)
    )
    interpreters = Interpreters({backend: python})
    with tempfile.TemporaryDirectory(prefix="thawbench-") as folder:
        log = Path(folder) / "log.txt"
        try:
            finished = run_task(backend, task, log, interpreters, timeout_s=ENVIRONMENT_TIMEOUT_S)
        except OSError as error:
            finished = Finished(None, "crashed", type(error).__name__, str(error))
    if finished.answer is None:
        raise UserError(
            f"The interpreter '{python}' for {backend} cannot run Thawbench: {finished.message}",
            f"Install Thawbench there: {python} -m pip install .",
        )
    return finished.answer.environment
