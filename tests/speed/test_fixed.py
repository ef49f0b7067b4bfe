"""Wall-clock cost of a run besides its fit, with a warm worker."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.end_to_end.test_command import command
from tests.speed.clock import CLOCK, hand_over

SUITE = """
name = "fixed"
backends = ["{backend}"]
seeds = {seeds}
[[grid]]
dataset = "photos"
train_images = 36
val_images = 18
test_images = 36
backbones = ["{backbone}"]
policies = ["freeze_all"]
px = 64
epochs = 2
"""
SIZES = {
    "smallest": {"backbone": "squeezenet1_1", "runs": 3, "rounds": 1},
    "usual": {"backbone": "efficientnet_lite0", "runs": 8, "rounds": 3},
}
SPARE_ROUNDS = 3
BACKENDS = {"smallest": ["torch"], "usual": ["torch", "keras-tensorflow"]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("backend", BACKENDS[metafunc.config.getoption("--speed-size")])


@pytest.mark.benchmark(timer=CLOCK)
def test_fixed(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    """Measure seconds per run: the difference between a call with many runs and one with few,
    without their fits. A first call fills the cache with images, network and values."""
    size = SIZES[request.config.getoption("--speed-size")]
    device = request.config.getoption("--speed-device")

    found: list[float] = []
    for number in range(int(size["rounds"]) + SPARE_ROUNDS):
        one_s = _besides_fits_s(tmp_path, number, backend, size, device)
        if one_s > 0.0:  # else other work on the machine took more time than the runs
            found.append(one_s)
        if len(found) == size["rounds"]:
            break
    assert len(found) == size["rounds"], "the machine is too busy to measure this"
    benchmark.group = "fixed cost of a run, warm worker"
    benchmark.extra_info.update(**size, backend=backend)
    hand_over(benchmark, found)


def _besides_fits_s(
    folder: Path, number: int, backend: str, size: dict[str, object], device: str
) -> float:
    """Return seconds per run besides the fit, from the difference of two commands."""
    more = int(str(size["runs"]))
    took_s, fits_s = [], []
    for name, seeds in (("cache", [0]), ("few", [0, 1]), ("many", list(range(2 + more)))):
        text = SUITE.format(backend=backend, backbone=size["backbone"], seeds=seeds)
        (folder / "fixed.toml").write_text(text)
        began = time.perf_counter()
        answer = command(
            "run", "--suite", str(folder / "fixed.toml"), "--out", str(folder / f"{number}-{name}"),
            "--json", "--device", device, cache=folder / "cache",
        )  # fmt: skip
        took_s.append(time.perf_counter() - began)
        rows = json.loads(answer.stdout)["rows"]
        # Every run reports the time for the values, which only the first one spent.
        fits_s.append(sum(row["fit_s"] - row["prefix_s"] for row in rows))
    return (took_s[2] - took_s[1] - (fits_s[2] - fits_s[1])) / more
