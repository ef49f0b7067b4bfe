"""Time to train twenty linear heads at once, compared with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.end_to_end.test_command import command
from tests.speed.clock import CLOCK, hand_over

SUITE = """
name = "sweep"
backends = ["{backend}"]
[[grid]]
{common}
learning_rate = 0.0005
[[grid]]
{common}
learning_rate = 0.001
[[grid]]
{common}
learning_rate = [0.0003, 0.001, 0.003, 0.01, 0.03]
weight_decay = [0.0, 0.0001, 0.001, 0.01]
"""
COMMON = """
dataset = "photos"
train_images = {images}
val_images = 18
test_images = 180
backbones = ["{backbone}"]
policies = ["freeze_all"]
weights = "random"
px = {px}
epochs = {epochs}
"""
SIZES = {
    "smallest": {"images": 18, "px": 32, "epochs": 2, "rounds": 1, "backbone": "squeezenet1_1"},
    "usual": {
        "images": 1000, "px": 96, "epochs": 10, "rounds": 3, "backbone": "efficientnet_lite0",
    },
}  # fmt: skip


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow"])
def test_sweep(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    """Measure twenty heads. Both times include set-up, values of the frozen part, training,
    validation and test."""
    size = SIZES[request.config.getoption("--speed-size")]
    common = COMMON.format(**size)
    (tmp_path / "sweep.toml").write_text(SUITE.format(backend=backend, common=common))
    many, alone = [], []
    for number in range(int(size["rounds"])):
        answer = command(
            "run", "--suite", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / str(number)),
            "--json", "--device", request.config.getoption("--speed-device"),
            cache=tmp_path / f"cache{number}",
        )  # fmt: skip
        rows = json.loads(answer.stdout)["rows"]
        assert {row["status"] for row in rows} == {"ok"}
        # The first run, in a cold worker, is left out.
        (one,) = (r for r in rows if (r["sweep"], r["learning_rate"]) == ("alone", 0.001))
        (took,) = {row["sweep_s"] for row in rows if row["sweep"] == "at once"}
        many.append(took)
        alone.append(one["setup_s"] + one["fit_s"] + one["test_s"])
    benchmark.group = "sweep of 20 heads"
    benchmark.extra_info.update(
        **size,
        backend=backend,
        alone_s=alone,
        sweep_over_one=[m / a for m, a in zip(many, alone, strict=True)],
    )
    hand_over(benchmark, many)
