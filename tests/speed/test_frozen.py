"""What freezing saves, through the command as a user gives it: the whole fit, cached and not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.end_to_end.test_command import command
from tests.speed.clock import CLOCK, hand_over

SUITE = """
name = "frozen"
backends = ["{backend}"]
[[grid]]
dataset = "photos"
train_images = {images}
val_images = 18
test_images = 180
backbones = ["{backbone}"]
policies = ["{policy}"]
weights = "random"
px = {px}
epochs = {epochs}
"""
SIZES = {
    "smallest": {"images": 18, "px": 32, "epochs": 2, "rounds": 1},
    "usual": {"images": 1000, "px": 96, "epochs": 10, "rounds": 3},
}
CASES = {
    "smallest": [("squeezenet1_1", "freeze_all")],
    "usual": [
        ("efficientnet_lite0", "freeze_all"),
        ("vgg16", "freeze_all"),
        ("efficientnet_lite0", "fine_tune_last"),
        ("vgg16", "fine_tune_last"),
    ],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = CASES[metafunc.config.getoption("--speed-size")]
    metafunc.parametrize(("backbone", "policy"), cases, ids=["-".join(case) for case in cases])


def _row(folder: Path, cache: Path, device: str, *more: str) -> dict[str, Any]:
    """A run in a worker of its own."""
    answer = command(
        "run", "--suite", str(folder / "frozen.toml"), "--out", str(folder / "out"), "--fresh",
        "--json", "--device", device, *more, cache=cache,
    )  # fmt: skip
    (row,) = (r for r in json.loads(answer.stdout)["rows"] if r["prefix_cache"] == _mode(more))
    assert row["status"] == "ok"
    found: dict[str, Any] = row
    return found


def _mode(options: tuple[str, ...]) -> str:
    return options[options.index("--prefix-cache") + 1] if options else "auto"


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow"])
def test_frozen(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    backend: str,
    backbone: str,
    policy: str,
) -> None:
    """Rounds: the whole fit, values of the frozen part computed. Beside it the whole fit of whole
    steps; and the limit, one pass of inference over the images and the training of the rest."""
    size = SIZES[request.config.getoption("--speed-size")]
    device = request.config.getoption("--speed-device")
    text = SUITE.format(backend=backend, backbone=backbone, policy=policy, **size)
    (tmp_path / "frozen.toml").write_text(text)
    computed, limits, whole = [], [], []
    for number in range(size["rounds"]):
        cache = tmp_path / f"cache{number}"
        first, again = _row(tmp_path, cache, device), _row(tmp_path, cache, device)
        assert (first["prefix_values"], again["prefix_values"]) == ("computed", "reused")
        computed.append(first["fit_s"])
        images = first["train_images"] + first["val_images"]
        rate = first["infer_images_per_s"] or float("inf")  # too few for one, at the smallest size
        limits.append(images / rate + again["fit_s"] - again["prefix_s"])
        whole.append(_row(tmp_path, cache, device, "--prefix-cache", "off")["fit_s"])
    benchmark.group = f"fit {backbone} {policy}"
    benchmark.extra_info.update(
        **size,
        backend=backend,
        fit_over_limit=[fit / limit for fit, limit in zip(computed, limits, strict=True)],
        whole_over_fit=[w / fit for w, fit in zip(whole, computed, strict=True)],
        limit_s=limits,
        whole_s=whole,
    )
    hand_over(benchmark, computed)
