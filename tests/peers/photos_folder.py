"""Real JPEG files, for programs that read folders: crops of the data set ``photos``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from bench.data import Dataset, SplitSizes, open_dataset
from bench.data.model import SPLITS, SplitName
from bench.data.photos import PHOTO_CLASSES
from bench.data.sampling import asked_for
from bench.errors import UserError

JPEG_PX = 256
"""Side of each image, so that decoding costs what it does with a user's own."""
JPEG_QUALITY = 90
SPARE = 100
"""Crops of a class that may be left out: some are all white, and alike."""


def write_folder(root: Path, sizes: SplitSizes) -> None:
    """Write {train,val,test}/CLASS/NUMBER.jpg, no image twice.

    Args:
        root: An empty folder.
        sizes: Images of each split; the classes take turns.

    Raises:
        Unavailable: The packages of the photographs are not installed.
        UserError: There are not so many different crops.
    """
    counts = {split: asked_for(sizes, split) or 0 for split in SPLITS}
    most = max(counts.values()) + SPARE * len(PHOTO_CLASSES)
    dataset = open_dataset("photos", SplitSizes(most, most, most), cache_dir=root)
    seen: set[bytes] = set()
    for split, count in counts.items():
        crops = [_crops(dataset, split, label, seen) for label in range(len(dataset.classes))]
        for index in range(count):
            label = index % len(dataset.classes)
            image = next(crops[label], None)
            if image is None:
                raise UserError(
                    f"There are not {count} different {split} crops.", "Ask for fewer: --images."
                )
            path = root / split / dataset.classes[label] / f"{index:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=JPEG_QUALITY)


def _crops(
    dataset: Dataset, split: SplitName, label: int, seen: set[bytes]
) -> Iterator[Image.Image]:
    """The crops of a class that differ from all ``seen``, to which they are added."""
    labels = dataset.source.labels(split)
    for index in range(label, len(labels), len(dataset.classes)):
        pixels = dataset.source.read(split, index, JPEG_PX)
        if pixels.tobytes() not in seen:
            seen.add(pixels.tobytes())
            yield Image.fromarray(pixels)
