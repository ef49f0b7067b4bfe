"""Description of a pretrained network: constructor, stages, sources of its weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.spec.base import Frozen, FrozenMapping, canonical_hash, short_hash
from bench.spec.preprocessing import Preprocessing, Triple

Reader = Literal["state_dict", "in_order", "ndf_pickle"]
"""Method that maps names in a weights file to names in the network."""
Stages = tuple[tuple[str, tuple[str, ...]], ...]
"""Pairs (stage, module paths)."""
LEAST_PX = 32
"""Smallest input size in pixels that networks are tried at, unless a network's own is smaller."""


def standardised(mean: Triple, std: Triple) -> Preprocessing:
    """Return the ``Preprocessing`` that computes ``(x / 255 - mean) / std``."""
    r, g, b = (255.0 * m for m in mean)
    sr, sg, sb = (1.0 / (255.0 * s) for s in std)
    return Preprocessing(channels="RGB", mean=(r, g, b), scale=(sr, sg, sb))


IMAGENET = standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Preprocessing of torchvision's weights (``ImageClassification`` transforms)."""
HALF = standardised((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Preprocessing of timm's own tf_efficientnet_lite weights."""


class WeightsSource(Frozen):
    """A place that may have a backbone's ImageNet weights."""

    kind: Literal["package", "download", "hub"] = Field(
        description="'package': a file inside an installed distribution; 'download': a file in the "
        "framework's cache or on the network; 'hub': a file of the Hugging Face hub, in its cache "
        "or on the network."
    )
    distribution: str = Field(description="Distribution to install, or library that publishes it.")
    location: str = Field(description="URL; for 'package': import name and path, which may hold *.")
    sha256: str = Field(
        description="SHA-256 of the file in hex; for a download its first digits, which are part "
        "of the file's name; empty if it is not known beforehand."
    )
    licence: str = Field(description="SPDX identifier of the licence.")
    preprocessing: Preprocessing = Field(description="Preprocessing that these weights expect.")
    reader: Reader = Field(default="state_dict", description="Method that maps names in the file.")


class OwnCode(Frozen):
    """The code of a user's own network, with hashes that show whether it was edited."""

    file: str = Field(description="Path of the file on this machine; part of no spec and no key.")
    function: str = Field(description="Name of the function in the file that builds the network.")
    files: FrozenMapping[str] = Field(
        description="The file and the user's modules that it imports: path relative to its folder "
        "→ SHA-256 (hex)."
    )
    state_sha256: str = Field(description="SHA-256 (hex) of the network's weights.")

    @property
    def name(self) -> str:
        """Name without folders, such as 'my_net.py:build'."""
        return f"{self.file.rpartition('/')[2]}:{self.function}"

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the code."""
        return canonical_hash(self.files)


class BackboneEntry(Frozen):
    """A network that can be named on the command line."""

    library: Literal["torchvision", "timm", "module"] = Field(
        description="Library whose constructor builds it; 'module': the user's own code."
    )
    model: str = Field(description="Name of the constructor in the library.")
    native_px: int = Field(description="Input size of the pretraining, in pixels.")
    min_px: int = Field(description="Smallest possible input size, in pixels.")
    fixed_px: bool = Field(default=False, description="True if px above native_px is impossible.")
    stages: Stages = Field(description="Pairs (stage, module paths) in order; the last is 'head'.")
    sources: tuple[WeightsSource, ...] = Field(
        description="Places of the weights, in the order in which they are tried."
    )
    preprocessing: Preprocessing = Field(
        description="Preprocessing of the network's library, for random weights and a user's file."
    )
    code: OwnCode | None = Field(default=None, description="Code of a user's own network, or null.")

    @property
    def digest(self) -> str:
        """12 hex digits of the hash of what decides which network is built and where it is frozen;
        weights and a user's code have hashes of their own."""
        return short_hash(self.model_dump(mode="json", include={"library", "model", "stages"}))
