"""The types of the data room: requested sizes, a data set, and its packed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bench.spec.run import Similarity

Resize = Literal["antialias", "bilinear"]
"""Filter that makes an image smaller: a triangle as wide as the step between output pixels (Pillow,
torchvision's transforms), or the nearest 2 × 2 pixels only (tf.image.resize, and with it
keras.utils.image_dataset_from_directory)."""
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class UnreadableImageError(Exception):
    """An image cannot be decoded; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class SplitSizes:
    """Requested number of images in each split; None: the data set's default."""

    train: int | None = None
    val: int | None = None
    test: int | None = None


class Source(Protocol):
    """Access to a data set's images and labels; one implementation for each kind.

    ``read`` is called from several threads at once.
    """

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class index of each image, shape (N,)."""
        ...

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one image as RGB, shape (px, px, 3).

        Raises:
            UnreadableImageError: The image cannot be decoded.
        """
        ...

    def where(self, split: SplitName, index: int) -> str:
        """Return the name of the image in messages to the user, usually its file."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A data set whose sizes are settled and whose images have not been decoded yet."""

    name: str
    """Name in a RunSpec, never a path: 'photos', 'folder:flowers' (the folder's own name) …"""
    content_hash: str
    """SHA-256 (hex) of everything that decides pixels and labels, except the size in pixels."""
    classes: tuple[str, ...]
    """Class names; the position of a class is its label."""
    train_images: int
    """Images in the training split."""
    val_images: int
    """Images in the validation split."""
    test_images: int
    """Images in the test split."""
    similarity: Similarity | None
    """Similarity to ImageNet; None for a user's own data."""
    size_bounds: tuple[int, int] | None
    """Numbers of training images up to which the set is small and medium; None: ``SIZE_BOUNDS``."""
    label: str
    """Name in tables."""
    source: Source = field(repr=False, compare=False)
    """Access to the images, for packing."""
    skipped: tuple[str, ...] = ()
    """Unreadable files that were left out at the user's request, each as 'FILE: reason'."""


@dataclass(frozen=True)
class Split:
    """One decoded split."""

    images: npt.NDArray[np.uint8]
    """Shape (N, px, px, 3), RGB, memory-mapped read-only."""
    labels: npt.NDArray[np.int64]
    """Class indices, shape (N,), read-only."""


@dataclass(frozen=True)
class Packed:
    """A decoded data set on disk."""

    classes: tuple[str, ...]
    """Class names; the position of a class is its label."""
    train: Split
    """Training split."""
    val: Split
    """Validation split."""
    test: Split
    """Test split."""
    path: Path
    """Folder of the files, which other processes can open with ``load_packed``."""
