"""Speed of making batches alone: pixels from the memory map, augmented."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data import Split
from bench.spec.plain import plain_recipe
from bench.training.batches import TrainingBatches
from tests.speed.clock import CLOCK, hand_over

SIZES = {
    "smallest": {"images": 8, "px": 32, "batch_size": 4, "rounds": 2},
    "usual": {"images": 1000, "px": 224, "batch_size": 32, "rounds": 5},
}


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_input(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    augmentation: str,
    threads: int,
) -> None:
    """Measure an epoch of batches without training."""
    size = SIZES[request.config.getoption("--speed-size")]
    count, px = size["images"], size["px"]
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (count, px, px, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    split = Split(images, np.zeros(count, np.int64))
    recipe = plain_recipe("linear", px, size["batch_size"])
    recipe = recipe.model_copy(update={"augmentation": augmentation})
    batches = TrainingBatches(split, recipe, (), 0, threads=threads)
    found = []
    for epoch in range(size["rounds"]):
        began = time.perf_counter()
        assert sum(len(batch.labels) for batch in batches.epoch(epoch)) == count
        found.append(time.perf_counter() - began)
    benchmark.group = f"input {px} px"
    benchmark.extra_info.update(
        **size, threads=threads, augmentation=augmentation,
        images_per_s=count / float(np.median(found)),
    )  # fmt: skip
    hand_over(benchmark, found)
