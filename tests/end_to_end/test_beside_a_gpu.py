"""Commands on the CPU of a machine that has a GPU: the driver's tool lists one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bench.system import project_root
from tests.end_to_end.test_command import command

SMI = """
FIGURES = {"name": "NVIDIA H200", "driver_version": "580.1", "memory.total": "143771",
           "uuid": "GPU-1", "power.limit": "700.00", "ecc.mode.current": "Enabled",
           "mig.mode.current": "Disabled", "clocks.sm": "345"}
import sys
for word in sys.argv[1:]:
    if word.startswith("--query-gpu="):
        print(", ".join(FIGURES.get(key, "[N/A]") for key in word.partition("=")[2].split(",")))
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which an ``nvidia-smi`` lists an H200 that nothing hides."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}{SMI}")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "0"}


def test_a_users_own_step_is_timed(
    variables: dict[str, str], tmp_path: Path, shared_cache: Path
) -> None:
    step = project_root() / "examples" / "my_step.py"
    answer = command(
        "speed", "--target", f"{step}:make", "--device", "cpu", "--launches", "1", "--json",
        "--baselines", str(tmp_path), cache=shared_cache, **variables,
    )  # fmt: skip
    (row,) = json.loads(answer.stdout)["benchmarks"]
    assert row["images_per_s"] > 0


def test_a_run_is_done(variables: dict[str, str], tmp_path: Path, shared_cache: Path) -> None:
    answer = command(
        "run", "--datasets", "photos", "--backbones", "squeezenet1_1", "--weights", "random",
        "--px", "64", "--epochs", "1", "--train-images", "36", "--policies", "freeze_all",
        "--backends", "torch", "--device", "cpu", "--out", str(tmp_path / "out"), "--json",
        cache=shared_cache, **variables,
    )  # fmt: skip
    (row,) = json.loads(answer.stdout)["rows"]
    assert row["status"] == "ok"
