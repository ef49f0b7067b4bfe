"""What is known of a pretrained network: constructor, stages, sources of its weights."""

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
