"""Check that a training step makes few calls: on a GPU, calls of Python take most of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.catalog.backbones import BACKBONES
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.speed.selfcheck import convolutional_network
from tests.frameworks import HERE, run_module

MOST_OVER_HAND = 1.3


@pytest.fixture(scope="module")
def resnet(shared_cache: Path) -> Path:
    """Return ResNet50 with random numbers, at 64 px."""
    weights = random_weights(BACKBONES["resnet50"])
    return blueprint_folder("resnet50", 64, weights, 0, shared_cache, HERE)


def _calls(backend: str, folder: Path, **options: str) -> dict[str, Any]:
    given = [f"--{name}={value}" for name, value in options.items()]
    found: dict[str, Any] = run_module(backend, "tests.parity.calls_worker", str(folder), *given)[
        -1
    ]
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_asks_no_more_than_a_loop_by_hand(resnet: Path, precision: str) -> None:
    found = _calls("torch", resnet, precision=precision)
    assert found["calls"] <= found["by_hand"]
    assert found["copies"] == 0


@pytest.mark.parametrize(("precision", "optimizer"), [("fp32", "sgd"), ("bf16", "adamw")])
def test_keras_on_torch_asks_little_more(resnet: Path, precision: str, optimizer: str) -> None:
    """A step once made 3.4 times as many calls: one update per variable, cloned statistics, and
    activations that were copied from channels last to channels first and back."""
    found = _calls("keras-torch", resnet, precision=precision, optimizer=optimizer)
    assert found["calls"] <= MOST_OVER_HAND * found["by_hand"]
    assert found["copies"] == 0
    assert found["from_host"] == 0, "a number of the host in a step makes it wait for a GPU"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network of four convolutions, which compiles in seconds."""
    folder = tmp_path_factory.mktemp("small") / "network"
    folder.mkdir()
    convolutional_network(16, 8).save(folder)
    return folder


def test_jax_compiles_once_for_each_batch_size(small: Path) -> None:
    found = _calls("keras-jax", small, compile="compiled")
    assert found == {"programs": [3, 4], "count": 2, "breaks": None}


@pytest.mark.parametrize("backend", ["torch", "keras-torch"])
def test_torch_compiles_full_batches_in_one_graph(small: Path, backend: str) -> None:
    """An epoch's last batch, of another size, would take as long again."""
    found = _calls(backend, small, compile="compiled")
    assert found == {"programs": None, "count": 1, "breaks": 0}
