"""A folder of JPEG files for programs that read folders: crops of the data set ``photos``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image

from bench.data import Dataset, SplitSizes, open_dataset
from bench.data.decode import decoding_threads
from bench.data.model import SPLITS, SplitName

JPEG_PX = 256
"""Side of each image in pixels, realistic for the cost of decoding."""
JPEG_QUALITY = 90


def write_folder(root: Path, sizes: SplitSizes) -> None:
    """Write {train,val,test}/CLASS/NUMBER.jpg.

    Args:
        root: An empty folder.
        sizes: Number of images of each split; classes alternate.

    Raises:
        Unavailable: The packages of the photographs are not installed.
        UserError: There are not that many different crops.
    """
    dataset = open_dataset("photos", sizes, cache_dir=root)
    for split in SPLITS:
        names = [dataset.classes[label] for label in dataset.source.labels(split)]
        for name in set(names):
            (root / split / name).mkdir(parents=True)
        with decoding_threads() as pool:
            list(pool.map(partial(_write, root, dataset, split), enumerate(names)))


def _write(root: Path, dataset: Dataset, split: SplitName, image: tuple[int, str]) -> None:
    index, name = image
    pixels = dataset.source.read(split, index, JPEG_PX)
    path = root / split / name / f"{index:05d}.jpg"
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
