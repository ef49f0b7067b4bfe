"""Who may import whom, and how long a file may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("torch", "torchvision", "timm", "keras", "tensorflow", "jax")
LONGEST = 400

WALK = """
import importlib, json, pkgutil, sys
import bench
names = [m.name for m in pkgutil.walk_packages(bench.__path__, "bench.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"names": names, "modules": sorted(sys.modules)}))
"""


def _fresh(code: str) -> dict[str, list[str]]:
    """What a fresh interpreter prints as JSON after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_bench_imports_no_framework_and_no_backend() -> None:
    found = _fresh(WALK)
    assert {"bench.cli", "bench.loop", "bench.data.photos", "bench.report.page"} <= set(
        found["names"]
    )
    assert set(found["modules"]).isdisjoint({*FRAMEWORKS, "backends"})


def test_help_needs_neither_numpy_nor_pandas() -> None:
    code = "import json, sys, bench.cli; print(json.dumps({'modules': sorted(sys.modules)}))"
    assert set(_fresh(code)["modules"]).isdisjoint({*FRAMEWORKS, "numpy", "pandas", "scipy"})


def test_the_worker_itself_imports_no_framework_before_its_job() -> None:
    code = "import json, sys, backends.worker; print(json.dumps({'modules': sorted(sys.modules)}))"
    assert set(_fresh(code)["modules"]).isdisjoint(FRAMEWORKS)


@pytest.mark.parametrize("folder", ["bench", "backends", "tests"])
def test_no_file_is_long(folder: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    assert lengths
    assert {path: n for path, n in lengths.items() if n > LONGEST} == {}


def test_every_backend_in_the_catalogue_is_a_package_here() -> None:
    from bench.catalog.backends import BACKENDS

    for entry in BACKENDS.values():
        assert (ROOT / entry.adapter.replace(".", "/") / "__init__.py").is_file()
