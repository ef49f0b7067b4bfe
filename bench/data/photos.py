"""The data set ``photos``: crops of photographs inside the scikit-image and scikit-learn wheels.

The class is the photograph. Each photograph is cut into cells, each cell belongs to one split, and
each crop lies inside one cell: no pixel is in two splits, and every split has crops from all parts
of the photograph. Any number of crops can be drawn. Flat crops and repeated crops are skipped,
because a plain black crop does not show its class, and equal crops in the test split would count
one answer several times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from random import Random
from threading import Lock

import numpy as np
from PIL import Image, ImageStat

from bench.data.decode import Box, load_rgb, squashed
from bench.data.model import SPLITS, Dataset, Labels, Pixels, Resize, SplitName, SplitSizes
from bench.data.package_files import package_file
from bench.errors import UserError
from bench.storage.checksums import sha256_of_file, sha256_of_texts

PHOTOS_REVISION = 2
"""Part of the content hash, by which results of different versions of the code are compared:
increase it when any crop changes."""
PHOTOS_SIZES: dict[SplitName, int] = {"train": 1980, "val": 180, "test": 1080}
"""Images in each split, if no other number is requested."""

_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
_FILES = {
    "astronaut": "skimage/data/astronaut.png",
    "chelsea": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png",
    "rocket": "skimage/data/rocket.jpg",
    "brick": "skimage/data/brick.png",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "coins": "skimage/data/coins.png",
    "horse": "skimage/data/horse.png",
    "hubble": "skimage/data/hubble_deep_field.jpg",
    "ihc": "skimage/data/ihc.png",
    "moon": "skimage/data/moon.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "retina": "skimage/data/retina.jpg",
    "camera": "skimage/data/camera.png",
    "page": "skimage/data/page.png",
    "china": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
}
"""Class → package and file in it, in the order of the labels."""
PHOTO_CLASSES = tuple(_FILES)

_PATTERN = ("TETE", "ETVT", "TETE", "VTET")
"""Split of each cell, repeated over the grid: 1/2 train, 3/8 test, 1/8 validation. The cells above,
below, left and right of a cell belong to other splits."""
_LETTER: dict[SplitName, str] = {"train": "T", "val": "V", "test": "E"}
_CELLS = 4
"""Cells along the shorter side of a photograph."""
_SMALLEST, _LARGEST = 0.3, 0.7
"""Side of a crop as a fraction of the shorter side of its cell."""
_FLAT = 0.35
"""Standard deviation of the grey levels (0 to 255) below which a crop is flat. In the default
splits, plain black crops (horse) have 0.00 and black ones with JPEG noise (retina) 0.2; next comes
blank paper with 0.5. No JPEG decoder differs enough to move a crop across this limit."""
_MOST_REJECTED = 1000
"""Rejected draws in a row after which the photograph is taken to have no other crops."""


def photo_paths() -> tuple[Path, ...]:
    """Return the files of the photographs in the order of ``PHOTO_CLASSES``; raise Unavailable if
    scikit-image or scikit-learn is not installed or lacks one of them."""
    parts = [file.partition("/") for file in _FILES.values()]
    return tuple(package_file(name, _DISTRIBUTIONS[name], path) for name, _, path in parts)


def open_photos(sizes: SplitSizes) -> Dataset:
    """Open the data set without decoding it, see ``open_dataset``."""
    paths = photo_paths()
    counts = {split: sizes.of(split) or PHOTOS_SIZES[split] for split in SPLITS}
    geometry = (PHOTOS_REVISION, _PATTERN, _CELLS, _SMALLEST, _LARGEST, _FLAT)
    described = [f"photos {geometry}", *map(str, counts.values()), *map(sha256_of_file, paths)]
    return Dataset(
        name="photos",
        content_hash=sha256_of_texts(described),
        classes=PHOTO_CLASSES,
        train_images=counts["train"],
        val_images=counts["val"],
        test_images=counts["test"],
        source=_Photos(paths, counts),
    )


def cells(width: int, height: int, split: SplitName) -> list[Box]:
    """Return the cells of a split in a photograph of ``width`` × ``height`` pixels; cells of
    different splits share no pixel."""
    columns = max(_CELLS, round(_CELLS * width / height))
    rows = max(_CELLS, round(_CELLS * height / width))
    x = [column * width // columns for column in range(columns + 1)]
    y = [row * height // rows for row in range(rows + 1)]
    return [
        (x[column], y[row], x[column + 1], y[row + 1])
        for row in range(rows)
        for column in range(columns)
        if _PATTERN[row % 4][column % 4] == _LETTER[split]
    ]


def crop_box(width: int, height: int, label: int, split: SplitName, number: int) -> Box:
    """Draw square ``number`` of a class and split, inside one cell of a photograph; the same
    arguments always give the same square."""
    # Random.random() of a string seed is the same in every release of Python.
    draw = Random(f"photos 1 {PHOTO_CLASSES[label]} {split} {number}").random
    choices = cells(width, height, split)
    left, top, right, bottom = choices[int(draw() * len(choices))]
    longest = min(right - left, bottom - top)
    side = max(1, int(longest * (_SMALLEST + (_LARGEST - _SMALLEST) * draw())))
    x = left + int((right - left - side + 1) * draw())
    y = top + int((bottom - top - side + 1) * draw())
    return x, y, x + side, y + side


def distinct_crops(photograph: Image.Image, label: int, split: SplitName) -> Iterator[Box]:
    """Yield the boxes of a class and split from ``crop_box``, without flat and repeated crops."""
    seen: set[bytes] = set()
    rejected = 0
    for number in count():
        box = crop_box(photograph.width, photograph.height, label, split, number)
        crop = photograph.crop(box)
        pixels = sha256(crop.tobytes()).digest()
        if ImageStat.Stat(crop.convert("L")).stddev[0] < _FLAT or pixels in seen:
            rejected += 1
            if rejected == _MOST_REJECTED:
                return
            continue
        seen.add(pixels)
        rejected = 0
        yield box


@dataclass(frozen=True)
class _Photos:
    """Crops of the photographs: image ``i`` of a split is crop ``i // 18`` of class ``i % 18``."""

    paths: tuple[Path, ...]
    counts: dict[SplitName, int]
    _boxes: dict[tuple[SplitName, int], list[Box]] = field(default_factory=dict)
    """(split, class index) → boxes of its crops, determined when the first of them is read."""
    _lock: Lock = field(default_factory=Lock)

    @cached_property
    def _photographs(self) -> tuple[Image.Image, ...]:
        # About 15 MB of pixels, decoded once and shared by the threads.
        return tuple(load_rgb(path) for path in self.paths)

    def labels(self, split: SplitName) -> Labels:
        return np.arange(self.counts[split], dtype=np.int64) % len(PHOTO_CLASSES)

    def groups(self, split: SplitName) -> Labels:
        """Return the photograph of each crop, which is its class."""
        return self.labels(split)

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        """Return one crop; raise UserError if there are not so many different ones."""
        number, label = divmod(index, len(PHOTO_CLASSES))
        with self._lock:
            if (split, label) not in self._boxes:
                wanted = -(-(self.counts[split] - label) // len(PHOTO_CLASSES))
                crops = distinct_crops(self._photographs[label], label, split)
                self._boxes[split, label] = list(islice(crops, wanted))
            boxes = self._boxes[split, label]
        if number >= len(boxes):
            raise UserError(
                f"photos: {PHOTO_CLASSES[label]} has only {len(boxes)} different {split} crops.",
                f"Ask for {len(boxes) * len(PHOTO_CLASSES):,} {split} images or fewer.",
            )
        # Cropped first, because a resize with a box reads pixels beyond the border of the box.
        return squashed(self._photographs[label].crop(boxes[number]), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        return str(self.paths[index % len(PHOTO_CLASSES)])
