"""The nouns of the data layer: what is asked for, what a data set is, and its packed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Similarity = Literal["similar", "not_similar"]
Resize = Literal["antialias", "bilinear"]
"""How an image is made smaller: a triangle as wide as the step between output pixels (Pillow,
torchvision's transforms), or the two by two nearest pixels alone (tf.image.resize, and with it
keras.utils.image_dataset_from_directory)."""
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class UnreadableImageError(Exception):
    """One image cannot be decoded; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class SplitSizes:
    """Numbers of images asked for; None stands for the data set's default."""

    train: int | None = None
    val: int | None = None
    test: int | None = None


class Source(Protocol):
    """What packing needs of a data set; one implementation for each kind.

    ``read`` is called from several threads at once.
    """

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class index of each image of the split, shape (N,)."""
        ...

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one image as RGB, shape (px, px, 3).

        Raises:
            UnreadableImageError: If the image cannot be decoded.
        """
        ...

    def where(self, split: SplitName, index: int) -> str:
        """Return what to call the image in a message to the user: its file, as a rule."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A data set of settled sizes whose images have not been decoded yet."""

    name: str
    """As in a RunSpec: 'photos', 'folder:flowers' (base name only) …; never a path."""
    content_hash: str
    """Hex SHA-256 of everything that decides pixels and labels, except the size in pixels."""
    classes: tuple[str, ...]
    """Class names; the position is the label."""
    train_images: int
    """Images in the training split."""
    val_images: int
    """Images in the validation split."""
    test_images: int
    """Images in the test split."""
    similarity: Similarity | None
    """To ImageNet, where it is known; None for a user's own data."""
    size_bounds: tuple[int, int] | None
    """Training images from which the set counts as medium and as large; None: the general ones."""
    label: str
    """What tables print."""
    source: Source = field(repr=False, compare=False)
    """Where the images come from; for packing only."""
    skipped: tuple[str, ...] = ()
    """Files left out because they cannot be read, each 'FILE: reason'; only on request."""


@dataclass(frozen=True)
class Split:
    """One split, decoded."""

    images: npt.NDArray[np.uint8]
    """Shape (N, px, px, 3), RGB, memory-mapped read-only."""
    labels: npt.NDArray[np.int64]
    """Class indices, shape (N,), read-only."""


@dataclass(frozen=True)
class Packed:
    """A decoded data set on disk."""

    classes: tuple[str, ...]
    """Class names; the position is the label."""
    train: Split
    """The training split."""
    val: Split
    """The validation split."""
    test: Split
    """The test split."""
    path: Path
    """The folder it lies in, from which another process can open it again."""
