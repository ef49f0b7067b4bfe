"""A worker imports no code during a task that no digest covers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import pytest

from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.speed.cases import SMALLEST, SpeedCase, prepare
from bench.speed.launch import Place, launch
from bench.storage.code_digest import ROOMS, adapter_files, shared_files
from bench.system import project_root
from bench.workers.process import Interpreters
from tests.end_to_end.test_command import command, stored

WRAPPER = """
import json, os, sys
from backends import worker
def watched(do_task):
    def do(task, context):
        try:
            return do_task(task, context)
        finally:
            files = [m.__file__ for name, m in list(sys.modules.items())
                     if name.partition(".")[0] in ("bench", "backends") and m.__file__]
            with open(os.environ["IMPORTED"], "a") as out:
                out.write(json.dumps([context.backend, type(task).__name__, files]) + "\\n")
    return do
worker.HANDLERS = {kind: watched(do_task) for kind, do_task in worker.HANDLERS.items()}
assert sys.argv[1:4] == ["-P", "-m", "backends.worker"]
worker.main(*sys.argv[4:])
"""
GRID = """
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
px = 32
"""
ONE_RUN = f"""{GRID}
backbones = ["squeezenet1_1"]
policies = ["fine_tune_last"]
epochs = 1
"""
SWEEP = f"""{GRID}
backbones = ["squeezenet1_1"]
policies = ["freeze_all"]
epochs = 2
learning_rate = [0.01, 0.02]
"""
NATIVE_AND_PHASES = f"""{GRID}
backbones = ["mobilenet_v2"]
policies = ["freeze_all"]
weights = "random"
epochs = 1
mode = ["native"]
{GRID}
backbones = ["squeezenet1_1"]
policies = ["linear_probe_then_fine_tune"]
epochs = 2
tune = "lr"
"""
EXPORTS = {"ExportTask", "ArchitecturesTask"}
NETWORK = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 3))
"""
"""A network with a BatchNorm, whose random weights are calibrated for a proof."""


class Watched:
    """Interpreters that write down what workers import."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._file = folder / "imported.jsonl"
        patch.setenv("IMPORTED", str(self._file))
        (folder / "wrapper.py").write_text(WRAPPER)
        self._python = folder / "python"
        wrapper = folder / "wrapper.py"
        self._python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{wrapper}" "$@"\n')
        self._python.chmod(0o755)

    def interpreters(self, backend: str) -> Interpreters:
        """Return interpreters by which a backend's workers are watched."""
        return Interpreters({backend: self._python})

    def options(self, *backends: str) -> list[str]:
        """Return the options that let the workers of some backends be watched."""
        return [word for b in backends for word in ("--python", f"{b}={self._python}")]

    def imported(self) -> dict[tuple[str, str], set[Path]]:
        """Return (backend, name of a task) → files imported at the end of such a task."""
        found: dict[tuple[str, str], set[Path]] = {}
        for line in self._file.read_text().splitlines():
            backend, task, files = json.loads(line)
            found.setdefault((backend, task), set()).update(Path(file).resolve() for file in files)
        return found


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def _covered(backend: str) -> set[Path]:
    """Return the files behind the digests of a backend's runs."""
    files = [*shared_files(), *adapter_files(backend, BACKENDS[backend].adapter)]
    return {file.resolve() for file in files}


def _files(made: str) -> set[Path]:
    """Return the files behind a digest of rooms."""
    folders = (project_root() / room for room in ROOMS[made])
    return {file.resolve() for folder in folders for file in folder.rglob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_module_that_a_run_imports_is_in_a_digest(
    backend: str, watched: Watched, tmp_path: Path, shared_cache: Path
) -> None:
    """Train a sweep of heads, whole steps, native mode, phases and tuning in the two default
    backends; the adapter that Keras's other engines share is theirs."""
    is_default = backend in DEFAULT_BACKENDS
    grids = ONE_RUN + SWEEP + NATIVE_AND_PHASES if is_default else ONE_RUN
    suite = f'name = "imports"\nbackends = ["{backend}"]\n{grids}'
    (tmp_path / "suite.toml").write_text(suite)
    command("run", "--suite", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "out"),
            *watched.options(backend), cache=shared_cache)  # fmt: skip
    assert {result["status"] for _, result, _ in stored(tmp_path / "out")} == {"ok"}
    imported = watched.imported()[backend, "RunTask"]
    assert project_root() / "bench" / "training" / "run.py" in imported
    assert imported - _covered(backend) == set()


@pytest.mark.slow
def test_every_module_that_a_proof_or_export_imports_is_in_a_digest(
    watched: Watched, tmp_path: Path
) -> None:
    """Use an empty cache, so that the networks are exported."""
    (tmp_path / "net.py").write_text(NETWORK)
    command("parity", f"module:{tmp_path / 'net.py'}:build", "--policy", "retrain_all,from_scratch",
            "--optimizer", "sgd", "--dtype", "float32", "--px", "32",
            "--backends", ",".join(BACKENDS), *watched.options(*BACKENDS),
            cache=tmp_path / "cache", code=None)  # fmt: skip
    proofs = _files("proof")
    imported = watched.imported()
    assert {backend for backend, task in imported if task == "ProveTask"} == set(BACKENDS)
    assert ("torch", "ExportTask") in imported
    assert project_root() / "bench/parity/random_network.py" in imported["torch", "ExportTask"]
    for (backend, task), files in imported.items():
        assert files - _covered(backend) - proofs == set(), task


@pytest.mark.slow
@pytest.mark.parametrize("backend", DEFAULT_BACKENDS)
def test_every_module_that_a_benchmark_imports_is_in_a_digest(
    backend: str, watched: Watched, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWBENCH_CACHE", str(shared_cache))
    interpreters = watched.interpreters(backend)
    case = SpeedCase("squeezenet1_1", "freeze_all", "fp32", 2, "plain", backend)
    timed = prepare([case], SMALLEST, "cpu", interpreters, shared_cache)
    found = launch(timed, Place(interpreters, shared_cache), Random(0))
    assert not found.failures
    imported = watched.imported()[backend, "SpeedTask"]
    timers = _files("benchmark")
    assert project_root() / "bench/speed/timing.py" in imported
    assert imported - _covered(backend) - timers == set()
