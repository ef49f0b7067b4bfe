"""Check what ``make`` would install, on a machine with a GPU and on one without."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from bench.system import project_root

SMI = "#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'\n"


def _planned(folder: Path, target: str, has_gpu: bool) -> str:
    """Return the commands of ``make -n`` in a clone without environments."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(project_root() / name, folder / name)
    programs = folder / "bin"
    programs.mkdir()
    smi = programs / "nvidia-smi"
    smi.write_text(SMI if has_gpu else "#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    done = subprocess.run(
        ["make", "-n", target], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "MAKEFLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["bench", "test"])
def test_a_gpu_gets_cuda_for_every_framework(tmp_path: Path, target: str) -> None:
    planned = _planned(tmp_path, target, has_gpu=True)
    assert ".[tensorflow-gpu]" in planned
    assert ".venv-tensorflow/bin/python" in planned
    assert "embedded,torch,keras]" in planned
    if target == "test":
        assert "embedded,torch,keras,jax-gpu,test]" in planned


@pytest.mark.parametrize("target", ["bench", "test"])
def test_a_cpu_gets_one_environment_without_cuda_for_jax(tmp_path: Path, target: str) -> None:
    planned = _planned(tmp_path, target, has_gpu=False)
    assert ".venv-tensorflow" not in planned
    assert "embedded,torch,keras,tensorflow" in planned
    assert "jax-gpu" not in planned


def test_what_is_installed_for_a_gpu_is_pinned() -> None:
    project = tomllib.loads((project_root() / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert any(item.startswith("jax[cuda13]") for item in extras["jax-gpu"])
    pinned = dict(
        line.split("==") for line in (project_root() / "constraints.txt").read_text().splitlines()
        if "==" in line
    )  # fmt: skip
    assert pinned["jax-cuda13-plugin"] == pinned["jax-cuda13-pjrt"] == pinned["jax"]
