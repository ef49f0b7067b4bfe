"""Knobs are read back from the framework, so that they show what is set."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backends import BACKENDS
from bench.system import cores, project_root
from tests.frameworks import HERE

COMPILED = "torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2))"
TORCH = """
import json, torch, sys
from backends import torch_device as device
before = device.knobs(torch.device("cpu"))["compile"]
{compiled}
print(json.dumps([before, device.knobs(torch.device("cpu"))["compile"]]))
"""
ENGINE = """
import json, torch
from backends.keras_adapter.engines.torch import engine
tested = engine()
tested.prepare("cpu", "fp32")
before = tested.knobs()["compile"]
{compiled}
print(json.dumps([before, tested.knobs()["compile"]]))
"""
JAX = """
import json, jax
from backends.keras_adapter.engines.jax import engine
tested = engine()
tested.prepare("cpu", "fp32")
before = tested.knobs()["xla"]
jax.config.update("jax_disable_jit", True)
print(json.dumps([before, tested.knobs()["xla"]]))
"""


TENSORFLOW = """
import json
from backends.keras_adapter.engines.tensorflow import engine
tested = engine()
tested.prepare("cpu", "fp32")
knobs = tested.knobs()
print(json.dumps([knobs[k] for k in ("threads", "interop_threads", "xla", "cudnn_benchmark")]))
"""


def _printed(backend: str, code: str, home: Path, **variables: str) -> list[Any]:
    """Run code in a backend's process and parse the last line that it prints."""
    done = subprocess.run(
        [str(HERE.of(backend)), "-P", "-c", code],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(project_root()),
             **BACKENDS[backend].environment({}, "cpu"), "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def test_a_flag_has_the_value_that_was_given_last(tmp_path: Path) -> None:
    values = {"": None, "--a=1": None, "--b": "true", "--a --b=2 --c": "2", "--b=1 --b=0": "0",
              "--bb=1": None}  # fmt: skip
    code = f"""
import json
from backends.keras_adapter.engines import flag
print(json.dumps([flag("b", flags) for flags in {list(values)}]))
"""
    assert _printed("keras-torch", code, tmp_path) == list(values.values())


def test_tensorflow_reports_what_its_variables_set(tmp_path: Path) -> None:
    printed = _printed(
        "keras-tensorflow", TENSORFLOW, tmp_path, TF_NUM_INTRAOP_THREADS="3",
        TF_NUM_INTEROP_THREADS="5", TF_XLA_FLAGS="--tf_xla_auto_jit=2", TF_CUDNN_USE_AUTOTUNE="0",
    )  # fmt: skip
    assert printed == [3, 5, True, False]
    printed = _printed("keras-tensorflow", TENSORFLOW, tmp_path, TF_XLA_FLAGS="--tf_xla_auto_jit=0")
    assert printed == [cores(), cores(), False, True]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("", False), ("--xla_gpu_deterministic_ops=true", True),
     ("--xla_gpu_deterministic_ops=false", False)],
)  # fmt: skip
def test_jax_reports_whether_it_is_deterministic(
    flags: str, expected: bool, tmp_path: Path
) -> None:
    code = JAX.replace('["xla"]', '["deterministic"]')
    assert _printed("keras-jax", code, tmp_path, XLA_FLAGS=flags) == [expected, expected]


@pytest.mark.parametrize(
    ("backend", "code", "expected"),
    [
        ("torch", TORCH, [False, True]),
        ("keras-torch", ENGINE, [False, True]),
        ("keras-jax", JAX, [True, False]),
    ],
)
def test_compilation_is_read_back(
    backend: str, code: str, expected: list[bool], tmp_path: Path
) -> None:
    assert _printed(backend, code.replace("{compiled}", COMPILED), tmp_path) == expected
