"""Data sets whose splits are made anew from the images of a packed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.data.model import SPLITS, Dataset, Labels, Pixels, Resize, SplitName
from bench.errors import UserError
from bench.storage.checksums import sha256_of_texts

Indices = npt.NDArray[np.int64]
"""(N,) positions among all images of a pool."""


@dataclass(frozen=True)
class ImagePool:
    """Decoded images of several splits, one after the other."""

    images: Pixels
    """(N, px, px, 3)."""
    labels: Labels
    """(N,)."""
    groups: Labels | None
    """(N,) number of each image's group; None where images do not belong together."""
    names: tuple[str, ...]
    """Name of each image in messages, usually its file."""


@dataclass(frozen=True)
class PoolSource:
    """Access to chosen images of a pool (``bench.data.model.Source``)."""

    pool: ImagePool
    chosen: Mapping[SplitName, Indices]

    def labels(self, split: SplitName) -> Labels:
        return self.pool.labels[self.chosen[split]]

    def groups(self, split: SplitName) -> Labels | None:
        groups = self.pool.groups
        return None if groups is None else groups[self.chosen[split]]

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        """Return one image; raise UserError if it was decoded at another size."""
        image: Pixels = self.pool.images[int(self.chosen[split][index])]
        if len(image) != px:
            raise UserError(f"Images of {len(image)} px were decoded; {px} px were requested.")
        return image

    def where(self, split: SplitName, index: int) -> str:
        return self.pool.names[int(self.chosen[split][index])]


def resplit(dataset: Dataset, pool: ImagePool, chosen: Mapping[SplitName, Indices]) -> Dataset:
    """Return a data set with the name and classes of another one, and these images of ``pool`` in
    its splits. Its content hash says which."""
    texts = [f"resplit of {dataset.content_hash} at {pool.images.shape[1]} px"]
    for split in SPLITS:
        texts += [split, *map(str, chosen[split].tolist())]
    train, val, test = (len(chosen[split]) for split in SPLITS)
    return replace(
        dataset, content_hash=sha256_of_texts(texts), train_images=train, val_images=val,
        test_images=test, source=PoolSource(pool, dict(chosen)), fold=None,
    )  # fmt: skip
