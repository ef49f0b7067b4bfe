"""The cells of the record: data sets, their subsets and their transformed variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.data import Dataset, SplitSizes, open_dataset, pack
from bench.data.model import Labels, Pixels, SplitName
from bench.data.resplit import ImagePool, Indices, resplit

PX = 64
VAL_IMAGES, TEST_IMAGES = 100, 500
"""Images of a cell besides those for training: a user's own for choices, and the oracle's test."""
SIZES = (40, 100, 240)
"""Numbers of training images."""
NOISE = 0.3
"""Share of wrong labels in the noisy variants, of training and validation images alone."""
COARSE_PX = 12

Transform = Callable[[Pixels, Labels, np.random.Generator], tuple[Pixels, Labels]]
"""Changes images (N, px, px, 3) and labels (N,) of training and validation."""


@dataclass(frozen=True)
class Family:
    """Cells of one source of images, which are left out together where something is calibrated."""

    name: str
    dataset: str


FAMILIES = (
    Family("photographs", "photos"),
    Family("digits", "mnist5k"),
    Family("garments", "debian:fashion-mnist"),
    Family("drawings", "debian:openclipart"),
    Family("pages", "rvl_cdip"),
)


def _grey(images: Pixels) -> Pixels:
    grey = images.mean(axis=3, keepdims=True).astype(np.uint8)
    return np.repeat(grey, 3, axis=3)


def _inverted(images: Pixels) -> Pixels:
    inverted: Pixels = 255 - images
    return inverted


def _coarse(images: Pixels) -> Pixels:
    """Return images as if they had ``COARSE_PX`` pixels a side."""
    px = images.shape[1]
    chosen = (np.arange(px) * COARSE_PX // px * px + px // 2) // COARSE_PX
    return images[:, chosen][:, :, chosen]


@dataclass(frozen=True)
class Variant:
    """A change of all images, of the labels or of the classes of a family."""

    name: str
    pixels: Callable[[Pixels], Pixels] = lambda images: images
    noise: float = 0.0
    """Share of wrong labels for training and validation."""
    merges: bool = False
    """True to merge neighbouring classes two by two."""


PLAIN = Variant("plain")
VARIANTS = (
    Variant("grey", _grey),
    Variant("inverted", _inverted),
    Variant("coarse", _coarse),
    Variant("noisy", noise=NOISE),
    Variant("merged", merges=True),
)
"""Variants besides the plain one, at the middle size."""


@dataclass(frozen=True)
class Cell:
    """A data set of the record."""

    family: Family
    variant: Variant
    train_images: int

    @property
    def name(self) -> str:
        """Name of the folder of its results."""
        return f"{self.family.name}-{self.variant.name}-{self.train_images}"


def cells() -> Iterator[Cell]:
    """Yield all cells: each family at each size, and its variants at the middle size; families take
    turns, so that those measured so far are always of all of them."""
    for size in SIZES:
        for family in FAMILIES:
            yield Cell(family, PLAIN, size)
    for variant in VARIANTS:
        for family in FAMILIES:
            yield Cell(family, variant, SIZES[1])


def open_cell(cell: Cell, cache: Path) -> Dataset:
    """Return the data set of a cell, decoded at ``PX``: training and validation images as a user
    would have them, and test images with the right labels."""
    sizes = SplitSizes(train=max(SIZES), val=VAL_IMAGES, test=TEST_IMAGES)
    base = open_dataset(cell.family.dataset, _available(cell, sizes, cache), cache_dir=cache)
    packed = pack(base, PX, cache)
    parts = (packed.train, packed.val, packed.test)
    labels = np.concatenate([part.labels for part in parts])
    images = cell.variant.pixels(np.concatenate([part.images for part in parts]))
    classes = base.classes
    if cell.variant.merges:
        labels, classes = labels // 2, _merged(classes)
    counts = [len(part.labels) for part in parts]
    random = np.random.default_rng(0)
    seen = counts[0] + counts[1]
    is_wrong = random.uniform(size=seen) < cell.variant.noise
    shifted = (labels[:seen] + random.integers(1, len(classes), seen)) % len(classes)
    labels[:seen] = np.where(is_wrong, shifted, labels[:seen])
    names = tuple(f"{cell.name} {number}" for number in range(len(labels)))
    pool = ImagePool(images, labels, None, names)
    chosen: dict[SplitName, Indices] = {
        "train": np.arange(min(cell.train_images, counts[0])),
        "val": np.arange(counts[0], seen),
        "test": np.arange(seen, len(labels)),
    }
    named = replace(
        base,
        name=f"folder:{cell.name}",
        content_hash=f"{base.content_hash} {cell.variant.name} {cell.variant.noise}",
        classes=classes,
        qualifier="",
    )
    return resplit(named, pool, chosen)


def _available(cell: Cell, sizes: SplitSizes, cache: Path) -> SplitSizes:
    """Return the sizes, or all images of a split that has fewer."""
    whole = open_dataset(cell.family.dataset, SplitSizes(), cache_dir=cache)
    if cell.family.dataset == "photos":  # any number can be drawn
        return sizes
    return SplitSizes(
        train=min(sizes.train or 0, whole.train_images),
        val=min(sizes.val or 0, whole.val_images),
        test=min(sizes.test or 0, whole.test_images),
    )


def _merged(classes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" or ".join(classes[i : i + 2]) for i in range(0, len(classes), 2))
