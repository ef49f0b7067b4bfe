"""The check for a GPU, on the CPU and small: every step runs and finds something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system import project_root
from tools.gpu_check import Check, Step, failures, is_ok, outcome

STEPS = (
    "versions", "prepare", "limit", "feed", "speed-torch", "by-hand", "quick", "full-memory-torch",
    "speed-keras-torch", "speed-keras-jax", "full-memory-keras-jax", "causes",
)  # fmt: skip
"""Steps that are run; doctor, parity, mixed and compiled are commands with tests of their own."""


def _check(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.gpu_check", *arguments], capture_output=True, text=True,
        cwd=project_root(), timeout=900, check=False,
        env={**os.environ, "THAWBENCH_CACHE": str(cache)},
    )  # fmt: skip


@pytest.mark.slow
def test_every_step_finds_something(tmp_path: Path, shared_cache: Path) -> None:
    out = tmp_path / "out"
    done = _check(
        "all", "--device", "cpu", "--small", "--out", str(out), "--work", str(tmp_path / "work"),
        "--seconds", "800", "--slow", "4", "--steps", ",".join(STEPS), cache=shared_cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads((out / "check.json").read_text())["steps"]
    assert {name: step["code"] for name, step in steps.items()} == dict.fromkeys(STEPS, 0)
    assert failures(steps) == []
    for backend in ("torch", "keras-torch", "keras-jax"):
        for case in steps[f"speed-{backend}"]["found"]["cases"].values():
            assert case["images_per_s"]["pipelined"] > 0
            assert case["mfu"] > 0
    assert all(rate["images_per_s"] > 0 for rate in steps["feed"]["found"]["rates"])
    assert {row["status"] for row in steps["quick"]["found"]["rows"]} == {"ok"}
    assert [one["parts"] for one in steps["causes"]["found"]["causes"]]
    assert (out / "runs.tgz").stat().st_size > 0
    assert "images/s of training" in done.stdout
    again = _check("table", str(out), cache=shared_cache)
    assert "speed-torch: ok after" in again.stdout
    assert f"{len(STEPS)} of {len(STEPS)} steps are ok" in done.stdout


def test_a_step_that_is_none_is_refused(tmp_path: Path, shared_cache: Path) -> None:
    done = _check("all", "--steps", "nonsense", "--out", str(tmp_path), cache=shared_cache)
    assert done.returncode == 2
    assert "no step nonsense; there are versions, prepare" in done.stderr.replace("│", "")


def _commands(small: bool, folder: Path) -> list[Step]:
    check = Check(folder, folder, "cpu", small, deadline=0.0, slow=1.0)
    return [step for step in check.steps() if not step.is_function]


@pytest.mark.parametrize("step", _commands(False, Path("x")), ids=lambda step: step.name)
def test_its_commands_are_understood(step: Step, tmp_path: Path, shared_cache: Path) -> None:
    """Those that the dry run leaves out, too, as they are on a GPU; of ``run`` the plan alone."""
    command, *arguments = step.arguments
    if command == "run":
        given = [
            a if a != str(Path("x") / "runs" / step.name) else str(tmp_path) for a in arguments
        ]
        done = subprocess.run(
            [sys.executable, str(project_root() / "run_bench.py"), "run", *given, "--dry-run"],
            capture_output=True, text=True, cwd=project_root(), timeout=300, check=False,
            env={**os.environ, "THAWBENCH_CACHE": str(shared_cache)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runs"]
        return
    help_text = subprocess.run(
        [sys.executable, str(project_root() / "run_bench.py"), command, "--help"],
        capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout  # fmt: skip
    for option in (a for a in arguments if a.startswith("--")):
        assert option in help_text


def test_a_device_that_is_not_there_is_refused_at_once(tmp_path: Path, shared_cache: Path) -> None:
    done = _check("all", "--device", "cuda:7", "--out", str(tmp_path / "o"), cache=shared_cache)
    assert done.returncode == 2
    assert "there is no cuda:7 here" in " ".join(done.stderr.replace("│", "").split())
    assert not (tmp_path / "o" / "check.json").exists()


def test_a_step_with_a_failure_inside_is_not_ok() -> None:
    inside = {"code": 0, "s": 3.0, "found": {"a": [{"b": "FAILED RuntimeError: no driver\nmore"}]}}
    assert not is_ok(inside)
    assert outcome(inside) == "failed after 3.0 s: FAILED RuntimeError: no driver; see log.txt"
    assert outcome({"code": "ended after 9 s", "s": 9.0}).startswith("failed after 9.0 s: ended")
    assert outcome({"left_out": "no time"}) == "left out: no time"
    assert outcome({"code": 0, "s": 3.0, "found": {"a": 1}}) == "ok after 3.0 s"
