"""The cells of the record: data sets, their subsets and their transformed variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.advise.images import stratified_order
from bench.advise.signs.resemblance import COPY, reduced_vectors
from bench.data import Dataset, FileRules, SplitSizes, open_dataset, pack
from bench.data.folder import HELD_OUT
from bench.data.image_files import FileSource
from bench.data.model import SPLITS, Labels, Pixels, SplitName
from bench.data.resplit import ImagePool, Indices, PoolSource, resplit
from tools.advice_record.made import GROUP_BY, figures, letters

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
    dataset: str = ""
    """Name for ``open_dataset``; empty: a folder that is made."""
    made: Callable[[Path], Path] | None = None
    """Makes the folder in a cache and returns its path."""
    has_copies: bool = False
    """True to leave out pictures that are there before at another size."""
    is_grey: bool = False
    """True if its images have no colour, so that its grey variant would be the plain cell again."""

    def open(self, sizes: SplitSizes, cache: Path) -> Dataset:
        """Open its images; raise Unavailable if a package is missing."""
        if self.made is None:
            return open_dataset(self.dataset, sizes, cache_dir=cache)
        rules = FileRules(group_by=GROUP_BY, drop_duplicates=True)
        return open_dataset(f"folder:{self.made(cache)}", sizes, cache_dir=cache, rules=rules)


FAMILIES = (
    Family("photographs", "photos"),
    Family("digits", "mnist5k", is_grey=True),
    Family("garments", "debian:fashion-mnist", is_grey=True),
    Family("drawings", "debian:openclipart", has_copies=True),
    Family("pages", "rvl_cdip", is_grey=True),
    # Some fonts differ in name alone.
    Family("letters", made=letters, has_copies=True, is_grey=True),
    Family("figures", made=figures),
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
GREY = Variant("grey", _grey)
VARIANTS = (
    GREY,
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
            if variant is not GREY or not family.is_grey:
                yield Cell(family, variant, SIZES[1])


def open_cell(cell: Cell, cache: Path) -> Dataset:
    """Return the data set of a cell, decoded at ``PX``: training and validation images as a user
    would have them, and test images with the right labels."""
    base = cell.family.open(_available(cell.family, cache), cache)
    packed = pack(base, PX, cache)
    parts = (packed.train, packed.val, packed.test)
    labels = np.concatenate([part.labels for part in parts])
    plain = np.concatenate([part.images for part in parts])
    images = cell.variant.pixels(plain)
    classes = base.classes
    if cell.variant.merges:
        labels, classes = labels // 2, _merged(classes)
    ends = np.cumsum([len(part.labels) for part in parts])
    random = np.random.default_rng(0)
    seen = ends[1]
    is_wrong = random.uniform(size=seen) < cell.variant.noise
    shifted = (labels[:seen] + random.integers(1, len(classes), seen)) % len(classes)
    labels[:seen] = np.where(is_wrong, shifted, labels[:seen])
    kept = np.arange(len(labels))
    if cell.family.has_copies:
        kept = np.flatnonzero(~is_copy(plain))
    train, val, test = np.split(kept, np.searchsorted(kept, ends[:2]))
    chosen: dict[SplitName, Indices] = {
        "train": train[: cell.train_images], "val": val, "test": test
    }  # fmt: skip
    names = tuple(f"{cell.name} {number}" for number in range(len(labels)))
    left_out = f" {len(labels) - len(kept)} left out" if len(kept) < len(labels) else ""
    named = replace(
        base,
        name=f"folder:{cell.name}",
        content_hash=f"{base.content_hash} {cell.variant.name} {cell.variant.noise}{left_out}",
        classes=classes,
        qualifier="",
        options=(),
    )
    return resplit(named, ImagePool(images, labels, _groups(base), names), chosen)


def without_split(dataset: Dataset) -> Dataset:
    """Return a cell as a folder without a split would be opened: with so many validation images
    that they would be a part of it."""
    source = dataset.source
    assert isinstance(source, PoolSource)
    val = source.chosen["val"][stratified_order(source.labels("val"))]
    count = round(dataset.train_images * HELD_OUT / (1 - 2 * HELD_OUT))
    return resplit(dataset, source.pool, {**source.chosen, "val": val[:count]})


def is_copy(images: Pixels) -> npt.NDArray[np.bool_]:
    """Return (N,) True for each image of which a copy, of any size, comes earlier."""
    reduced = reduced_vectors(images)
    alike = np.tril(reduced @ reduced.T, k=-1)
    return np.asarray((alike > COPY).any(axis=1))


def _groups(base: Dataset) -> Indices | None:
    """Return the number of what each image belongs to (N,), of all splits; None where images stand
    alone."""
    if not isinstance(base.source, FileSource):
        return None
    units = [image.unit for split in SPLITS for image in base.source.images[split]]
    return np.unique(units, return_inverse=True)[1].astype(np.int64)


def _available(family: Family, cache: Path) -> SplitSizes:
    """Return the numbers of images of a cell, or all images of a split that has fewer."""
    wanted = SplitSizes(train=max(SIZES), val=VAL_IMAGES, test=TEST_IMAGES)
    if family.dataset == "photos":  # any number can be drawn
        return wanted
    whole = family.open(SplitSizes(), cache)
    return SplitSizes(
        train=min(max(SIZES), whole.train_images), val=min(VAL_IMAGES, whole.val_images),
        test=min(TEST_IMAGES, whole.test_images),
    )  # fmt: skip


def _merged(classes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" or ".join(classes[i : i + 2]) for i in range(0, len(classes), 2))
