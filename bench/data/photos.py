"""``photos``: crops of the photographs inside the scikit-image and scikit-learn wheels.

The class is the photograph. Each photograph is cut into cells, each cell belongs to one split,
and each crop lies inside one cell: no pixel is in two splits, and every split sees all parts of
the photograph. Any number of crops can be drawn. Those in which nothing is to be seen, and those
that are there already, are left out and others drawn: a crop of plain black tells no class, and
29 equal ones in the test split are one question that counts 29 times.
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
import numpy.typing as npt
from PIL import Image, ImageStat

from bench.data.decode import load_rgb, squashed
from bench.data.model import SPLITS, Dataset, Resize, SplitName, SplitSizes
from bench.data.package_files import hash_file, hash_parts, package_file
from bench.data.sampling import asked_for, check_sizes
from bench.errors import UserError

# Raise it when any crop changes: it is part of the content hash.
PHOTOS_REVISION = 2
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
# Standard deviation of the grey levels, of 255, below which a crop shows nothing. The default
# splits have plain black ones at 0.00 (of the horse), black ones with the noise of JPEG at 0.2 (of
# the retina), and then none before blank paper at 0.5: no decoder of JPEG carries one across.
_FLAT = 0.35
# So many in a row that are flat or there already: the photograph has no others.
_PATIENCE = 1000

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
    geometry = (PHOTOS_REVISION, _PATTERN, _CELLS, _SMALLEST, _LARGEST, _FLAT)
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
    """Return where a crop is drawn: a function of the arguments and nothing else.

    Args:
        width: Of the photograph, in pixels.
        height: Of the photograph, in pixels.
        label: Class index.
        split: The box lies inside one cell of this split.
        number: Of the draw, among those of its class and split.

    Returns:
        (left, top, right, bottom) of a square, right and bottom excluded.
    """
    # Random.random() of a string seed is the same in every release of Python.
    draw = Random(f"photos 1 {PHOTO_CLASSES[label]} {split} {number}").random
    mine = cells(width, height, split)
    left, top, right, bottom = mine[int(draw() * len(mine))]
    longest = min(right - left, bottom - top)
    side = max(1, int(longest * (_SMALLEST + (_LARGEST - _SMALLEST) * draw())))
    x = left + int((right - left - side + 1) * draw())
    y = top + int((bottom - top - side + 1) * draw())
    return x, y, x + side, y + side


def distinct_crops(photograph: Image.Image, label: int, split: SplitName) -> Iterator[Box]:
    """Yield where the crops of a class and split lie: what ``crop_box`` draws, without those that
    show nothing or the same pixels as one before.

    Args:
        photograph: The class's, in RGB.
        label: Class index.
        split: Whose cells are drawn from.
    """
    seen: set[bytes] = set()
    in_vain = 0
    for number in count():
        box = crop_box(photograph.width, photograph.height, label, split, number)
        crop = photograph.crop(box)
        pixels = sha256(crop.tobytes()).digest()
        if _is_flat(crop) or pixels in seen:
            in_vain += 1
            if in_vain == _PATIENCE:
                return
            continue
        seen.add(pixels)
        in_vain = 0
        yield box


def _is_flat(crop: Image.Image) -> bool:
    return bool(ImageStat.Stat(crop.convert("L")).stddev[0] < _FLAT)


@dataclass(frozen=True)
class _Photos:
    """The source: image ``i`` of a split is crop ``i // 18`` of class ``i % 18``."""

    paths: tuple[Path, ...]
    counts: dict[SplitName, int]
    _boxes: dict[tuple[SplitName, int], list[Box]] = field(default_factory=dict)
    """(split, class index) → where its crops lie, found when the first of them is read."""
    _lock: Lock = field(default_factory=Lock)

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
        """Return one crop as RGB, shape (px, px, 3).

        Raises:
            UserError: The photograph has fewer crops that differ.
        """
        number, label = divmod(index, len(PHOTO_CLASSES))
        with self._lock:
            boxes = self._found(split, label)
        if number >= len(boxes):
            raise UserError(
                f"photos: {PHOTO_CLASSES[label]} has no more than {len(boxes)} {split} crops that "
                "differ.",
                f"Ask for {len(boxes) * len(PHOTO_CLASSES):,} {split} images or fewer.",
            )
        # Cropped before it is resized: a resize with a box looks across the border of the box.
        return squashed(self._photographs[label].crop(boxes[number]), px, resize)

    def _found(self, split: SplitName, label: int) -> list[Box]:
        if (split, label) not in self._boxes:
            wanted = -(-(self.counts[split] - label) // len(PHOTO_CLASSES))
            crops = distinct_crops(self._photographs[label], label, split)
            self._boxes[split, label] = list(islice(crops, wanted))
        return self._boxes[split, label]

    def where(self, split: SplitName, index: int) -> str:
        """Return the photograph's file."""
        return str(self.paths[index % len(PHOTO_CLASSES)])
