"""Values of a frozen part do not depend on the form in which they are computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench.catalog.backends import BACKENDS
from bench.system import project_root
from tests.frameworks import BACKENDS as PAIR

FORMS = {
    "torch": ["folded", "compiled"],
    "keras-tensorflow": ["folded"],
    "keras-torch": ["folded"],
    "keras-jax": ["folded"],
}
TOLERANCE = {"fp64": 1e-13, "bf16": 0.03}
"""bf16 has 8 bits; folding rounds the product of kernel and factor instead of each."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", FORMS)
def test_forms_agree(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity.forms_worker", backend, *FORMS[backend]],
        env={**os.environ, **BACKENDS[backend].variables},
        capture_output=True, text=True, timeout=900, cwd=project_root(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == (4 if backend in PAIR else 1) * len(FORMS[backend])
    for key, values in found.items():
        form, _, _, precision = key.split()
        assert values["form"] == form, key
        assert values["shape"] == [True, True], key
        assert values["dtype"] == ("float64" if precision == "fp64" else "float32")
        assert values["gap"] <= TOLERANCE[precision], (key, values)
        assert values["spread"] > 1e-2, "images must not all give the same"
        assert values["compile"] is (False if backend == "torch" else None), "training is not"
