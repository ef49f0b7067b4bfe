"""Time to make tables of thousands of results, and a page of a thousand."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from pytest_benchmark.fixture import BenchmarkFixture

from bench.analysis.folders import load_runs
from bench.report import make_report
from bench.storage.results import Store
from bench.training.predictions import FILE, prediction_fields
from tests.unit.made_runs import POLICIES

SIZES = {
    "smallest": {"tables": 200, "page": 60, "rounds": 1},
    "usual": {"tables": 10_000, "page": 1_000, "rounds": 3},
}
IMAGES, CLASSES, WINDOWS = 1_080, 18, 20
PAGE_BYTES = 10e6
"""Largest size of the page without the plot library."""
CASES = {1: ("small", "similar", 216), 2: ("large", "similar", 1_980),
         3: ("medium", "similar", 720),
         4: ("large", "not_similar", 2_520)}  # fmt: skip
BACKBONES = ("efficientnet_lite0", "squeezenet1_1", "resnet50", "vgg16")
BACKENDS = ("torch", "keras-tensorflow")

Fill = Callable[[Path, int], None]


@pytest.fixture
def fill(
    make_spec: Callable[..., Any],
    make_environment: Callable[..., Any],
    save_run: Callable[..., Any],
) -> Fill:
    """Return ``fill(folder, count)``, which writes results of grids that differ in their epochs,
    each run with predictions and a log."""

    def filled(folder: Path, many: int) -> None:
        store = Store(folder)
        labels = np.arange(IMAGES) % CLASSES
        grid = list(product(CASES, BACKBONES, POLICIES, range(3), BACKENDS))
        for number in range(many):
            case, backbone, policy, seed, backend = grid[number % len(grid)]
            epochs = 2 + number // len(grid)
            size, similarity, images = CASES[case]
            data = {"classes": [f"class {n}" for n in range(CLASSES)], "train_images": images,
                    "test_images": IMAGES}  # fmt: skip
            spec = make_spec(
                case={"number": case, "size": size, "similarity": similarity, "dataset": data},
                backbone=backbone, policy={"name": policy, **POLICIES[policy]}, seed=seed,
                backend=backend, recipe={"epochs": epochs},
            )  # fmt: skip
            random = np.random.default_rng(number)
            said = np.where(random.random(IMAGES) < 0.8, labels, (labels + 1) % CLASSES)
            logits = np.eye(CLASSES, dtype=np.float32)[said] * 4
            np.savez(folder / FILE, logits=logits, labels=labels)
            rates = random.normal(100, 3, WINDOWS)
            where = make_environment(backend=backend)
            made = save_run(
                store, spec, where, test_top1=float(np.mean(said == labels)),
                train_images_per_s=float(np.median(rates)),
                train_images_per_s_windows=rates.tolist(),
                val_top1_by_epoch=random.random(epochs).tolist(),
                train_loss_by_epoch=random.random(epochs).tolist(),
                **prediction_fields(folder),
            )  # fmt: skip
            (folder / FILE).replace(made / FILE)
            (made / "log.txt").write_text(f"run {number}\n" * 20)

    return filled


@pytest.mark.parametrize("what", ["tables", "page"])
def test_report(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fill: Fill,
    what: str,
) -> None:
    """Measure the time from loaded results to all files (``tables``: without the page); record the
    time of loading, too."""
    size = SIZES[request.config.getoption("--speed-size")]
    fill(tmp_path, size[what])

    began = time.perf_counter()
    runs, problems = load_runs([tmp_path])
    benchmark.extra_info["read_s"] = time.perf_counter() - began
    assert (len(runs), problems) == (size[what], [])

    def report() -> None:
        make_report(runs, tmp_path, with_page=what == "page").write(("md", "csv"))

    benchmark.group = f"report of {size[what]:,} runs"
    benchmark.pedantic(report, rounds=size["rounds"], iterations=1)
    tables = tmp_path / "tables"
    assert (tables / "table.csv").read_text().count("\n") == size[what] + 1
    assert all((tables / f"{name}.md").exists() for name in ("cases", "policies", "backends"))
    page = tmp_path / "report.html"
    assert page.exists() == (what == "page")
    if page.exists():
        beside_bytes = page.stat().st_size - len(get_plotlyjs().encode())
        benchmark.extra_info["page_bytes"] = beside_bytes
        assert beside_bytes < PAGE_BYTES
