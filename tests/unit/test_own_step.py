"""Timing a user's own step: what its function returns, and how the device is waited for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import UserError
from bench.speed.own_step import time_own_step
from bench.workers.tasks import OwnStepTask

SOURCE = """
import time
CALLS = []

def make(device):
    def step():
        CALLS.append("step")
        time.sleep(0.001)
        return "result"
    return step, 8

def waits(device):
    return lambda: CALLS.append("step"), 8, lambda: CALLS.append("wait")

def no_images(device):
    return lambda: None, 0

def four(device):
    return lambda: None, 1, lambda: None, 2

def fails(device):
    raise RuntimeError("no GPU")
"""


def _task(tmp_path: Path, function: str, source: str = SOURCE) -> OwnStepTask:
    file = tmp_path / "step.py"
    file.write_text(source)
    return OwnStepTask(file=str(file), function=function, device="cpu", rounds=3, stretches=4)


def test_windows_are_of_steps_and_turns_are_waited_for(tmp_path: Path) -> None:
    turns: list[int] = []
    found = time_own_step(_task(tmp_path, "make"), lambda: turns.append(1))
    assert len(found.windows) == len(turns) == 4
    assert all(seconds >= 0.001 for seconds in found.seconds("train_step"))
    assert found.images == {"train_step": 8}
    spans = [w.after.cores.at_s - w.before.cores.at_s for w in found.windows if w.before.cores]  # type: ignore[union-attr]
    assert all(span >= 0.045 for span in spans), "quick steps are timed in windows of 50 ms"
    assert found.setup_s >= 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "has no function 'nothing'"),
        ("no_images", r"it returned \(function, int\)"),
        ("four", "it returned"),
        ("fails", "RuntimeError: no GPU"),
    ],
)
def test_a_wrong_function_is_told(tmp_path: Path, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        time_own_step(_task(tmp_path, function))


def test_a_file_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step.py cannot be run: SyntaxError"):
        time_own_step(_task(tmp_path, "make", "def make(:"))
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        time_own_step(_task(tmp_path, "make", "import no_such_module"))


def test_frameworks_that_compute_on_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[Any] = []
    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: waited.append("torch"))
    test = SimpleNamespace(
        experimental=SimpleNamespace(sync_devices=lambda: waited.append("tensorflow"))
    )
    fakes: dict[str, Any] = {
        "torch": SimpleNamespace(cuda=cuda),
        "tensorflow": SimpleNamespace(test=test),
        "jax": SimpleNamespace(block_until_ready=waited.append),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    time_own_step(_task(tmp_path, "make"))
    assert set(waited) == {"torch", "tensorflow", "result"}
    waited.clear()
    time_own_step(_task(tmp_path, "waits"))
    assert "torch" not in waited, "the user's own function waits"
