"""Model FLOP utilisation: a fake clock and fake matrices for the arithmetic, real ones for the
frameworks; no test depends on the speed of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.catalog.backends import BACKENDS
from bench.system import project_root
from bench.training import flop_utilisation as module
from bench.training.flop_utilisation import SIDES, WINDOWS, peak_flops_per_s, utilisation
from tests.frameworks import HERE

RATE = 1e12


class Gpu:
    """A device that multiplies at ``RATE`` FLOP/s on its own clock, which moves when it is waited
    for."""

    def __init__(self, slow_windows: int = 0) -> None:
        self.now = self.queued_s = 0.0
        self.sides: list[int] = []
        self.waits = 0
        self.slow_windows = slow_windows

    def matrix_product(self, side: int) -> Callable[[], None]:
        self.sides.append(side)

        def multiply() -> None:
            self.queued_s += 2 * side**3 / RATE

        return multiply

    def synchronise(self) -> None:
        if self.queued_s:
            self.waits += 1
        # The first two waits of a side are its warm-up and its trial.
        is_slow = 0 < self.waits - 2 * len(self.sides) <= self.slow_windows
        self.now += self.queued_s * (3 if is_slow else 1)
        self.queued_s = 0.0

    def measure(self) -> float:
        return peak_flops_per_s(self.matrix_product, self.synchronise, lambda: self.now)


def test_the_peak_is_two_n_cubed_over_the_best_window() -> None:
    assert Gpu().measure() == pytest.approx(RATE)
    assert Gpu(slow_windows=WINDOWS - 1).measure() == pytest.approx(RATE)
    assert Gpu(slow_windows=WINDOWS).measure() == pytest.approx(RATE / 3)


def test_matrices_are_as_large_as_a_product_of_two_milliseconds_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Gpu()
    gpu.measure()
    assert gpu.sides == [1024]  # 2.1 ms
    fast = Gpu()
    monkeypatch.setattr(sys.modules[__name__], "RATE", 1e14)
    fast.measure()
    assert fast.sides == [1024, 2048, 4096, 8192] == list(SIDES)


FOUND: dict[str, Any] = {
    "train_images_per_s": 500.0,
    "compute_images_per_s": 900.0,
    "forward_multiply_adds": 40_000_000,
    "backward_multiply_adds": 60_000_000,
}


@pytest.fixture(autouse=True)
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without measured peaks, as in a new process."""
    monkeypatch.setattr(module, "_peaks", {})


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record calls of a measurement that finds 1 TFLOP/s."""
    calls: list[Any] = []
    monkeypatch.setattr(module, "peak_flops_per_s", lambda *call: calls.append(call) or RATE)
    return calls


def _of(found: dict[str, Any], device: str = "cuda:0", precision: Any = "fp32") -> Any:
    return utilisation(found, Gpu(), device, precision, [])  # type: ignore[arg-type]


def test_utilisation_is_the_flop_of_end_to_end_training_over_the_peak(peaks: list[Any]) -> None:
    assert _of(FOUND) == {
        "device_peak_flops_per_s": RATE,
        "model_flop_utilisation": pytest.approx(2 * 100_000_000 * 500 / RATE),
    }


def test_the_peak_is_measured_once_for_a_device_and_precision(peaks: list[Any]) -> None:
    for _ in range(3):
        _of(FOUND)
        _of(FOUND, precision="bf16")
        _of(FOUND, device="cuda:1")
    assert len(peaks) == 3


@pytest.mark.parametrize(
    ("found", "device"),
    [
        (FOUND, "cpu"),
        ({**FOUND, "train_images_per_s": None}, "cuda:0"),  # too short
        ({k: v for k, v in FOUND.items() if "train" not in k}, "cuda:0"),  # prefix computed once
        ({k: v for k, v in FOUND.items() if "adds" not in k}, "cuda:0"),  # native
    ],
    ids=["cpu", "short", "cached", "native"],
)
def test_without_a_gpu_a_rate_or_a_count_nothing_is_measured(
    peaks: list[Any], found: dict[str, Any], device: str
) -> None:
    assert _of(found, device) == {}
    assert not peaks


def test_a_gpu_without_room_for_the_matrices_loses_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> float:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 268 MB")

    monkeypatch.setattr(module, "peak_flops_per_s", full)
    notes: list[str] = []
    assert utilisation(FOUND, Gpu(), "cuda:0", "fp32", notes) == {}  # type: ignore[arg-type]
    assert notes == ["the peak of cuda:0 was not measured: CUDA out of memory."]


TORCH = """
import torch
from backends.keras_adapter.engines.torch import engine
from backends import torch_device as device
made = engine()
made.prepare("cpu", "fp64")
adapter = lambda side, precision: device.matrix_product(torch.device("cpu"), precision, side)
makers, numpy = [adapter, made.matrix_product], lambda x: x.double().numpy()
"""
ENGINE = """
from backends.keras_adapter.engines.{name} import engine
made = engine()
made.prepare("cpu", "fp64")
makers, numpy = [made.matrix_product], lambda x: np.asarray(x).astype("float64")
"""
PRODUCTS = """
import json, numpy as np
{made}
found = []
for maker in makers:
    half = maker(8, "bf16")()
    multiply = maker(8, "fp64")
    products = [numpy(multiply()).tolist() for _ in range(3)]
    made.synchronise()
    found.append([str(half.dtype), products])
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("backend", "code"),
    [
        ("keras-torch", TORCH),
        ("keras-tensorflow", ENGINE.format(name="tensorflow")),
        ("keras-jax", ENGINE.format(name="jax")),
    ],
)
def test_each_framework_multiplies_one_matrix_again_and_again(
    tmp_path: Path, backend: str, code: str
) -> None:
    """Check P1 = F F, P2 = F P1 … of an unknown matrix F = P2 P1⁻¹."""
    done = subprocess.run(
        [str(HERE.of(backend)), "-P", "-c", PRODUCTS.format(made=code)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(project_root()),
             **BACKENDS[backend].environment({}, "cpu"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for half, products in json.loads(done.stdout.splitlines()[-1]):
        assert "bfloat16" in half
        first, second, third = (np.asarray(p) for p in products)
        factor = second @ np.linalg.inv(first)
        assert np.allclose(factor @ factor, first, rtol=1e-8, atol=1e-10)
        assert np.allclose(factor @ second, third, rtol=1e-8, atol=1e-10)
        assert 0.3 < np.linalg.norm(factor) / np.sqrt(8) < 3  # neither grows nor vanishes
