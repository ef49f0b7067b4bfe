"""The loss scale of fp16 lives on the device: no step waits for it, and it moves as PyTorch's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from bench.catalog.backends import BACKENDS
from bench.system import project_root
from tests.frameworks import HERE

CODE = """
import json, math
import keras, numpy as np
from backends.keras_adapter.engines import TrainedVariable, UpdateScalars, load
from backends.keras_adapter.optimizer import TwinOptimizer
from backends.keras_adapter import optimizer as module
from bench.spec.plain import plain_recipe
module.GROWTH_STEPS = 3
engine = load()
engine.prepare("cpu", "fp32")
kind = "KIND"
recipe = plain_recipe("linear", 16, 2).model_copy(
    update={"precision": "fp16", "optimizer": kind, "weight_decay": 0.0,
            "momentum": 0.9})
variable = keras.Variable(np.ones(3, np.float32))
made = TwinOptimizer([TrainedVariable(variable, 1.0, None)], recipe, engine)
found = []
for gradient in GRADIENTS:
    scale = float(keras.ops.convert_to_numpy(made.loss_scale.value))
    g = keras.ops.convert_to_tensor(np.full(3, gradient * scale, np.float32))
    made.apply([g], UpdateScalars(0.1, None, None))
    found.append([scale, float(keras.ops.convert_to_numpy(variable)[0])])
made.reset()
found.append(float(keras.ops.convert_to_numpy(made.loss_scale.value)))
print(json.dumps(found))
"""
GRADIENTS = [0.5, 0.25, float("inf"), 0.5, 0.5, 0.5, 0.5, float("nan"), 0.1]


def _expected(kind: str) -> list[Any]:
    """Compute AdamW or SGD with PyTorch's rule of the scale: halved after an overflow, whose step
    is left out; doubled after three good steps."""
    scale, good, steps, w, first, second = 2.0**16, 0, 0, 1.0, 0.0, 0.0
    found: list[Any] = []
    for gradient in GRADIENTS:
        before = scale
        if abs(gradient) < float("inf"):
            steps += 1
            if kind == "sgd":
                first = 0.9 * first + gradient
                w -= 0.1 * first
            else:
                first += 0.1 * (gradient - first)
                second = 0.999 * second + 0.001 * gradient**2
                root = (second / (1 - 0.999**steps)) ** 0.5 + 1e-8
                w -= 0.1 / (1 - 0.9**steps) * first / root
            good += 1
            if good == 3:
                scale, good = scale * 2, 0
        else:
            scale, good = scale / 2, 0
        found.append([before, w])
    return [*found, 2.0**16]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("keras-torch", "adamw"), ("keras-torch", "sgd"), ("keras-tensorflow", "adamw"),
     ("keras-jax", "sgd")],
)  # fmt: skip
def test_an_overflow_skips_the_step_and_halves_the_scale(backend: str, kind: str) -> None:
    numbers = "[" + ", ".join(f"float('{g}')" for g in GRADIENTS) + "]"
    code = CODE.replace("GRADIENTS", numbers).replace("KIND", kind)
    done = subprocess.run(
        [str(HERE.of(backend)), "-P", "-c", code],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(project_root()),
             **BACKENDS[backend].environment({}, "cpu")},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    expected = _expected(kind)
    assert found[-1] == expected[-1]
    assert [scale for scale, _ in found[:-1]] == [scale for scale, _ in expected[:-1]]
    assert [w for _, w in found[:-1]] == pytest.approx([w for _, w in expected[:-1]], rel=2e-4)
