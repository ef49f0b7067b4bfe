"""Parameter counts of the networks that each backend builds, against published numbers."""

from __future__ import annotations

import pytest

from bench.catalog.backends import BACKENDS as ALL
from bench.cli.list import count_backbones
from bench.cli.options import ListOptions
from tests.frameworks import BACKENDS, HERE

PUBLISHED = {
    "squeezenet1_1": 1_235_496,
    "mobilenet_v2": 3_504_872,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
"""torchvision's ``num_params`` metadata; for the Lites, the packaged state dicts."""
RESNET50_CHANNELS = 26_560
"""Sum of the channels of ResNet50's BatchNorms; each channel has a running mean and variance."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_are_the_published_ones(backend: str) -> None:
    options = ListOptions(policy="retrain_all", backend=backend)
    counts = count_backbones(list(PUBLISHED), options, HERE)
    assert {n: c.total_parameters for n, c in counts.items()} == PUBLISHED
    assert {n: c.trainable_parameters for n, c in counts.items()} == PUBLISHED
    assert counts["resnet50"].state_values == 2 * RESNET50_CHANNELS
    assert counts["vgg16"].state_values == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_article_trains_ten_of_twenty_two_million(backend: str) -> None:
    options = ListOptions(
        policy="fine_tune_last", head="flatten+dense:290", classes=16, backend=backend, px=224
    )
    counts = count_backbones(["vgg16"], options, HERE, boundary="features.28")["vgg16"]
    # VGG16's convolutions 14,714,688; 25,088 × 290 + 290 + 290 × 16 + 16 in the head.
    assert counts.total_parameters == 14_714_688 + 7_280_466
    assert counts.trainable_parameters == 2_359_808 + 7_280_466


@pytest.mark.parametrize("backend", ALL)
def test_freezing_everything_leaves_the_head(backend: str) -> None:
    options = ListOptions(policy="freeze_all", head="linear", classes=10, backend=backend)
    counts = count_backbones(["efficientnet_lite0"], options, HERE)["efficientnet_lite0"]
    assert counts.trainable_parameters == 1280 * 10 + 10
    assert counts.state_values == 42_016
