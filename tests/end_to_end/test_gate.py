"""``speed`` and ``gate`` with real launches: a user's own step in NumPy, and a planted slowdown."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.gate.attribution import cause_of, profiled_launches
from bench.speed.cases import SMALLEST, TimedCase, cases, prepare
from bench.speed.launch import Place, launch, launch_together
from bench.system import project_root
from bench.workers.process import Interpreters, Site
from tools.planted_worker import PART_VARIABLE, SHARE_VARIABLE

STEP = """
import os
import time

def make(device):
    assert device == "cpu"
    factor = float(os.environ.get("OWN_FACTOR", "1"))
    def step():
        time.sleep(0.002 * factor)
    return step, 16

def not_a_pair(device):
    return 1

def broken(device):
    raise ValueError("no data")

VALUE = 3
"""


DEAF = "import bench.system\nbench.system.core_times = lambda *_, **__: None\n"
"""Start of every process: it hears nothing of the other tests beside it, which would disturb it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_step.py").write_text(STEP)
    (tmp_path / "deaf").mkdir()
    (tmp_path / "deaf" / "sitecustomize.py").write_text(DEAF)
    return tmp_path


def _run(folder: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(project_root() / "run_bench.py"), *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{folder / 'deaf'}{os.pathsep}{project_root()}",
             **variables},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_users_step_is_measured_stored_gated_and_has_a_history(folder: Path) -> None:
    target = ("--target", "my_step.py:make")
    code, out, err = _run(
        folder, "speed", *target, "--launches", "4", "--save-baseline", "first", "--json"
    )
    assert code == 0, err
    (one,) = json.loads(out)["benchmarks"]
    assert one["name"] == "train_step my_step.py:make"
    assert 0.002 <= one["seconds"] < 0.02
    assert one["images_per_s"] == pytest.approx(16 / one["seconds"])
    stored = json.loads((folder / "results/baselines/first.json").read_text())
    assert stored["benchmarks"][0]["stats"]["rounds"] == 4
    code, _, err = _run(folder, "speed", *target, "--launches", "4", "--save-baseline", "first")
    assert code == 2
    assert "already" in err
    code, _, err = _run(folder, "speed", *target, "--launches", "3", "--save-baseline", "second")
    assert code == 0, err
    code, out, err = _run(folder, "speed", "history", "--json", "--out", "history")
    assert code == 0, err
    assert [p["baseline"] for p in json.loads(out)["benchmarks"][0]["points"]] == [
        "first",
        "second",
    ]
    assert (folder / "history" / "history.html").is_file()
    code, out, err = _run(folder, "gate", "--baseline", "first", "--against", "second")
    assert code == 0, err
    assert "baseline 'first'" in out
    now = ("gate", "--baseline", "first", *target, "--launches")
    code, _, err = _run(folder, *now, "2")
    assert code == 2
    assert "--launches 2" in err
    assert "launch 1" not in err, "it is refused before anything is measured"


def test_two_settings_of_a_users_step(folder: Path) -> None:
    ab = ("gate", "--target", "my_step.py:make", "--ab-env", "OWN_FACTOR=1,2", "--blocks", "3")
    code, out, err = _run(folder, *ab, "--json", "--format", "md,junit,bmf,github", "--out", "g")
    assert code == 1, err
    found = json.loads(out)
    assert found["verdict"] == "slower"
    (one,) = found["benchmarks"]
    assert one["ratio"] == pytest.approx(2.0, rel=0.2)
    assert one["confirmed_ratio"] == pytest.approx(2.0, rel=0.2)
    assert found["null_arm"]["passed"]
    assert found["differs"] == {"OWN_FACTOR": ["1", "2"]}
    assert (found["blocks"], found["confirm_blocks"]) == (3, 3)
    for name in ("gate.md", "junit.xml", "bmf.json", "annotations.txt", "launches.jsonl"):
        assert (folder / "g" / name).is_file()
    code, out, err = _run(folder, "gate", "--stored", "g", "--json")
    assert code == 1, err
    again = json.loads(out)
    assert again["benchmarks"] == found["benchmarks"]
    code, out, _ = _run(folder, "gate", "--stored", "g", "--max-slowdown", "1.0", "--json")
    assert json.loads(out)["verdict"] != "slower", "twice as long is within a margin of 100 %"
    code, out, err = _run(folder, *ab[:3], "--ab-env", "OWN_FACTOR=2,1", "--blocks", "3", "--json")
    assert code == 0, err
    assert json.loads(out)["verdict"] == "faster"


def test_a_calibration_is_stored_and_its_false_alarms_are_told(folder: Path) -> None:
    """The budget ends before 100,000 blocks, and what it holds is enough."""
    own = {"THAWBENCH_CACHE": str(folder / "cache")}
    target = ("--target", "my_step.py:make")
    code, out, err = _run(folder, "gate", "calibrate", *target, "--budget", "45s", "--json", **own)
    assert code == 0, err
    found = json.loads(out)
    assert found["blocks"] >= 10
    assert 0 <= found["false_alarm_rate"] <= 0.05
    assert set(found["needed_launches"]) == {"0.01", "0.02", "0.05", "0.1"}
    ab = ("gate", *target, "--ab-env", "OWN_FACTOR=1,2", "--blocks", "3", "--out", "g", "--json")
    code, out, err = _run(folder, *ab, **own)
    assert code == 1, err
    assert json.loads(out)["false_alarm_rate"] == found["false_alarm_rate"]
    code, out, err = _run(folder, "gate", "--stored", "g", "--json", **own)
    assert json.loads(out)["false_alarm_rate"] == found["false_alarm_rate"], "it was kept"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate", "--ab-env", "X=1,2", "--target", "my_step.py:make", "--blocks", "1"],
         "can never fail"),
        (["gate", "--ab-env", "X=1,2", "--target", "my_step.py"], "FILE.py:FUNCTION"),
        (["speed", "--target", "my_step.py:nothing"], "no function 'nothing'"),
        (["speed", "--target", "my_step.py:VALUE"], "no function 'VALUE'"),
        (["speed", "--target", "my_step.py:not_a_pair"], "it returned (int)"),
        (["speed", "--target", "my_step.py:broken"], "ValueError: no data"),
        (["speed", "--target", "my_step.py:make", "--save-baseline", "a/b"], "cannot be the name"),
        (["speed", "--target", "my_step.py:make", "--backends", "torch"],
         "no effect with --target"),
    ],
)  # fmt: skip
def test_mistakes_about_a_step_are_told_in_words(
    words: list[str], message: str, folder: Path
) -> None:
    code, out, err = _run(folder, *words)
    assert code == 2, out + err
    assert message in err
    assert "Traceback" not in err


def test_an_interpreter_without_packages_is_told(folder: Path) -> None:
    empty = folder / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    code, _, err = _run(folder, "gate", "--ab", sys.executable, str(empty), "--backends", "torch")
    assert code == 2
    assert "cannot time torch" in err
    assert "pip install" in err


def _smallest(backend: str, cache: Path) -> tuple[list[TimedCase], Place]:
    interpreters = Interpreters({})
    timed = prepare(cases(SMALLEST, [backend]), SMALLEST, "cpu", interpreters, cache, details=False)
    return timed, Place(interpreters, cache)


@pytest.mark.slow
def test_processes_that_take_turns_time_every_case_alike(shared_cache: Path) -> None:
    timed, place = _smallest("torch", shared_cache)
    found = launch_together([(timed, place)] * 3, Random(0))
    alone = launch(timed, place, Random(0))
    assert [one.failures for one in (*found, alone)] == [{}] * 4
    assert len({one.order for one in found}) == 1
    for case in timed:
        windows = [len(one.cases[case.name].windows) for one in (*found, alone)]
        assert windows == [2 * SMALLEST.stretches + SMALLEST.epochs] * 4
    # No two windows overlap: their states have the time of one clock.
    spans = sorted(
        (w.before.cores.at_s, w.after.cores.at_s)
        for one in found
        for answer in one.cases.values()
        for w in answer.windows
        if w.before.cores and w.after.cores
    )
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow", "keras-jax"])
def test_operations_come_from_the_frameworks_profiler(backend: str, shared_cache: Path) -> None:
    timed, place = _smallest(backend, shared_cache)
    case = next(one for one in timed if "fine_tune_all" in one.name)
    (found,) = profiled_launches([(case, place)], Random(0))
    assert found.failures == {}
    answer = found.cases[case.name]
    phases = {"forward", "backward", "optimizer"} if backend == "torch" else {"step"}
    assert set(answer.parts_s) == {"input", "copies", *phases}
    assert all(seconds > 0 for each in answer.parts_s.values() for seconds in each)
    names = " ".join(answer.operations_s).lower()
    assert "conv" in names
    step_s = sum(sum(each) / len(each) for each in answer.parts_s.values())
    assert sum(answer.operations_s.values()) < 20 * step_s


@pytest.mark.slow
@pytest.mark.parametrize("part", ["input", "copies", "forward", "backward", "optimizer"])
def test_a_planted_culprit_is_named(part: str, shared_cache: Path) -> None:
    timed, place = _smallest("torch", shared_cache)
    case = next(one for one in timed if "fine_tune_all" in one.name)
    site = Site(module="tools.planted_worker")
    planted = replace(place, site=site, variables={SHARE_VARIABLE: "2", PART_VARIABLE: part})
    a, b = profiled_launches([(case, place), (case, planted)], Random(0))
    cause = cause_of(case.name, a.cases[case.name], b.cases[case.name])
    assert cause.culprit == part, cause
