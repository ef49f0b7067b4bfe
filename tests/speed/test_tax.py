"""Full fine-tuning through the harness, compared with a hand-written loop (``tests.speed.tax``)."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.catalog.backbones import BACKBONES
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.storage.cache import cache_root
from tests.frameworks import run_module
from tests.speed.clock import CLOCK, hand_over
from tests.speed.conftest import HERE

BACKBONES_TIMED = {
    "smallest": ["efficientnet_lite0"],
    "usual": ["efficientnet_lite0", "resnet50", "squeezenet1_1"],
}
SIZES = {
    "smallest": {"px": 32, "batch-size": 2, "steps": 2, "epochs": 2},
    "usual": {"px": 96, "batch-size": 16, "steps": 8, "epochs": 12},
}
SHORT_STEPS = {"squeezenet1_1": {"px": 32, "batch-size": 4, "steps": 64, "epochs": 12}}
"""Settings with steps of a few milliseconds, so that the overhead per step is visible."""
_found: dict[tuple[str, str], dict[str, Any]] = {}


ON_A_GPU = {"px": 224, "batch-size": 64, "steps": 40, "epochs": 6}
PRECISION = {"cpu": "fp32", "cuda": "bf16"}
"""Kind of device → precision in which people train on it."""


def _compare(backend: str, backbone: str, size: dict[str, int], device: str) -> dict[str, Any]:
    if (backend, backbone) not in _found:
        weights = random_weights(BACKBONES[backbone])
        folder: Path = blueprint_folder(backbone, size["px"], weights, 0, cache_root(), HERE)
        options = [f"--{k}={v}" for k, v in size.items() if k != "px"]
        options += [f"--device={device}", f"--precision={PRECISION[device.partition(':')[0]]}"]
        lines = run_module(backend, "tests.speed.tax", str(folder), *options, device=device)
        _found[backend, backbone] = lines[-1]
    return _found[backend, backbone]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("backbone", BACKBONES_TIMED[metafunc.config.getoption("--speed-size")])


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("way", ["harness", "by_hand"])
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow"])
def test_tax(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    backend: str,
    way: str,
    backbone: str,
) -> None:
    name = request.config.getoption("--speed-size")
    device = request.config.getoption("--speed-device")
    size = SHORT_STEPS.get(backbone, SIZES[name])
    if device != "cpu" and name == "usual":
        size = ON_A_GPU
    found = _compare(backend, backbone, size, device)
    pairs = zip(found["harness_s"], found["by_hand_s"], strict=True)
    overheads = [(ours - theirs) / found["steps"] * 1e3 for ours, theirs in pairs]
    medians = {name: statistics.median(found[f"{name}_s"]) for name in ("harness", "by_hand")}
    benchmark.group = f"tax {backbone} {backend}"
    benchmark.extra_info.update(
        **size,
        images_per_s=found["images"] / medians[way],
        harness_over_by_hand=medians["by_hand"] / medians["harness"],
        overhead_ms_per_step=statistics.median(overheads),
    )
    hand_over(benchmark, found[f"{way}_s"])
