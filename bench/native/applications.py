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

TORCH_ADAPTER = "backends.torch_adapter"
KERAS_ADAPTER = "backends.keras_adapter"
KERAS_PREFIX = "keras-"
"""Beginning of the ids of backends that run Keras."""
NATIVE_RESIZE: dict[str, Resize] = {
    TORCH_ADAPTER: "antialias",
    KERAS_ADAPTER: "bilinear",
}
"""Adapter → filter with which the framework's usual loaders shrink images."""
_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Application:
    """A class of ``keras.applications`` and its ImageNet weights without the classifier."""

    constructor: str
    """Name of the class."""
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

    def location(self, px: int) -> str:
        """Return the URL of the weights for an input of ``px`` pixels."""
        return self.address.format(px=px if px in self.sizes else 224)

    def file_name(self, px: int) -> str:
        """Return the name of that file in Keras's cache."""
        return self.file or Path(urllib.parse.urlparse(self.location(px)).path).name


def keras_models_folder() -> Path:
    """Return the folder where Keras keeps downloaded weights (keras.utils.get_file)."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _kernels(
    constructor: str, module: str, digest: str, min_px: int = 32, folder: str = ""
) -> Application:
    """Build the entry of an older class: its weights are in a folder, by default the module's."""
    stem = module if module.startswith("inception") else constructor.lower()
    file = f"{stem}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Application(constructor, module, f"{_STORE}/{folder or module}/{file}", digest, min_px)


APPLICATIONS: dict[str, Application] = {
    "vgg16": _kernels("VGG16", "vgg16", "6d6bbae143d832006294945121d1f1fc"),
    "vgg19": _kernels("VGG19", "vgg19", "253f8cb515780f3b799900260a226db6"),
    "resnet50": _kernels("ResNet50", "resnet", "4d473c1dd8becc155b73f8504c6f6626"),
    "resnet101": _kernels("ResNet101", "resnet", "88cf7a10940856eca736dc7b7e228a21"),
    "resnet152": _kernels("ResNet152", "resnet", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    "mobilenet_v2": Application(
        "MobileNetV2",
        "mobilenet_v2",
        f"{_STORE}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{{px}}"
        "_no_top.h5",
        None,
        sizes=(96, 128, 160, 192, 224),
    ),
    "mobilenet_v3_small": Application(
        "MobileNetV3Small",
        "mobilenet_v3",
        f"{_STORE}/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "mobilenet_v3_large": Application(
        "MobileNetV3Large",
        "mobilenet_v3",
        f"{_STORE}/mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
    ),
    "densenet121": _kernels("DenseNet121", "densenet", "30ee3e1110167f948a6b9946edeeb738"),
    "densenet169": _kernels("DenseNet169", "densenet", "b8c4d4c20dd625c148057b9ff1c1176b"),
    "densenet201": _kernels("DenseNet201", "densenet", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    "inception_v3": _kernels("InceptionV3", "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63", 75),
    **{
        f"convnext_{size.lower()}": Application(
            f"ConvNeXt{size}",
            "convnext",
            f"{_STORE}/convnext/convnext_{size.lower()}_notop.h5",
            digest,
        )
        for size, digest in (
            ("Tiny", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
            ("Small", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
            ("Base", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
            ("Large", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
        )
    },
    **{
        f"efficientnet_b{number}": Application(
            f"EfficientNetB{number}",
            "efficientnet",
            f"https://storage.googleapis.com/keras-applications/efficientnetb{number}_notop.h5",
            digest,
        )
        for number, digest in enumerate(
            (
                "50bc09e76180e00e4465e1a485ddc09d",
                "74c4e6b3e1f6a1eea24c589628592432",
                "111f8e2ac8aa800a7a99e3239f7bfb39",
                "af6d107764bb5b1abb91932881670226",
                "ebc24e6d6c33eaebbd558eafbeedf1ba",
                "38879255a25d3c92d5e44e04ae6cec6f",
                "9ecce42647a20130c1f39a5d4cb75743",
                "cbcfe4450ddf6f3ad90b1b398090fe4a",
            )
        )
    },
    **{
        f"efficientnet_v2_{size}": Application(
            f"EfficientNetV2{size.upper()}",
            "efficientnet_v2",
            f"{_STORE}/efficientnet_v2/efficientnetv2-{size}_notop.h5",
            digest,
        )
        for size, digest in (
            ("s", "af0682fb74e8c54910f2d4393339c070"),
            ("m", "1b8dc055df72dde80d614482840fe342"),
            ("l", "b0b66b5c863aef5b46e8608fe1711615"),
        )
    },
    "timm:convnext_xlarge": Application(
        "ConvNeXtXLarge",
        "convnext",
        f"{_STORE}/convnext/convnext_xlarge_notop.h5",
        "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
    ),
    **{
        f"timm:tf_efficientnetv2_b{number}": Application(
            f"EfficientNetV2B{number}",
            "efficientnet_v2",
            f"{_STORE}/efficientnet_v2/efficientnetv2-b{number}_notop.h5",
            digest,
        )
        for number, digest in enumerate(
            (
                "893217f2bb855e2983157299931e43ff",
                "0e80663031ca32d657f9caa404b6ec37",
                "1dfe2e7a5d45b6632553a8961ea609eb",
                "f6abf7b5849ac99a89b50dd3fd532856",
            )
        )
    },
    "timm:inception_resnet_v2": _kernels(
        "InceptionResNetV2", "inception_resnet_v2", "d19885ff4a710c122648d3b5c3b684e4", 75
    ),
    "timm:legacy_xception": _kernels(
        "Xception", "xception", "b0042744bf5b25fce3cb969f33bebb97", 71
    ),
    "timm:mobilenetv1_100": Application(
        "MobileNet",
        "mobilenet",
        f"{_STORE}/mobilenet/mobilenet_1_0_{{px}}_tf_no_top.h5",
        None,
        sizes=(128, 160, 192, 224),
    ),
    "timm:nasnetalarge": Application(
        "NASNetLarge",
        "nasnet",
        f"{_STORE}/nasnet/NASNet-large-no-top.h5",
        "d81d89dc07e6e56530c4e77faddd61b5",
        file="nasnet_large_no_top.h5",
    ),
    **{
        f"timm:resnetv2_{depth}": _kernels(f"ResNet{depth}V2", "resnet_v2", digest, folder="resnet")
        for depth, digest in (
            (50, "fac2f116257151a9d068a22e544a4917"),
            (101, "c0ed64b8031c3730f411d2eb4eea35b5"),
            (152, "ed17cf2e0169df9d443503ef94b23b33"),
        )
    },
}
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
    return backend.startswith(KERAS_PREFIX)


def resize_of(mode: str, backend: str) -> Resize:
    """Return the filter that shrinks the images of a run."""
    adapter = KERAS_ADAPTER if is_keras(backend) else TORCH_ADAPTER
    return NATIVE_RESIZE[adapter] if mode == "native" else "antialias"


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
