"""The types of the data room: requested sizes, a data set, and its packed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bench.spec.run import Fold, Similarity

Resize = Literal["antialias", "bilinear"]
"""Filter that makes an image smaller: a triangle as wide as the step between output pixels (Pillow,
torchvision's transforms), or the nearest 2 × 2 pixels only (tf.image.resize, and with it
keras.utils.image_dataset_from_directory)."""
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
"""(N,) class numbers."""
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class FileRules:
    """The user's choices for unreadable, repeated, missing or too large files of a data set."""

    skip_unreadable: bool = False
    """True to leave out images that cannot be decoded, before any are counted."""
    drop_duplicates: bool = False
    """True to leave out images that are in two classes, and training or validation images that are
    also in a later split."""
    test_from: tuple[SplitName, float] | None = None
    """Split that the test images are taken from where there are none, and the share of it; a share
    of 1 makes it the test split."""
    max_pixels: int = 178_956_970
    """Largest number of pixels of an image (Pillow's own limit), for memory's sake."""
    group_by: str | None = None
    """Regular expression for the path of a file in its folder: files in which its first group, or
    else all of it, matches the same text belong together."""
    fold: tuple[int, int] | None = None
    """Number (from 1) of the fold whose images are the test, and number of folds; None: no
    cross-validation."""

    def options(self) -> tuple[str, ...]:
        """Return the options of the command line that say these rules."""
        given = []
        if self.skip_unreadable:
            given.append("--skip-unreadable")
        if self.drop_duplicates:
            given.append("--drop-duplicates")
        if self.test_from is not None:
            split, share = self.test_from
            given.append(f"--test-from {split}" + (f":{share:.0%}" if share < 1.0 else ""))
        if self.max_pixels != FileRules.max_pixels:
            given.append(f"--max-pixels {self.max_pixels}")
        if self.group_by is not None:
            given.append(f"--group-by {self.group_by}")
        if self.fold is not None:
            given.append(f"--folds {self.fold[1]}")
        return tuple(given)


@dataclass(frozen=True)
class SplitSizes:
    """Requested number of images in each split; None: the data set's default."""

    train: int | None = None
    val: int | None = None
    test: int | None = None

    def of(self, split: SplitName) -> int | None:
        """Return the requested number of images in one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


class Source(Protocol):
    """Access to a data set's images and labels; one implementation for each kind."""

    def labels(self, split: SplitName) -> Labels:
        """Return the class index of each image, shape (N,)."""

    def groups(self, split: SplitName) -> Labels | None:
        """Return the number of each image's group, shape (N,), from 0, where images belong
        together, such as crops of one photograph; None where they do not."""

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        """Return one image as RGB, shape (px, px, 3), or raise UnreadableImageError.

        It is called from several threads at once.
        """

    def where(self, split: SplitName, index: int) -> str:
        """Return the name of the image in messages to the user, usually its file."""


@dataclass(frozen=True)
class Dataset:
    """A data set whose sizes are settled and whose images have not been decoded yet."""

    name: str
    """Name in a RunSpec, never a path: 'photos', 'folder:flowers' (the folder's own name) …"""
    content_hash: str
    """SHA-256 (hex) of everything that decides pixels and labels, except the size in pixels and
    the code that decodes and resizes."""
    classes: tuple[str, ...]
    """Class names; the position of a class is its label."""
    train_images: int
    val_images: int
    test_images: int
    source: Source = field(repr=False, compare=False)
    skipped: tuple[str, ...] = ()
    """Unreadable files that were left out at the user's request, each as 'FILE: reason'."""
    remarks: tuple[str, ...] = ()
    """Sentences on what else was left out or taken otherwise than usual."""
    options: tuple[str, ...] = ()
    """Options of the command line that decided which files were used."""
    similarity: Similarity | None = None
    """Similarity to ImageNet; None for a user's own data."""
    size_bounds: tuple[int, int] | None = None
    """Numbers of training images up to which the set is small and medium; None: ``SIZE_BOUNDS``."""
    fold: Fold | None = None
    """Part of a cross-validation whose images are the test; None without one."""
    qualifier: str = ""
    """Words that every table adds to the name, such as 'stand-in'; empty for real data."""

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.name} ({self.qualifier})" if self.qualifier else self.name


@dataclass(frozen=True)
class Split:
    """One decoded split."""

    images: Pixels
    """Shape (N, px, px, 3), RGB, memory-mapped read-only."""
    labels: Labels
    """Class indices, shape (N,), read-only."""
    groups: Labels | None = None
    """(N,) number of each image's group, of test images that belong together."""


@dataclass(frozen=True)
class Packed:
    """A decoded data set on disk."""

    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    path: Path
    """Folder of the files, which other processes can open with ``load_packed``."""
