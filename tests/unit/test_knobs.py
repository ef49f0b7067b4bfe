"""Knobs are read back from the framework: something that is set shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.catalog.backends import BACKENDS
from bench.environment import project_root

COMPILED = "torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2))"
TORCH = """
import json, torch, sys
from backends.torch_adapter import device
before = device.knobs(torch.device("cpu"))["compile"]
{compiled}
print(json.dumps([before, device.knobs(torch.device("cpu"))["compile"]]))
"""
ENGINE = """
import json, torch
from backends.keras_adapter.engines.torch import engine
made = engine()
made.prepare("cpu", "fp32")
before = made.knobs()["compile"]
{compiled}
print(json.dumps([before, made.knobs()["compile"]]))
"""
JAX = """
import json, jax
from backends.keras_adapter.engines.jax import engine
made = engine()
made.prepare("cpu", "fp32")
before = made.knobs()["xla"]
jax.config.update("jax_disable_jit", True)
print(json.dumps([before, made.knobs()["xla"]]))
"""


@pytest.mark.parametrize(
    ("backend", "code", "said"),
    [
        ("torch", TORCH, [False, True]),
        ("keras-torch", ENGINE, [False, True]),
        ("keras-jax", JAX, [True, False]),
    ],
)
def test_compilation_is_read_back(
    backend: str, code: str, said: list[bool], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code.replace("{compiled}", COMPILED)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(project_root()),
             **BACKENDS[backend].variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == said
