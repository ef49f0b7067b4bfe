"""The data set ``folder:PATH``: a user's folder of images, with the classes as sub-folders."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.data.decode import centre_square, load_rgb, quiet_pillow
from bench.data.folder_layout import LAYOUT_HINT, FoundImage, natural_key, scan
from bench.data.model import SPLITS, Dataset, Resize, SplitName, SplitSizes, UnreadableImageError
from bench.data.packing import unreadable_error
from bench.data.sampling import check_sizes, proportional_order, settled_size, size_of_split
from bench.data.threads import in_threads
from bench.errors import UserError
from bench.storage.checksums import sha256_of_file, sha256_of_texts

FOLDER_REVISION = 1
"""Part of the content hash: increase it when splits, subsets or decoding change."""
_HELD_OUT = 0.15
"""Share of the distinct images of a class for each of validation and test, if not given."""


@dataclass(frozen=True)
class _Sample:
    """An image file and the hash of its content."""

    path: Path
    class_name: str
    split: SplitName | None
    sha256: str


_Splits = dict[SplitName, list[_Sample]]


def open_folder(path: str, sizes: SplitSizes, *, skip_unreadable: bool = False) -> Dataset:
    """Open a folder of images; every file is hashed.

    Args:
        path: Path as the user typed it; ``~`` is expanded.
        sizes: Requested sizes. Subsets keep the proportions of the classes, and a smaller one is
            part of a larger one.
        skip_unreadable: Decode every file now and leave out those that cannot be decoded.

    Raises:
        UserError: The layout, the classes or the files are not as expected, or there are fewer
            images than requested.
    """
    check_sizes(sizes)
    root = Path(os.path.abspath(os.path.expanduser(path)))
    found = scan(root)
    classes = _class_names(found, root)
    samples, failures = _read_all(found, decode=skip_unreadable)
    if failures and not skip_unreadable:
        raise unreadable_error(failures)
    _check_none_lost(found, samples)
    _check_one_class_each(samples)
    splits = _split(samples, classes)
    name = f"folder:{root.name or 'root'}"
    chosen = {
        split: _subset(name, split, size_of_split(sizes, split), splits[split], classes)
        for split in SPLITS
    }
    return Dataset(
        name=name,
        content_hash=_content_hash(classes, chosen),
        classes=classes,
        train_images=len(chosen["train"]),
        val_images=len(chosen["val"]),
        test_images=len(chosen["test"]),
        similarity=None,
        size_bounds=None,
        label=name,
        source=_FolderSource(classes, chosen),
        skipped=tuple(failures),
    )


@dataclass(frozen=True)
class _FolderSource:
    """Image files in the order of the subset."""

    classes: tuple[str, ...]
    samples: _Splits

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class indices, shape (N,)."""
        index = {name: label for label, name in enumerate(self.classes)}
        return np.array([index[s.class_name] for s in self.samples[split]], dtype=np.int64)

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return the centre square of one image as RGB, shape (px, px, 3)."""
        return centre_square(load_rgb(self.samples[split][index].path), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        """Return the image's file."""
        return str(self.samples[split][index].path)


def _read_all(found: list[FoundImage], *, decode: bool) -> tuple[list[_Sample], list[str]]:
    """Hash every file; return the samples, and 'FILE: reason' for each unreadable file."""

    def read(image: FoundImage) -> _Sample | str:
        try:
            if image.path.stat().st_size == 0:
                return f"{image.path}: the file is empty"
            if decode:
                load_rgb(image.path)
            sha256 = sha256_of_file(image.path)
        except UnreadableImageError as error:
            return f"{image.path}: {error}"
        except OSError as error:
            return f"{image.path}: {error.strerror}"
        return _Sample(image.path, image.class_name, image.split, sha256)

    with quiet_pillow():
        results = in_threads(read, found)
    return (
        [result for result in results if isinstance(result, _Sample)],
        [result for result in results if isinstance(result, str)],
    )


def _class_names(found: list[FoundImage], root: Path) -> tuple[str, ...]:
    """Return the names of the classes in natural order.

    Raises:
        UserError: There is only one class, or the splits have different classes.
    """
    names = {image.class_name for image in found}
    for split in SPLITS:
        in_split = {image.class_name for image in found if image.split == split}
        missing = sorted(names - in_split, key=natural_key)
        if in_split and missing:
            listed = ", ".join(f"'{name}'" for name in missing)
            raise UserError(
                f"The splits of {root} have different classes: '{split}' has no {listed}.",
                "Every split needs the same class folders, with an image in each.",
            )
    if len(names) < 2:
        raise UserError(
            f"{root} has only the class '{min(names)}'; at least two are needed.", LAYOUT_HINT
        )
    return tuple(sorted(names, key=natural_key))


def _check_none_lost(found: list[FoundImage], samples: list[_Sample]) -> None:
    """Raise UserError if leaving out unreadable files left a class without images in a split."""
    kept = {(sample.split, sample.class_name) for sample in samples}
    for image in found:
        if (image.split, image.class_name) not in kept:
            where = f" in '{image.split}'" if image.split else ""
            raise UserError(
                f"The class '{image.class_name}' has 0 images that can be read{where}.",
                "Add images to it, or remove the class.",
            )


def _check_one_class_each(samples: list[_Sample]) -> None:
    """Raise UserError if the same image is in two classes or in two splits."""
    first: dict[str, _Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.sha256, sample)
        if other.class_name != sample.class_name:
            raise UserError(
                f"The same image is in the classes '{other.class_name}' and "
                f"'{sample.class_name}': {other.path} and {sample.path}.",
                "Remove the wrong one.",
            )
        if other.split != sample.split:
            raise UserError(
                f"The same image is in '{other.split}' and in '{sample.split}': "
                f"{other.path} and {sample.path}.",
                "Test results on training images mean nothing: remove one of the two.",
            )


def _split(samples: list[_Sample], classes: tuple[str, ...]) -> _Splits:
    """Return the samples of each split: the user's splits, or 70/15/15 % of each class."""
    given: _Splits = {split: [s for s in samples if s.split == split] for split in SPLITS}
    unassigned = [sample for sample in samples if sample.split is None]
    if unassigned:
        return _carve(unassigned, classes, ("val", "test"))
    if not given["val"]:
        carved = _carve(given["train"], classes, ("val",))
        return {**carved, "test": given["test"]}
    return given


def _carve(
    samples: list[_Sample], classes: tuple[str, ...], held_out: tuple[SplitName, ...]
) -> _Splits:
    """Take 15 % of each class for each of the held-out splits; the rest is for training.

    Identical files count as one image, so that they stay in one split.

    Raises:
        UserError: A class has too few distinct images for one in each split.
    """
    split_of: dict[str, SplitName] = {}
    for name in classes:
        images = sorted({s.sha256 for s in samples if s.class_name == name})
        needed = len(held_out) + 1
        if len(images) < needed:
            raise UserError(
                f"The class '{name}' has {len(images)} distinct image(s); at least {needed} are "
                f"needed for {', '.join(('train', *held_out))}.",
                "Add images to it, or remove the class.",
            )
        share = max(1, round(_HELD_OUT * len(images)))
        for position, split in enumerate(held_out):
            for sha256 in images[position * share : (position + 1) * share]:
                split_of[sha256] = split
    carved: _Splits = defaultdict(list)
    for sample in samples:
        carved[split_of.get(sample.sha256, "train")].append(sample)
    return carved


def _subset(
    name: str,
    split: SplitName,
    asked: int | None,
    samples: list[_Sample],
    classes: tuple[str, ...],
) -> list[_Sample]:
    count = settled_size(name, split, asked, None, len(samples))
    index = {class_name: label for label, class_name in enumerate(classes)}
    order = proportional_order(
        [index[sample.class_name] for sample in samples],
        [sample.sha256 for sample in samples],
    )
    return [samples[position] for position in order[:count]]


def _content_hash(classes: Iterable[str], splits: _Splits) -> str:
    parts = [f"folder {FOLDER_REVISION}", *classes]
    for split in SPLITS:
        for sample in splits[split]:
            parts += [split, sample.class_name, sample.sha256]
    return sha256_of_texts(parts)
