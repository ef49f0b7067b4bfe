"""Descriptions of networks by a torch worker; the catalogue's stages follow the same rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.backbones import BACKBONES
from bench.network.backbones import backbones
from bench.network.blueprint import Blueprint, is_under
from bench.network.export import architecture_folders
from bench.spec.backbone import HALF, IMAGENET, BackboneEntry
from bench.storage.cache import cache_root
from tests.frameworks import HERE

OTHERS = (
    "torchvision:densenet121",
    "torchvision:regnet_y_400mf",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:inception_v3",
    "torchvision:vit_b_16",
    "timm:resnet18",
    "timm:mobilenetv3_small_050",
)
Entries = dict[str, BackboneEntry]


def _same(name: str) -> str:
    return f"{BACKBONES[name].library}:{BACKBONES[name].model}"


@pytest.fixture(scope="module")
def described() -> Entries:
    return backbones([*OTHERS, *map(_same, BACKBONES)], HERE)


@pytest.fixture(scope="module")
def architectures() -> dict[str, Path]:
    sizes = {name: entry.native_px for name, entry in BACKBONES.items()}
    return architecture_folders(sizes, cache_root(), HERE)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_catalogues_stages_are_found(
    described: Entries, architectures: dict[str, Path], name: str
) -> None:
    stages = described[_same(name)].stages
    for operation in Blueprint.load(architectures[name]).operations:
        if operation.tensors:
            path = operation.module_path
            (found,) = [s for s, p in stages if any(is_under(path, prefix) for prefix in p)]
            assert found == operation.stage, path


def test_input_sizes(described: Entries) -> None:
    sizes = {n: (e.native_px, e.min_px, e.fixed_px) for n, e in described.items()}
    assert sizes["torchvision:alexnet"] == (224, BACKBONES["alexnet"].min_px, False)
    assert sizes["torchvision:inception_v3"] == (299, 75, False)
    assert sizes["torchvision:vit_b_16"] == (224, 224, True)


def test_weights_and_preprocessing_are_the_librarys(described: Entries) -> None:
    (source,) = described["torchvision:resnet50"].sources
    assert source == BACKBONES["resnet50"].sources[0]
    assert described["torchvision:densenet121"].preprocessing == IMAGENET
    assert described["torchvision:inception_v3"].preprocessing == HALF
    hub, release = described["timm:resnet18"].sources
    assert hub.location.startswith("https://huggingface.co/timm/resnet18.")
    assert (hub.sha256, release.sha256, release.licence) == ("", "d63eafa0", "Apache-2.0")
