"""Image files as the source of a data set: hashed when it is opened, decoded when it is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.decode import UnreadableImageError, decoding_threads, load_rgb, use_rgb
from bench.data.model import SPLITS, Dataset, FileRules, Labels, Pixels, Resize, SplitName
from bench.errors import UserError
from bench.spec.run import Fold
from bench.storage.checksums import sha256_of_file, sha256_of_texts
from bench.storage.regular_files import is_regular

MOST_NAMED = 5
"""Files or classes that a message names; it counts the others."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of a data set."""

    path: Path
    class_name: str
    split: SplitName | None
    """None if the files are not divided into splits yet."""
    line: str = ""
    """Line that lists the file, as 'FILE, line N'; empty if no list does."""
    sha256: str = ""
    """SHA-256 of the content in hex, once it has been read."""
    group: str = ""
    """Hash of what it shares with the files that it belongs to; empty if it stands alone."""

    @property
    def unit(self) -> str:
        """Hash of what must not be divided between splits: a group of files, or identical ones."""
        return self.group or self.sha256


Splits = dict[SplitName, list[ImageFile]]


@dataclass(frozen=True)
class FileSource:
    """Access to image files in the order of the subset."""

    classes: tuple[str, ...]
    images: Splits
    fit: Callable[[Image.Image, int, Resize], Pixels]
    """Makes an image square, such as ``centre_square``."""
    max_pixels: int = FileRules.max_pixels
    """Largest number of pixels of an image."""

    def dataset(
        self,
        name: str,
        hashed_texts: Iterable[str],
        skipped: Iterable[str],
        remarks: Iterable[str] = (),
        fold: Fold | None = None,
    ) -> Dataset:
        """Return the data set of these images; the texts say everything that decides them."""
        train, val, test = (len(self.images[split]) for split in SPLITS)
        content_hash, left_out = sha256_of_texts(hashed_texts), tuple(skipped)
        return Dataset(
            name, content_hash, self.classes, train, val, test, self, left_out, tuple(remarks),
            fold=fold,
        )  # fmt: skip

    def labels(self, split: SplitName) -> Labels:
        index = {name: label for label, name in enumerate(self.classes)}
        return np.array([index[image.class_name] for image in self.images[split]], dtype=np.int64)

    def groups(self, split: SplitName) -> Labels | None:
        images = self.images[split]
        if not any(image.group for image in images):
            return None
        numbers = np.unique([image.unit for image in images], return_inverse=True)[1]
        return np.asarray(numbers, dtype=np.int64)

    def read(self, split: SplitName, index: int, px: int, resize: Resize = "antialias") -> Pixels:
        path = self.images[split][index].path
        return use_rgb(path, lambda image: self.fit(image, px, resize), self.max_pixels)

    def where(self, split: SplitName, index: int) -> str:
        return str(self.images[split][index].path)


def read_files(images: Sequence[ImageFile], rules: FileRules) -> tuple[list[ImageFile], list[str]]:
    """Hash image files; return the readable ones, and 'FILE: reason' for each of the others.

    With ``rules.skip_unreadable``, the files are decoded too, and left out if that fails; otherwise
    a file that cannot be read raises UserError.
    """

    def read(image: ImageFile) -> ImageFile | str:
        where = f"{image.path} ({image.line})" if image.line else str(image.path)
        try:
            found = image.path.stat()
            if found.st_size == 0 and is_regular(image.path):
                return f"{where}: the file is empty"
            most_pixels = rules.max_pixels if rules.skip_unreadable else None
            known = (image.path, found.st_size, found.st_mtime_ns)
            return replace(image, sha256=_checked_sha256(*known, most_pixels))
        except UnreadableImageError as error:
            return f"{where}: {error}"
        except OSError as error:
            return f"{where}: {error.strerror}"

    with decoding_threads() as pool:
        results = list(pool.map(read, images))
    failures = [result for result in results if isinstance(result, str)]
    if failures and not rules.skip_unreadable:
        raise unreadable_error(failures)
    return [result for result in results if isinstance(result, ImageFile)], failures


@lru_cache(maxsize=1_000_000)
def _checked_sha256(path: Path, size_bytes: int, changed_ns: int, most_pixels: int | None) -> str:
    """Return the SHA-256 of a file in hex; with ``most_pixels``, decode it first, which raises
    UnreadableImageError if it fails. A file of the same size and time of change is not read again:
    a data set is opened once whole and once for each subset."""
    if most_pixels is not None:
        load_rgb(path, most_pixels)
    return sha256_of_file(path)


def first_of(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first few names, comma-separated, and the number of others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unreadable_error(failures: Sequence[str]) -> UserError:
    """Return the error for images that cannot be decoded, given 'FILE: reason' for each."""
    named = "".join(f"\n  {failure}" for failure in failures[:MOST_NAMED])
    more = f"\n  … and {len(failures) - MOST_NAMED} more" if len(failures) > MOST_NAMED else ""
    count = "1 image" if len(failures) == 1 else f"{len(failures)} images"
    return UserError(
        f"{count} cannot be read:{named}{more}",
        "Remove them, or leave them out with --skip-unreadable.",
    )
