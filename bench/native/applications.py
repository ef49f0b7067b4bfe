"""Native mode: the network that each framework itself offers under a backbone's name.

For torch that is the catalogue's entry (torchvision or timm), for Keras ``keras.applications``. Its
names are strings here; a test compares them with the installed Keras.
"""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from bench.data.model import Resize

NATIVE_RESIZE: dict[str, Resize] = {"torch": "antialias", "keras": "bilinear"}
"""Framework → filter with which its usual loaders shrink images."""
_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"
_KERNELS = "weights_tf_dim_ordering_tf_kernels"
_EFFICIENTNET_V2 = f"{_STORE}/efficientnet_v2/efficientnetv2-*_notop.h5"


@dataclass(frozen=True)
class Application:
    """A class of ``keras.applications`` and its ImageNet weights without the classifier."""

    constructor: str
    module: str
    """Module below ``keras.applications`` with its ``preprocess_input``."""
    address: str
    """URL of the weights file; ``{px}`` in it stands for the input size of their training."""
    digest: str | None
    """MD5 or SHA-256 (by its length) in hex, as keras.applications has it; None if it has none."""
    min_px: int = 32
    """Smallest input size, in pixels."""
    sizes: tuple[int, ...] = ()
    """Input sizes with a weights file of their own; others use that of 224."""
    file: str | None = None
    """Name of the file in Keras's cache; None: the last part of the address."""

    @property
    def algorithm(self) -> str:
        """Algorithm of the digest."""
        return "sha256" if self.digest is not None and len(self.digest) == 64 else "md5"

    def location(self, px: int) -> str:
        """Return the URL of the weights for an input of ``px`` pixels."""
        return self.address.format(px=px if px in self.sizes else 224)

    def file_name(self, px: int) -> str:
        """Return the name of that file in Keras's cache."""
        return self.file or Path(urllib.parse.urlparse(self.location(px)).path).name


def keras_models_folder() -> Path:
    """Return the folder where Keras keeps downloaded weights (keras.utils.get_file)."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras"))) / "models"


def _single(constructor: str, module: str, digest: str, min_px: int = 32) -> Application:
    """Build the entry of an older class that has a module of its own."""
    address = f"{_STORE}/{module}/{module}_{_KERNELS}_notop.h5"
    return Application(constructor, module, address, digest, min_px)


def _series(
    name: str, constructor: str, module: str, address: str, digests: dict[str, str]
) -> dict[str, Application]:
    """Build the entries of a network in several sizes, by name. ``*`` in ``name``, ``constructor``
    and ``address`` stands for a size of ``digests``, in lower case in name and address."""
    return {
        name.replace("*", size.lower()): Application(
            constructor.replace("*", size), module, address.replace("*", size.lower()), digest
        )
        for size, digest in digests.items()
    }


APPLICATIONS: dict[str, Application] = {
    "vgg16": _single("VGG16", "vgg16", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": _single("VGG19", "vgg19", "253f8cb515780f3b799900260a226db6"),
    **_series("resnet*", "ResNet*", "resnet", f"{_STORE}/resnet/resnet*_{_KERNELS}_notop.h5", {
        "50": "4d473c1dd8becc155b73f8504c6f6626",
        "101": "88cf7a10940856eca736dc7b7e228a21",
        "152": "ee4c566cf9a93f14d82f913c2dc6dd0c",
    }),
    "mobilenet_v2": Application(
        "MobileNetV2", "mobilenet_v2",
        f"{_STORE}/mobilenet_v2/mobilenet_v2_{_KERNELS}_1.0_{{px}}_no_top.h5", None,
        sizes=(96, 128, 160, 192, 224),
    ),
    **_series("mobilenet_v3_*", "MobileNetV3*", "mobilenet_v3",
              f"{_STORE}/mobilenet_v3/weights_mobilenet_v3_*_224_1.0_float_no_top_v2.h5", {
        "Small": "d3e8ec802a04aa4fc771ee12a9a9b836",
        "Large": "07fb09a5933dd0c8eaafa16978110389",
    }),
    **_series("densenet*", "DenseNet*", "densenet",
              f"{_STORE}/densenet/densenet*_{_KERNELS}_notop.h5", {
        "121": "30ee3e1110167f948a6b9946edeeb738",
        "169": "b8c4d4c20dd625c148057b9ff1c1176b",
        "201": "c13680b51ded0fb44dff2d8f86ac8bb1",
    }),
    "inception_v3": _single("InceptionV3", "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63", 75),
    **_series("convnext_*", "ConvNeXt*", "convnext", f"{_STORE}/convnext/convnext_*_notop.h5", {
        "Tiny": "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        "Small": "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
        "Base": "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
        "Large": "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
    }),
    **_series("efficientnet_*", "EfficientNet*", "efficientnet",
              "https://storage.googleapis.com/keras-applications/efficientnet*_notop.h5", {
        "B0": "50bc09e76180e00e4465e1a485ddc09d",
        "B1": "74c4e6b3e1f6a1eea24c589628592432",
        "B2": "111f8e2ac8aa800a7a99e3239f7bfb39",
        "B3": "af6d107764bb5b1abb91932881670226",
        "B4": "ebc24e6d6c33eaebbd558eafbeedf1ba",
        "B5": "38879255a25d3c92d5e44e04ae6cec6f",
        "B6": "9ecce42647a20130c1f39a5d4cb75743",
        "B7": "cbcfe4450ddf6f3ad90b1b398090fe4a",
    }),
    **_series("efficientnet_v2_*", "EfficientNetV2*", "efficientnet_v2", _EFFICIENTNET_V2, {
        "S": "af0682fb74e8c54910f2d4393339c070",
        "M": "1b8dc055df72dde80d614482840fe342",
        "L": "b0b66b5c863aef5b46e8608fe1711615",
    }),
    **_series("timm:convnext_*", "ConvNeXt*", "convnext",
              f"{_STORE}/convnext/convnext_*_notop.h5", {
        "XLarge": "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
    }),
    **_series("timm:tf_efficientnetv2_*", "EfficientNetV2*", "efficientnet_v2", _EFFICIENTNET_V2, {
        "B0": "893217f2bb855e2983157299931e43ff",
        "B1": "0e80663031ca32d657f9caa404b6ec37",
        "B2": "1dfe2e7a5d45b6632553a8961ea609eb",
        "B3": "f6abf7b5849ac99a89b50dd3fd532856",
    }),
    "timm:inception_resnet_v2": _single(
        "InceptionResNetV2", "inception_resnet_v2", "d19885ff4a710c122648d3b5c3b684e4", 75
    ),
    "timm:legacy_xception": _single("Xception", "xception", "b0042744bf5b25fce3cb969f33bebb97", 71),
    "timm:mobilenetv1_100": Application(
        "MobileNet", "mobilenet", f"{_STORE}/mobilenet/mobilenet_1_0_{{px}}_tf_no_top.h5", None,
        sizes=(128, 160, 192, 224),
    ),
    "timm:nasnetalarge": Application(
        "NASNetLarge", "nasnet", f"{_STORE}/nasnet/NASNet-large-no-top.h5",
        "d81d89dc07e6e56530c4e77faddd61b5", file="nasnet_large_no_top.h5",
    ),
    **_series("timm:resnetv2_*", "ResNet*V2", "resnet_v2",
              f"{_STORE}/resnet/resnet*v2_{_KERNELS}_notop.h5", {
        "50": "fac2f116257151a9d068a22e544a4917",
        "101": "c0ed64b8031c3730f411d2eb4eea35b5",
        "152": "ed17cf2e0169df9d443503ef94b23b33",
    }),
}  # fmt: skip
"""Name of a backbone → class of ``keras.applications`` with the same architecture.

Names are torchvision's, or timm's with its prefix where torchvision lacks the network. NASNetMobile
is missing, as neither library has it.
"""


def application_of(backbone: str) -> Application | None:
    """Return the entry of ``keras.applications`` for a backbone, None if it has none.

    ``torchvision:NAME`` means NAME; ``timm:NAME`` is a different name, and one with a tag
    (``timm:NAME.TAG``) asks for weights that Keras lacks.
    """
    return APPLICATIONS.get(backbone.removeprefix("torchvision:"))


def is_keras(backend: str) -> bool:
    """Return True if a backend's native networks come from ``keras.applications``."""
    return backend.startswith("keras-")


def resize_of(mode: str, backend: str) -> Resize:
    """Return the filter that shrinks the images of a run."""
    framework = "keras" if is_keras(backend) else "torch"
    return NATIVE_RESIZE[framework] if mode == "native" else "antialias"


def why_not_native(backend: str, backbone: str, head: str, px: int) -> str | None:
    """Return why a backend has no native form of a network, None if it has one."""
    if not is_keras(backend):
        return None
    application = application_of(backbone)
    if application is None:
        return f"keras.applications has no {backbone}; use --mode matched"
    if head == "original":
        return (
            "native mode has no head 'original' in Keras: keras.applications gives its own "
            "classifier only with 1000 classes; use --head linear or dense:N, or --mode matched"
        )
    if px < application.min_px:
        return (
            f"keras.applications.{application.constructor} cannot take {px} px: it needs at least "
            f"{application.min_px}; use --px {application.min_px}"
        )
    return None
