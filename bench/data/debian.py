"""Data sets that Debian packages carry: ``debian:fashion-mnist`` and ``debian:openclipart``."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.decode import squashed
from bench.data.image_files import FileSource, ImageFile, Splits, read_files
from bench.data.model import (
    SPLITS,
    Dataset,
    FileRules,
    Labels,
    Pixels,
    Resize,
    SplitName,
    SplitSizes,
)
from bench.data.sampling import balanced_order, settled_size
from bench.errors import Unavailable, UserError
from bench.storage.checksums import sha256_of_file, sha256_of_texts
from bench.storage.regular_files import open_regular

DEBIAN_REVISION = 1
"""Part of the content hashes: increase it when splits or their order change."""
FASHION, CLIPART = Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/openclipart/png")
_GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
             "ankle boot")  # fmt: skip
_DRAWINGS = ("animals", "computer", "food", "office", "people", "recreation", "shapes",
             "signs_and_symbols", "tools", "transportation")  # fmt: skip
"""Folders of drawings that are classes: those with 140 drawings or more, without mixtures."""
_VAL_IMAGES = 5_000
"""Of the 60,000 garments for training."""
_SHARES: dict[SplitName, float] = {"test": 0.3, "val": 0.1, "train": 0.6}
"""Shares of the drawings of a class."""
_MOST_PIXELS = 25_000_000
"""Pixels above which a drawing is left out: one of the package has 623 million."""
_SIDE_PX = 28


def fashion_path() -> Path:
    """Return the folder of the garments; raise Unavailable if the package is not installed."""
    return _folder(FASHION, "train-images-idx3-ubyte.gz", "dataset-fashion-mnist")


def clipart_path() -> Path:
    """Return the folder of the drawings; raise Unavailable if the package is not installed."""
    return _folder(CLIPART, _DRAWINGS[0], "openclipart-png")


def _folder(folder: Path, inside: str, package: str) -> Path:
    if not (folder / inside).exists():
        raise Unavailable(
            f"The Debian package {package} is not installed here: apt-get install {package}"
        )
    return folder


def open_fashion(sizes: SplitSizes) -> Dataset:
    """Open Fashion-MNIST, see ``open_dataset``; both files are unpacked and each image is hashed.
    Its own test images are the test; of the others, the first ones of a balanced order are for
    validation."""
    folder = fashion_path()
    source = _Garments(folder)
    counts = {
        split: settled_size(
            "debian:fashion-mnist", split, sizes.of(split), len(source.order[split])
        )
        for split in SPLITS
    }
    for split, count in counts.items():
        source.order[split] = source.order[split][:count]
    files = (sha256_of_file(path) for path in sorted(folder.glob("*.gz")))
    texts = [f"fashion-mnist {DEBIAN_REVISION}", *map(str, counts.values()), *files]
    train, val, test = (counts[split] for split in SPLITS)
    return Dataset(
        "debian:fashion-mnist", sha256_of_texts(texts), _GARMENTS, train, val, test, source
    )


@dataclass
class _Garments:
    """The garments of both files, each in a balanced order."""

    folder: Path

    @cached_property
    def _arrays(self) -> dict[str, tuple[Pixels, Labels]]:
        """Return (N, 28, 28) grey levels and (N,) classes of each file."""
        return {name: (_idx(self.folder / f"{name}-images-idx3-ubyte.gz", 3),
                       _idx(self.folder / f"{name}-labels-idx1-ubyte.gz", 1).astype(np.int64))
                for name in ("train", "t10k")}  # fmt: skip

    @cached_property
    def order(self) -> dict[SplitName, list[int]]:
        """Return the places of the images of each split in their file."""
        orders = {}
        for name, (images, labels) in self._arrays.items():
            keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
            orders[name] = balanced_order(labels.tolist(), keys)
        train = orders["train"]
        return {"train": train[_VAL_IMAGES:], "val": train[:_VAL_IMAGES], "test": orders["t10k"]}

    def _of(self, split: SplitName) -> tuple[Pixels, Labels]:
        return self._arrays["t10k" if split == "test" else "train"]

    def labels(self, split: SplitName) -> Labels:
        return self._of(split)[1][self.order[split]]

    def groups(self, split: SplitName) -> None:
        """Return None: the garments do not belong together."""

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        grey = self._of(split)[0][self.order[split][index]]
        return squashed(Image.fromarray(grey).convert("RGB"), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        return f"{self.folder}, image {self.order[split][index]}"


def _idx(path: Path, dimensions: int) -> Pixels:
    """Return the array of a file in the IDX format of MNIST (uint8, big-endian sizes); raise
    UserError if it is something else."""
    try:
        with gzip.open(path, "rb") as file:
            data = file.read()
    except (EOFError, OSError, zlib.error):
        data = b""
    shape = np.frombuffer(data[4 : 4 + 4 * dimensions], ">u4").astype(int)
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) - 4 - 4 * dimensions != shape.prod():
        raise UserError(f"{path} is not in the IDX format.", "Install the Debian package again.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def open_clipart(sizes: SplitSizes) -> Dataset:
    """Open the drawings, see ``open_dataset``; every file is hashed. Each class has as many
    distinct drawings as the smallest one; drawings that are in two classes, or huge, are left out.
    """
    root = clipart_path()
    found = [
        ImageFile(path, name, None)
        for name in _DRAWINGS
        for path in sorted((root / name).rglob("*.png"))
        if _pixels(path) <= _MOST_PIXELS
    ]
    read, skipped = read_files(found, FileRules())
    distinct = _distinct(read)
    fewest = min(map(len, distinct.values()))
    chosen: Splits = {}
    texts = [f"openclipart {DEBIAN_REVISION}", *_DRAWINGS]
    first = 0
    for split, share in _SHARES.items():
        count = round(share * fewest)
        images = [image for own in distinct.values() for image in own[first : first + count]]
        first += count
        order = balanced_order(
            [_DRAWINGS.index(image.class_name) for image in images], [i.sha256 for i in images]
        )
        size = settled_size("debian:openclipart", split, sizes.of(split), len(images))
        chosen[split] = [images[place] for place in order[:size]]
        texts += [split, *(image.sha256 for image in chosen[split])]
    source = FileSource(_DRAWINGS, chosen, squashed)
    return source.dataset("debian:openclipart", texts, skipped)


def _pixels(path: Path) -> int:
    """Return the number of pixels that the header of a PNG file declares."""
    with open_regular(path) as file:
        width, height = struct.unpack(">16xII", file.read(24).ljust(24, b"\0"))
    return int(width * height)


def _distinct(images: Sequence[ImageFile]) -> dict[str, list[ImageFile]]:
    """Return class → its distinct images by ascending hash, without those of two classes."""
    classes: dict[str, set[str]] = defaultdict(set)
    for image in images:
        classes[image.sha256].add(image.class_name)
    by_class: dict[str, dict[str, ImageFile]] = {name: {} for name in _DRAWINGS}
    for image in images:
        if len(classes[image.sha256]) == 1:
            by_class[image.class_name].setdefault(image.sha256, image)
    return {name: [own[key] for key in sorted(own)] for name, own in by_class.items()}
