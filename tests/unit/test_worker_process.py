"""Worker processes: how a task ends, whatever the process does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.workers import process
from bench.workers.events import EVENT, Done, Idle, Probed, Progress, RateTrial, Step, to_line
from bench.workers.process import (
    Finished,
    Interpreters,
    Stopped,
    Worker,
    WorkerGroup,
    _import_folder,
    run_task,
)
from tests.stub_tasks import StubTask

READ_TASK = "import sys, os, json, time, signal\ntask = json.loads(sys.stdin.readline())\n"
DONE = 'print(json.dumps({"event": "done", "said": task}), flush=True)\n'

Run = Callable[..., Finished[Any]]


def test_ending_a_worker_leaves_its_output_to_the_thread_that_reads_it(tmp_path: Path) -> None:
    """A process that outlives its worker keeps the output open; closing it then failed the read."""
    python = tmp_path / "python"
    # The process says its number when it has left the worker's group.
    left = f"setsid sh -c 'echo $$ > {tmp_path}/left; exec sleep 30' &"
    python.write_text(f"#!/bin/sh\n{left}\nexec sleep 30\n")
    python.chmod(0o755)
    worker = Worker("torch", "cpu", tmp_path / "log.txt", Interpreters({"torch": python}), {})
    while not (tmp_path / "left").is_file() or not (tmp_path / "left").read_text():
        time.sleep(0.01)
    worker.end()
    output = worker.process.stdout
    assert output is not None
    assert not output.closed
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not output.closed:
        assert time.monotonic() < deadline, "the reader closes it at the end of the output"
        time.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Do a task in a worker that runs the given Python code."""

    def run(code: str, **more: Any) -> Finished[Any]:
        stub = tmp_path / "stub.py"
        stub.write_text(READ_TASK + code)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stub}"\n')
        python.chmod(0o755)
        interpreters = Interpreters({"torch": python})
        return run_task("torch", StubTask(), tmp_path / "log.txt", interpreters, **more)

    return run


def _gone(pid: int, within_s: float = 2.0) -> bool:
    """Return True if a process ends in time; a zombie has ended."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_answer_and_the_events_come_back(run: Run) -> None:
    events: list[Progress] = []
    code = 'print(json.dumps({"event": "step", "share": 0.5}), flush=True)\n' + DONE
    finished = run(code, on_event=events.append)
    assert finished.status == "ok"
    assert finished.answer.said == {"task": "x", "log": None}
    assert events == [Step(share=0.5)]


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (Step(share=0.5), {"event": "step", "share": 0.5}),
        (RateTrial(number=1, of=3), {"event": "trial", "number": 1, "of": 3}),
        (
            RateTrial(number=1, of=3, phase=1, phases=2),
            {"event": "trial", "number": 1, "of": 3, "phase": 1, "phases": 2},
        ),
        (Idle(held_bytes=None), {"event": "idle"}),
        (
            Done.model_validate({"a": None, "knobs": {"scale": float("inf")}}),
            {"event": "done", "a": None, "knobs": {"scale": float("inf")}},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_is_a_line_of_json(event: Progress | Done | Idle, fields: dict[str, Any]) -> None:
    line = to_line(event)
    assert json.loads(line) == fields
    assert line.count("\n") == 1
    assert EVENT.validate_json(line) == event


def test_a_failure_that_the_worker_reports_is_returned(run: Run) -> None:
    event = {
        "event": "failed", "status": "bad_input", "kind": "k", "message": "m", "hint": "h",
    }  # fmt: skip
    finished = run(f"print(json.dumps({event}), flush=True)\n")
    assert finished == Finished(None, "bad_input", "k", "m", "h")


def test_a_worker_that_is_too_slow_is_ended_with_its_children(run: Run, tmp_path: Path) -> None:
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    finished = run(code, timeout_s=2.0)
    assert (finished.status, finished.message) == ("timeout", "not done within 2 s")
    assert time.monotonic() - began < 6
    assert all(_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_events_do_not_put_off_the_time_limit(run: Run) -> None:
    step = """print('{"event": "step", "share": 0}', flush=True)"""
    code = f"while True:\n    {step}\n    time.sleep(0.05)\n"
    began = time.monotonic()
    assert run(code, timeout_s=0.6).status == "timeout"
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
        ("raise SystemError('broken')", "exit code 1"),
        ("os.kill(os.getpid(), 40)", "40"),
    ],
)
def test_a_worker_that_dies_is_crashed_with_its_last_words(run: Run, code: str, kind: str) -> None:
    finished = run(f"print('last words', file=sys.stderr, flush=True)\n{code}\n")
    assert (finished.status, finished.answer) == ("crashed", None)
    assert finished.kind == kind
    assert "broken" in finished.message or "last words" in finished.message


@pytest.mark.parametrize(
    ("kills", "status", "said"),
    [((3, 4), "oom", "ran out of memory"), ((3, 3), "crashed", "ended by signal SIGKILL")],
)
def test_a_killed_worker_is_out_of_memory_only_if_the_system_killed_for_that(
    run: Run, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, int], status: str, said: str
) -> None:
    counts = iter(kills)
    monkeypatch.setattr(process, "_oom_kills", lambda: next(counts))
    finished = run("os.kill(os.getpid(), signal.SIGKILL)\n")
    assert (finished.status, finished.kind, finished.answer) == (status, "SIGKILL", None)
    assert said in finished.message


def test_a_worker_that_ends_otherwise_while_memory_is_short_is_not_out_of_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(9))
    monkeypatch.setattr(process, "_oom_kills", lambda: next(counts))
    assert run("os._exit(3)\n").status == "crashed"
    assert run(DONE).status == "ok"
    assert run("time.sleep(60)\n", timeout_s=0.2).status == "timeout"


def test_kills_for_memory_are_counted_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "oom_kill_x 9\nnr 1\noom_kill 7\nz 2\n")
    assert process._oom_kills() == 7
    monkeypatch.setattr(Path, "read_text", lambda _: "nr 1\n")
    assert process._oom_kills() == 0

    def absent(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)
    assert process._oom_kills() == 0


def test_a_worker_that_dies_before_it_reads_its_task_is_crashed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no python here >&2\nexit 4\n")
    python.chmod(0o755)
    task = StubTask(long="x" * 500_000)
    finished = run_task("torch", task, tmp_path / "log", Interpreters({"torch": python}))
    assert (finished.status, finished.kind) == ("crashed", "exit code 4")
    assert "no python here" in finished.message


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"event": "do',
        "",
        "\\x00\\x1b[31m",
        "warning: {}",
        "123",
        "null",
        "{}",
        "[]",
        '{"event": "unheard of"}',
        '{"event": "step"}',
    ],
)
def test_garbage_on_standard_output_is_ignored(run: Run, line: str) -> None:
    finished = run(f"print('{line}', flush=True)\n{DONE}")
    assert finished.status == "ok"


def test_bytes_that_are_no_text_are_ignored(run: Run, tmp_path: Path) -> None:
    code = "os.write(1, b'\\xff\\xfe\\n')\nos.write(2, b'\\xff\\n')\n"
    assert run(code + DONE).status == "ok"
    assert run(code + "os._exit(5)\n").status == "crashed"


def test_what_a_worker_prints_is_in_the_log(run: Run, tmp_path: Path) -> None:
    run("print('hello', file=sys.stderr, flush=True)\n" + DONE)
    assert "hello" in (tmp_path / "log.txt").read_text()


def test_an_error_in_the_parent_ends_the_worker(run: Run, tmp_path: Path) -> None:
    def broken(event: Progress) -> None:
        raise KeyboardInterrupt

    code = (
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        'print(\'{"event": "step", "share": 0}\', flush=True)\ntime.sleep(60)\n'
    )
    with pytest.raises(KeyboardInterrupt):
        run(code, on_event=broken)
    assert _gone(int((tmp_path / "pid").read_text()))


def test_the_children_of_a_worker_that_died_are_ended(run: Run, tmp_path: Path) -> None:
    code = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '5'], stdout=subprocess.DEVNULL)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "os._exit(3)\n"
    )
    assert run(code).status == "crashed"
    assert _gone(int((tmp_path / "pid").read_text()), within_s=0.5)


def test_the_real_worker_ends_when_its_parent_is_gone() -> None:
    code = (
        "import time, backends.worker as worker\n"
        "def wait(task, context):\n"
        "    context.emit(worker.Probed(key='started'))\n"
        "    time.sleep(60)\n"
        "worker.HANDLERS[worker.tasks.DevicesTask] = wait\n"
        "worker.main('torch', 'backends.torch_adapter')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(b'{"task": "devices"}\n')
        worker.stdin.flush()
        assert b"started" in worker.stdout.readline()
        worker.stdin.close()
        assert worker.wait(timeout=30) == 1


def test_the_real_worker_reports_an_unknown_task(tmp_path: Path) -> None:
    finished = run_task("torch", StubTask(task="dance"), tmp_path / "log", Interpreters({}))
    assert (finished.status, finished.kind) == ("crashed", "ValidationError")


def test_the_backends_variables_are_set_before_the_worker_starts(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$KERAS_BACKEND $*" >&2\nexit 1\n')
    python.chmod(0o755)
    interpreters = Interpreters({"keras-tensorflow": python})
    finished = run_task("keras-tensorflow", StubTask(), tmp_path / "log", interpreters)
    assert (
        "tensorflow -P -m backends.worker keras-tensorflow backends.keras_adapter"
        in finished.message
    )
    assert os.environ.get("KERAS_BACKEND") != "tensorflow"


def test_a_module_in_the_current_folder_takes_no_modules_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    monkeypatch.chdir(tmp_path)
    finished = run_task("torch", StubTask(task="dance"), tmp_path / "log", Interpreters({}))
    assert (finished.status, finished.kind) == ("crashed", "ValidationError")


def test_interpreters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.workers.process.project_root", lambda: tmp_path)
    chosen = Interpreters({"torch": Path("/p")})
    assert chosen.of("torch") == Path("/p")
    assert chosen.of("keras-tensorflow") == Path(sys.executable)
    second = tmp_path / ".venv-tensorflow" / "bin" / "python"
    second.parent.mkdir(parents=True)
    second.touch()
    assert chosen.of("keras-tensorflow") == second
    assert Interpreters({}).of("torch") == Path(sys.executable)


def test_a_group_of_workers_is_ended_together(run: Run, tmp_path: Path) -> None:
    """Threads that wait for a worker, or start another one, get ``Stopped``."""
    group = WorkerGroup()
    pids: list[int] = []

    def end(event: Progress) -> None:
        assert isinstance(event, Probed)
        pids.append(int(event.key))
        group.end()

    code = (
        'print(json.dumps({"event": "probed", "key": str(os.getpid())}), flush=True)\n'
        "time.sleep(60)\n" + DONE
    )
    began = time.monotonic()
    with group.joined(), pytest.raises(Stopped):
        run(code, on_event=end)
    assert time.monotonic() - began < 30.0
    assert _gone(pids[0])
    with pytest.raises(Stopped), group.joined():
        pass
    assert run(DONE).status == "ok"  # outside the group


def test_a_task_may_have_variables_of_its_own(run: Run) -> None:
    code = 'print(json.dumps({"event": "done", "said": os.environ["OF_A_TASK"]}), flush=True)\n'
    answer = run(code, variables={"OF_A_TASK": "here"}).answer
    assert answer.said == "here"


def test_code_that_is_installed_among_other_packages_is_imported_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker under another interpreter would import this one's frameworks."""
    monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
    site_packages = tmp_path / "site-packages"
    for package in ("bench", "backends", "torch"):
        (site_packages / package).mkdir(parents=True)
        (site_packages / package / "__init__.py").touch()
    folder = _import_folder(site_packages)
    assert sorted(path.name for path in folder.iterdir()) == ["backends", "bench"]
    assert (folder / "bench").resolve() == site_packages / "bench"
    assert _import_folder(site_packages) == folder
    (site_packages / "pyproject.toml").touch()
    assert _import_folder(site_packages) == site_packages
