"""Both adapters compute the same logits from the same Blueprint, for every listed backbone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bench.catalog.backbones import BACKBONES
from bench.network.export import architecture_folders
from tests.frameworks import BACKENDS, HERE, logits, random_network

SIZES = {
    name: (96, 224) if name in ("alexnet", "squeezenet1_1", "efficientnet_lite0") else (96,)
    for name in BACKBONES
}
"""Backbone → input sizes in pixels. The larger one is for networks whose layers round it otherwise;
``make parity`` proves all others at theirs."""
CASES = [(name, px) for name, sizes in SIZES.items() for px in sizes]
TOLERANCE = 1e-4
Logits = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Logits, Logits]:
    folder = tmp_path_factory.mktemp("logits")
    random = np.random.default_rng(0)
    cache = folder / "cache"
    items = {}
    for px in dict.fromkeys(px for sizes in SIZES.values() for px in sizes):
        sizes = {name: px for name in BACKBONES if px in SIZES[name]}
        for name, architecture in architecture_folders(sizes, cache, HERE).items():
            blueprint = random_network(architecture, folder / f"{name}-{px}")
            images = random.integers(0, 256, (2, px, px, 3), dtype=np.uint8)
            items[f"{name}-{px}"] = (blueprint, images)
    first, second = (logits(backend, items, folder) for backend in BACKENDS)
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "px"), CASES)
def test_logits_agree(both: tuple[Logits, Logits], backbone: str, px: int) -> None:
    torch_logits, keras_logits = (found[f"{backbone}-{px}"] for found in both)
    assert torch_logits.shape == keras_logits.shape == (2, 1000)
    scale = np.abs(torch_logits).max()
    assert scale > 0
    assert np.abs(torch_logits - keras_logits).max() / scale <= TOLERANCE
    # The network must not ignore its images, or the comparison would be inconclusive.
    assert np.abs(torch_logits[0] - torch_logits[1]).max() / scale > 10 * TOLERANCE
