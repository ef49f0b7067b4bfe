"""Imports that are forbidden, or must wait until they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("torch", "torchvision", "timm", "keras", "tensorflow", "jax")

WALK = """
import importlib, json, pkgutil, sys
import bench
names = [m.name for m in pkgutil.walk_packages(bench.__path__, "bench.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"names": names, "modules": sorted(sys.modules)}))
"""


def _fresh(code: str) -> dict[str, list[str]]:
    """Run code in a fresh interpreter and return the JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_bench_imports_no_framework_and_no_backend() -> None:
    found = _fresh(WALK)
    assert {
        "bench.cli.main",
        "bench.training.run",
        "bench.data.photos",
        "bench.report.page",
    } <= set(found["names"])
    assert set(found["modules"]).isdisjoint({*FRAMEWORKS, "backends"})


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["list"], ["parity"], ["doctor"]])
def test_help_imports_neither_numpy_nor_pandas(command: list[str]) -> None:
    code = (
        "import atexit, json, sys\n"
        "from bench.cli.main import main\n"
        "atexit.register(lambda: print(json.dumps({'modules': sorted(sys.modules)})))\n"
        f"sys.argv = {['run_bench.py', *command, '--help']}\n"
        "main()\n"
    )
    assert set(_fresh(code)["modules"]).isdisjoint({*FRAMEWORKS, "numpy", "pandas", "scipy"})


def test_the_worker_imports_no_framework_before_its_task() -> None:
    code = "import json, sys, backends.worker; print(json.dumps({'modules': sorted(sys.modules)}))"
    assert set(_fresh(code)["modules"]).isdisjoint(FRAMEWORKS)


def test_every_backend_in_the_catalogue_is_a_package_here() -> None:
    from bench.catalog.backends import BACKENDS

    for entry in BACKENDS.values():
        assert (ROOT / entry.adapter.replace(".", "/") / "__init__.py").is_file()
