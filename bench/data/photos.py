"""``photos``: crops of the photographs inside the scikit-image and scikit-learn wheels.

The class is the photograph. Each photograph is cut into cells, each cell belongs to one split,
and each crop lies inside one cell: no pixel is in two splits, and every split sees all parts of
the photograph. Any number of crops can be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.data.decode import load_rgb, squashed
from bench.data.files import hash_file, hash_parts, package_file
from bench.data.model import SPLITS, Dataset, Resize, SplitName, SplitSizes
from bench.data.sampling import asked_for, check_sizes

# Raise it when any crop changes: it is part of the content hash.
PHOTOS_REVISION = 1
PHOTOS_DEFAULTS = SplitSizes(train=1980, val=180, test=1080)

_SKIMAGE = ("skimage", "scikit-image")
_SKLEARN = ("sklearn", "scikit-learn")

# Class name: (import name, distribution), file in the package. The order is the labels'.
_FILES: dict[str, tuple[tuple[str, str], str]] = {
    "astronaut": (_SKIMAGE, "data/astronaut.png"),
    "chelsea": (_SKIMAGE, "data/chelsea.png"),
    "coffee": (_SKIMAGE, "data/coffee.png"),
    "rocket": (_SKIMAGE, "data/rocket.jpg"),
    "brick": (_SKIMAGE, "data/brick.png"),
    "grass": (_SKIMAGE, "data/grass.png"),
    "gravel": (_SKIMAGE, "data/gravel.png"),
    "coins": (_SKIMAGE, "data/coins.png"),
    "horse": (_SKIMAGE, "data/horse.png"),
    "hubble": (_SKIMAGE, "data/hubble_deep_field.jpg"),
    "ihc": (_SKIMAGE, "data/ihc.png"),
    "moon": (_SKIMAGE, "data/moon.png"),
    "motorcycle": (_SKIMAGE, "data/motorcycle_left.png"),
    "retina": (_SKIMAGE, "data/retina.jpg"),
    "camera": (_SKIMAGE, "data/camera.png"),
    "page": (_SKIMAGE, "data/page.png"),
    "china": (_SKLEARN, "datasets/images/china.jpg"),
    "flower": (_SKLEARN, "datasets/images/flower.jpg"),
}
PHOTO_CLASSES = tuple(_FILES)

# Which split a cell belongs to, repeated over the grid: half train, 3/8 test, 1/8 val, and the
# neighbours of each cell above, below, left and right are of another kind.
_PATTERN = ("TETE", "ETVT", "TETE", "VTET")
_LETTER: dict[SplitName, str] = {"train": "T", "val": "V", "test": "E"}
# Cells along the shorter side of a photograph.
_CELLS = 4
# Side of a crop, as a fraction of the shorter side of its cell.
_SMALLEST, _LARGEST = 0.3, 0.7

Box = tuple[int, int, int, int]


def photo_paths() -> tuple[Path, ...]:
    """Return the files of the photographs, in the order of ``PHOTO_CLASSES``.

    Raises:
        Unavailable: If scikit-image or scikit-learn is not installed or lacks one of them.
    """
    return tuple(package_file(*package, relative) for package, relative in _FILES.values())


def open_photos(sizes: SplitSizes) -> Dataset:
    """Open the data set ``photos``; nothing is decoded.

    Raises:
        Unavailable: If a package is missing.
        UserError: If a size is below one.
    """
    check_sizes(sizes)
    paths = photo_paths()
    counts = {
        split: asked_for(sizes, split) or asked_for(PHOTOS_DEFAULTS, split) or 0 for split in SPLITS
    }
    geometry = (PHOTOS_REVISION, _PATTERN, _CELLS, _SMALLEST, _LARGEST)
    described = [f"photos {geometry}", *(str(counts[split]) for split in SPLITS)]
    return Dataset(
        name="photos",
        content_hash=hash_parts([*described, *map(hash_file, paths)]),
        classes=PHOTO_CLASSES,
        train_images=counts["train"],
        val_images=counts["val"],
        test_images=counts["test"],
        similarity="similar",
        size_bounds=(300, 1000),
        label="photos (stand-in)",
        source=_Photos(paths, counts),
    )


def cells(width: int, height: int, split: SplitName) -> list[Box]:
    """Return the cells of a photograph that belong to a split.

    Args:
        width: Of the photograph, in pixels.
        height: Of the photograph, in pixels.
        split: Cells of different splits share no pixel.

    Returns:
        Boxes (left, top, right, bottom), right and bottom excluded.
    """
    columns = max(_CELLS, round(_CELLS * width / height))
    rows = max(_CELLS, round(_CELLS * height / width))
    return [
        (
            column * width // columns,
            row * height // rows,
            (column + 1) * width // columns,
            (row + 1) * height // rows,
        )
        for row in range(rows)
        for column in range(columns)
        if _PATTERN[row % 4][column % 4] == _LETTER[split]
    ]


def crop_box(width: int, height: int, label: int, split: SplitName, number: int) -> Box:
    """Return where a crop lies: a function of the arguments and nothing else.

    Args:
        width: Of the photograph, in pixels.
        height: Of the photograph, in pixels.
        label: Class index.
        split: The box lies inside one cell of this split.
        number: Of the crop, among those of its class and split.

    Returns:
        (left, top, right, bottom) of a square, right and bottom excluded.
    """
    # Random.random() of a string seed is the same in every release of Python.
    draw = Random(f"photos {PHOTOS_REVISION} {PHOTO_CLASSES[label]} {split} {number}").random
    mine = cells(width, height, split)
    left, top, right, bottom = mine[int(draw() * len(mine))]
    longest = min(right - left, bottom - top)
    side = max(1, int(longest * (_SMALLEST + (_LARGEST - _SMALLEST) * draw())))
    x = left + int((right - left - side + 1) * draw())
    y = top + int((bottom - top - side + 1) * draw())
    return x, y, x + side, y + side


@dataclass(frozen=True)
class _Photos:
    """The source: image ``i`` of a split is crop ``i // 18`` of class ``i % 18``."""

    paths: tuple[Path, ...]
    counts: dict[SplitName, int]

    @cached_property
    def _photographs(self) -> tuple[Image.Image, ...]:
        # About 15 MB of pixels, decoded once and shared by the threads.
        return tuple(load_rgb(path) for path in self.paths)

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class indices, shape (N,)."""
        return np.arange(self.counts[split], dtype=np.int64) % len(PHOTO_CLASSES)

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one crop as RGB, shape (px, px, 3)."""
        number, label = divmod(index, len(PHOTO_CLASSES))
        photograph = self._photographs[label]
        box = crop_box(photograph.width, photograph.height, label, split, number)
        # Cropped before it is resized: a resize with a box looks across the border of the box.
        return squashed(photograph.crop(box), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        """Return the photograph's file."""
        return str(self.paths[index % len(PHOTO_CLASSES)])
