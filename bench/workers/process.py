"""Worker processes: start one, give it tasks, read its events, end it."""

from __future__ import annotations

import functools
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Literal, cast

from pydantic import ValidationError

from bench.catalog.backends import BACKENDS, EXPORTER, backend_entry
from bench.errors import Unavailable, UserError, WorkerFailed, first_line
from bench.spec.base import frozen, short_hash
from bench.spec.run import Environment, RunSpec, Status
from bench.storage.cache import CACHE_VARIABLE, cache_root
from bench.system import package_version, project_root
from bench.system.gpu import has_gpu
from bench.workers.environment import relevant_variables
from bench.workers.events import EVENT, GO, Done, Event, Failed, Idle, OnEvent, Turn
from bench.workers.tasks import NOT_INSTALLED, STARTED_VARIABLE, Answer, EnvironmentTask, Task

ENVIRONMENT_TIMEOUT_S = 300.0
EXPORTING = (*BACKENDS[EXPORTER].packages, "timm")
"""Distributions that decide a network's operations and random weights."""
HERE = {"packing": ("numpy", "pillow"), "metrics": ("scipy", "scikit-learn")}
"""Distributions that decide numbers computed in this process, by the kind of its work."""


@dataclass(frozen=True)
class Finished(Generic[Answer]):
    """The end of a task: its answer, or its failure."""

    answer: Answer | None
    status: Status | Literal["bad_input"] = "ok"
    """Status; 'bad_input' is a mistake of the user."""
    kind: str = ""
    """Failure in a word: name of the exception, signal …"""
    message: str = ""
    """Failure in a sentence."""
    hint: str | None = None
    """Command or change that mends it."""

    def require(self, what: str, log: Path) -> Answer:
        """Return the answer of a task, which ``what`` names as in "exporting vgg16".

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
    own_code_s: float = 3600.0
    """Time after which a worker that describes or exports a user's own network is ended, as its
    code may never return."""

    def of(self, backend: str) -> Path:
        """Return the user's choice, else ``.venv-tensorflow`` for TensorFlow if ``make`` created it
        for a GPU (docs/design.md, Devices), else this interpreter."""
        if backend in self.chosen:
            return self.chosen[backend]
        second = project_root() / ".venv-tensorflow" / "bin" / "python"
        if backend == "keras-tensorflow" and second.is_file():
            return second
        return Path(sys.executable)


@dataclass(frozen=True)
class Site:
    """Where and how a worker process starts, where it is not as usual: another revision of the
    code, another folder, a program in front."""

    root: Path = field(default_factory=project_root)
    """Folder that holds the packages ``bench`` and ``backends``."""
    paths: tuple[Path, ...] = ()
    """Further folders from which the worker imports, before all others."""
    module: str = "backends.worker"
    """Program of the worker, for test doubles."""
    command_prefix: tuple[str, ...] = ()
    """Command that starts the interpreter, such as ("taskset", "-c", "0")."""


GPU_EXTRAS = {"torch": "torch", "keras-torch": "torch,keras", "keras-jax": "jax-gpu",
              "keras-tensorflow": "tensorflow-gpu"}  # fmt: skip
"""Backend → extras of pyproject.toml that install it for a GPU."""


def install_command(backend: str, interpreters: Interpreters) -> str:
    """Return the command that installs a backend: where there is a GPU, with its libraries, and
    TensorFlow apart from PyTorch."""
    interpreter, packages = interpreters.of(backend), backend_entry(backend).packages
    if not has_gpu() or backend not in GPU_EXTRAS:
        return f"{interpreter} -m pip install -c constraints.txt {' '.join(packages)}"
    if backend == "keras-tensorflow" and str(interpreter) == sys.executable:
        return "make .venv-tensorflow/.installed"
    return f"{interpreter} -m pip install -c constraints.txt -e '.[{GPU_EXTRAS[backend]}]'"


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
        """Let workers that this thread starts inside belong to the group; raise Stopped if it was
        ended."""
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
        """Let a running worker belong to the group; raise Stopped if that was ended, before or
        meanwhile."""
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
    backend: str, task: Task[Answer], log: Path, interpreters: Interpreters,
    on_event: OnEvent = lambda event: None, timeout_s: float | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Finished[Answer]:  # fmt: skip
    """Do a task in a new worker process and return how it ended; raise Stopped if the worker group
    of this thread was ended.

    Args:
        log: File that the worker's output is appended to.
        timeout_s: Time after which the worker is ended.
        variables: Environment variables of the worker, besides those of its backend.
    """
    worker = Worker(backend, device_of(task), log, interpreters, variables)
    group = _group.get()
    try:
        with nullcontext() if group is None else group.holding(worker.process):
            return worker.do(task, log, on_event, timeout_s)
    finally:
        worker.end()


def device_of(task: Task[Answer]) -> str | None:
    """Return the device that a task names, None if it names none."""
    specs: Sequence[RunSpec] = getattr(task, "specs", ())
    request = getattr(task, "request", None)
    return specs[0].device if specs else getattr(request or task, "device", None)


def ask(
    backend: str, task: Task[Answer], interpreters: Interpreters, what: str,
    cache: Path | None = None, timeout_s: float | None = None,
) -> Answer:  # fmt: skip
    """Do a task in a new worker process and return its answer.

    Args:
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
        self, backend: str, device: str | None, log: Path, interpreters: Interpreters,
        variables: Mapping[str, str], site: Site | None = None,
    ) -> None:  # fmt: skip
        """Start the process; see ``run_task`` for the arguments. ``device`` is that of all its
        tasks, None if they name none."""
        entry, site = backend_entry(backend), site or Site()
        self._install = f"pip install {' '.join(entry.packages)}"
        if has_gpu():
            self._install = install_command(backend, interpreters)
        paths = [
            *map(str, site.paths),
            str(_import_folder(site.root)),
            os.environ.get("PYTHONPATH", ""),
        ]
        environment = {
            **entry.environment(os.environ, device or ""),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi, which names the GPUs
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            **variables,
            STARTED_VARIABLE: repr(time.time()),
        }
        python = str(interpreters.of(backend))
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [*site.command_prefix, python, "-P", "-m", site.module, backend, entry.adapter],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink,
                start_new_session=True,
            )  # fmt: skip
        self._events: queue.Queue[Event | None] = queue.Queue()
        """The worker's events, for waiting with a time limit; None ends them."""
        self._killed_before = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:  # closed here alone: another thread's close would fail
            for line in lines:
                with suppress(ValidationError):  # cut short by a crash, or printed by a library
                    self._events.put(EVENT.validate_json(line))
        self._events.put(None)

    def do(
        self, task: Task[Answer], log: Path, on_event: OnEvent, timeout_s: float | None
    ) -> Finished[Answer]:
        """Do a task; see ``run_task`` for the arguments. ``log`` is read for the last line of a
        worker that died.

        The caller must end a worker that gave no answer, and call ``held_bytes`` before the next
        task of any other.
        """
        self.begin(task)
        finished = self.go_on(task, log, on_event, timeout_s)
        assert finished is not None, "only tasks with turns wait for one"
        return finished

    def begin(self, task: Task[Answer]) -> None:
        """Send a task, which the worker begins at once."""
        self._killed_before = _oom_kills()
        self._send(task.model_dump_json().encode() + b"\n")

    def grant_turn(self) -> None:
        """Let a worker that waits for its turn go on."""
        self._send(GO)

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its death is told when it is asked for an answer
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def go_on(
        self, task: Task[Answer], log: Path, on_event: OnEvent, timeout_s: float | None
    ) -> Finished[Answer] | None:
        """Wait until the task that was begun has ended, and return how; or until the worker waits
        for its turn, and return None. See ``do`` for the arguments."""
        end = self._await(log, on_event, timeout_s)
        if isinstance(end, Turn):
            return None
        if isinstance(end, Failed):
            status, message = end.status, end.message
            if end.kind == "SIGKILL" and _oom_kills() > self._killed_before:
                status = "oom"
                message = "the worker was killed because the machine ran out of memory"
            elif end.kind == NOT_INSTALLED:
                message += f"; install its packages: {self._install}"
            return Finished(None, status, end.kind, message, end.hint)
        try:
            return Finished(cast(Answer, task.answer_type().model_validate(end.model_extra)))
        except ValidationError as error:
            message = f"the worker's answer is not as expected: {first_line(error)}"
            return Finished(None, "crashed", "ValidationError", message)

    def _await(self, log: Path, on_event: OnEvent, timeout_s: float | None) -> Done | Failed | Turn:
        """Pass events on until a task ends or waits for its turn."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                message = f"not done within {timeout_s:g} s"
                return Failed(status="timeout", kind="timeout", message=message)
            if event is None:
                return _death(self.process, log)
            if isinstance(event, Done | Failed | Turn):
                return event
            if not isinstance(event, Idle):
                on_event(event)

    def held_bytes(self, timeout_s: float) -> int | None:
        """Return the memory that the worker holds after it has tidied up its last task; None if it
        ended, does not know, or is not ready within ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with suppress(queue.Empty):
            while event := self._events.get(timeout=max(deadline - time.monotonic(), 0.0)):
                if isinstance(event, Idle):
                    return event.held_bytes
        return None

    def end(self) -> None:
        """Kill the process and its children, and wait for it."""
        _kill(self.process)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def _import_folder(root: Path) -> Path:
    """Return the folder from which a worker imports the code in ``root``. Where that is installed
    among other packages, it is a folder with links to ours alone, so that another interpreter does
    not import this one's frameworks."""
    if (root / "pyproject.toml").is_file():
        return root
    folder = cache_root() / "code" / short_hash(str(root))
    folder.mkdir(parents=True, exist_ok=True)
    for package in ("bench", "backends"):
        with suppress(FileExistsError):
            (folder / package).symlink_to(root / package, target_is_directory=True)
    return folder


def _death(process: subprocess.Popen[bytes], log: Path) -> Failed:
    """Return the failure of a worker that ended, or closed its pipe, without an answer."""
    failed = partial(Failed, status="crashed")
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return failed(kind="silent", message="the worker closed its output without an answer")
    if code >= 0:
        kind = cause = f"exit code {code}"
    else:
        kind = str(-code)  # real-time signals have no names
        with suppress(ValueError):
            kind = signal.Signals(-code).name
        cause = f"signal {kind}"
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
    return failed(kind=kind, message=f"the worker ended by {cause}: {last[0][:300]}")


def _oom_kills() -> int:
    """Return how many processes Linux has killed for lack of memory since it started."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its children, also children that outlived it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def worker_environment(backend: str, device: str, interpreters: Interpreters) -> Environment:
    """Ask a backend's interpreter for the environment of its workers; raise UserError if it cannot
    run Thawbench, and WorkerFailed if it crashes."""
    settings = tuple(relevant_variables().items())
    return _environment(backend, device, interpreters.of(backend), settings)


def environment_of(backend: str, device: str, interpreters: Interpreters) -> Environment:
    """Return the environment of runs: that of the workers, with the versions of what else decides
    numbers where they are not the workers' own. Networks and random weights come from the exporter,
    pixels and some metrics from this process. Raise what ``worker_environment`` raises.
    """
    found = worker_environment(backend, device, interpreters)
    packages = worker_environment(EXPORTER, "cpu", interpreters).packages
    exporter = {name: packages.get(name) for name in EXPORTING}
    here = {role: {name: package_version(name) for name in names} for role, names in HERE.items()}
    more = {
        f"{name} ({role})": version
        for role, versions in (("export", exporter), *here.items())
        for name, version in versions.items()
        if version is not None and version != found.packages.get(name)
    }
    return (
        found.model_copy(update={"packages": frozen({**found.packages, **more})}) if more else found
    )


@functools.cache
def _environment(
    backend: str, device: str, python: Path, settings: tuple[tuple[str, str], ...]
) -> Environment:
    entry = BACKENDS[backend]
    task = EnvironmentTask(
        device=device, packages=(*entry.packages, *entry.also), variables=entry.own_variables()
    )
    interpreters = Interpreters({backend: python})
    with tempfile.TemporaryDirectory(prefix="thawbench-") as folder:
        log = Path(folder) / "log.txt"
        try:
            finished = run_task(backend, task, log, interpreters, timeout_s=ENVIRONMENT_TIMEOUT_S)
        except OSError as error:
            finished = Finished(None, "crashed", type(error).__name__, str(error))
    if finished.status in ("timeout", "oom") or finished.kind.startswith("SIG"):
        raise WorkerFailed(f"A worker of {backend}, by '{python}', failed: {finished.message}")
    if finished.answer is None:
        raise UserError(
            f"The interpreter '{python}' for {backend} cannot run Thawbench: {finished.message}",
            f"Install Thawbench there: {python} -m pip install .",
        )
    return finished.answer.environment
