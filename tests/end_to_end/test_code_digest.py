"""A worker imports no code during a run that its environment's digest does not cover."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.storage.code_digest import adapter_files, shared_files
from bench.system import project_root
from tests.end_to_end.test_command import command, stored

WRAPPER = """
import json, os, sys
from backends import worker
from bench.workers.tasks import RunTask
do_run = worker.HANDLERS[RunTask]
def run(task, context):
    try:
        return do_run(task, context)
    finally:
        files = [m.__file__ for name, m in list(sys.modules.items())
                 if name.partition(".")[0] in ("bench", "backends") and m.__file__]
        with open(os.environ["IMPORTED"], "a") as out:
            out.write(json.dumps(files) + "\\n")
worker.HANDLERS[RunTask] = run
assert sys.argv[1:4] == ["-P", "-m", "backends.worker"]
worker.main(*sys.argv[4:])
"""
SUITE = """
name = "imports"
backends = ["{backend}"]
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["squeezenet1_1"]
policies = ["freeze_all", "fine_tune_last"]
px = 32
epochs = 2
learning_rate = [0.01, 0.02]
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["mobilenet_v2"]
policies = ["fine_tune_all"]
weights = "random"
px = 32
epochs = 1
mode = ["native"]
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["squeezenet1_1"]
policies = ["linear_probe_then_fine_tune"]
px = 32
epochs = 2
tune = "lr"
"""
"""A sweep of heads, whole steps, native mode, phases and tuning."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow"])
def test_every_module_that_a_run_imports_is_in_a_digest(
    backend: str, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrapper.py").write_text(WRAPPER)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "wrapper.py"}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "suite.toml").write_text(SUITE.format(backend=backend))
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported.jsonl"))
    command("run", "--suite", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "out"),
            "--python", f"{backend}={python}", cache=shared_cache)  # fmt: skip
    assert {result["status"] for _, result, _ in stored(tmp_path / "out")} == {"ok"}
    lines = (tmp_path / "imported.jsonl").read_text().splitlines()
    imported = {Path(file).resolve() for line in lines for file in json.loads(line)}
    adapter = BACKENDS[backend].adapter
    covered = {f.resolve() for f in [*shared_files(), *adapter_files(backend, adapter)]}
    assert project_root() / "bench" / "training" / "sweep.py" in imported
    assert imported - covered == set()
