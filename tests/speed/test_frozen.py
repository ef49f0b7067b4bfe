"""Time saved by freezing: the fit of the command ``run``, with and without cached values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.catalog.backbones import BACKBONES
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.storage.cache import cache_root
from tests.end_to_end.test_command import command
from tests.frameworks import run_module
from tests.speed.clock import CLOCK, hand_over
from tests.speed.conftest import HERE

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
    "smallest": {"images": 18, "px": 32, "epochs": 2, "forms": "plain,folded"},
    "usual": {"images": 1000, "px": 96, "epochs": 10, "forms": "plain,folded,compiled"},
}
ON_A_GPU = {"images": 4000, "px": 224, "epochs": 10, "forms": "plain,folded"}
"""The size 'usual' on a GPU."""
CASES = {
    "smallest": [("squeezenet1_1", "freeze_all", 1)],
    "usual": [
        ("efficientnet_lite0", "freeze_all", 3),
        ("efficientnet_lite0", "fine_tune_last", 2),
        ("vgg16", "freeze_all", 2),
        ("vgg16", "fine_tune_last", 1),
    ],
}
"""Size → (backbone, policy, rounds). A fit of VGG16 in whole steps takes minutes."""
WITH_WHOLE = ("fine_tune_last",)
"""Policies that are compared with whole steps; tests/peers does so for frozen networks."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = CASES[metafunc.config.getoption("--speed-size")]
    ids = ["-".join(case[:2]) for case in cases]
    metafunc.parametrize(("backbone", "policy", "rounds"), cases, ids=ids)


def _row(folder: Path, cache: Path, device: str, *more: str) -> dict[str, Any]:
    """Do one run in a new worker and return its row."""
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


def _by_hand(
    backend: str, backbone: str, policy: str, forms: str, row: dict[str, Any], device: str
) -> dict[str, Any]:
    """Run ``tests.speed.limit`` on as many images as the row's run has."""
    weights = random_weights(BACKBONES[backbone])
    folder = blueprint_folder(backbone, row["px"], weights, 0, cache_root(), HERE)
    images = row["train_images"] + row["val_images"]
    lines = run_module(
        backend, "tests.speed.limit", str(folder), f"--policy={policy}", f"--images={images}",
        f"--batch-size={row['batch_size']}", f"--forms={forms}", f"--epochs={row['epochs']}",
        f"--device={device}", device=device,
    )  # fmt: skip
    found: dict[str, Any] = lines[-1]
    return found


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("backend", ["torch", "keras-tensorflow"])
def test_frozen(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    backend: str,
    backbone: str,
    policy: str,
    rounds: int,
) -> None:
    """Measure the fit including the values of the frozen part. For comparison, measure a fit in
    whole steps, and the limit: a hand-written pass of inference over the images plus the training
    of the head (by the harness if more than a head is trained)."""
    size = SIZES[request.config.getoption("--speed-size")]
    device = request.config.getoption("--speed-device")
    if device != "cpu" and request.config.getoption("--speed-size") == "usual":
        size = ON_A_GPU
    text = SUITE.format(backend=backend, backbone=backbone, policy=policy, **size)
    (tmp_path / "frozen.toml").write_text(text)
    computed, limits, whole, by_hand = [], [], [], []
    forms = set()
    for number in range(rounds):
        cache = tmp_path / f"cache{number}"
        first, again = _row(tmp_path, cache, device), _row(tmp_path, cache, device)
        assert (first["prefix_values"], again["prefix_values"]) == ("computed", "reused")
        computed.append(first["fit_s"])
        hand = _by_hand(backend, backbone, policy, size["forms"], first, device)
        rest_s = again["fit_s"] - again["prefix_s"]
        limits.append(min(hand["passes"].values()) + (hand["head_s"] or rest_s))
        by_hand.append({**hand, "rest_s": rest_s})
        forms.add(first["prefix_form"])
        if policy in WITH_WHOLE:
            whole.append(_row(tmp_path, cache, device, "--prefix-cache", "off")["fit_s"])
    benchmark.group = f"fit {backbone} {policy}"
    benchmark.extra_info.update(
        **size,
        backend=backend,
        fit_over_limit=[fit / limit for fit, limit in zip(computed, limits, strict=True)],
        whole_over_fit=[w / fit for w, fit in zip(whole, computed, strict=False)],
        limit_s=limits,
        by_hand=by_hand,
        form=", ".join(sorted(forms)),
        whole_s=whole,
    )
    hand_over(benchmark, computed)
