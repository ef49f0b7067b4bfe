"""``folder:PATH``: any folder of images, with the classes as sub-folders.

What lies in a user's folder of images: its layout, its classes, its files."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.data.decode import centre_square, load_rgb, quiet_pillow
from bench.data.model import SPLITS, Dataset, Resize, SplitName, SplitSizes, UnreadableImageError
from bench.data.package_files import hash_file, hash_parts, in_threads
from bench.data.packing import unreadable_error
from bench.data.sampling import asked_for, check_sizes, proportional_order, settle
from bench.errors import UserError

# Raise it when splits, subsets or decoding change: it is part of the content hash.
FOLDER_REVISION = 1
# Share of the distinct images of a class that validation and test get where none are given.
_HELD_OUT = 0.15


@dataclass(frozen=True)
class _Sample:
    """One image file whose bytes are known."""

    path: Path
    class_name: str
    split: SplitName | None
    sha256: str


_Splits = dict[SplitName, list[_Sample]]


def open_folder(path: str, sizes: SplitSizes, *, skip_unreadable: bool = False) -> Dataset:
    """Open a folder of images; every file is hashed, none is decoded.

    Args:
        path: As the user typed it; ``~`` is expanded.
        sizes: Subsets have the classes in their proportions; a smaller one is part of a larger.
        skip_unreadable: Decode every file now and leave out those that cannot be.

    Raises:
        UserError: If the layout, the classes or the files are not as expected, or if more
            images are asked for than there are.
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
        split: _subset(name, split, asked_for(sizes, split), splits[split], classes)
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
    """The source: image files in the order of the subset."""

    classes: tuple[str, ...]
    samples: _Splits

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class indices, shape (N,)."""
        index = {name: label for label, name in enumerate(self.classes)}
        return np.array([index[s.class_name] for s in self.samples[split]], dtype=np.int64)

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one image as RGB, shape (px, px, 3), its shorter side resized, its centre cut."""
        return centre_square(load_rgb(self.samples[split][index].path), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        """Return the image's file."""
        return str(self.samples[split][index].path)


def _read_all(found: list[FolderScan], *, decode: bool) -> tuple[list[_Sample], list[str]]:
    """Hash every file; returns the samples, and 'FILE: reason' for those that cannot be read."""

    def read(image: FolderScan) -> _Sample | str:
        try:
            if image.path.stat().st_size == 0:
                return f"{image.path}: the file is empty"
            if decode:
                load_rgb(image.path)
            sha256 = hash_file(image.path)
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


def _class_names(found: list[FolderScan], root: Path) -> tuple[str, ...]:
    """Return the classes in natural order of their names, the same ones in every split.

    Raises:
        UserError: If there is only one, or the splits differ.
    """
    names = {image.class_name for image in found}
    for split in SPLITS:
        there = {image.class_name for image in found if image.split == split}
        missing = sorted(names - there, key=natural_key)
        if there and missing:
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


def _check_none_lost(found: list[FolderScan], samples: list[_Sample]) -> None:
    """Check that leaving out unreadable files left every class an image in every split.

    Raises:
        UserError: Naming the class.
    """
    kept = {(sample.split, sample.class_name) for sample in samples}
    for image in found:
        if (image.split, image.class_name) not in kept:
            where = f" in '{image.split}'" if image.split else ""
            raise UserError(
                f"The class '{image.class_name}' has 0 images that can be read{where}.",
                "Add images to it, or remove the class.",
            )


def _check_one_class_each(samples: list[_Sample]) -> None:
    """Check that no image is in two classes, or in two splits.

    Raises:
        UserError: Naming the two files.
    """
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
                "A result on images that were trained on means nothing: remove one of the two.",
            )


def _split(samples: list[_Sample], classes: tuple[str, ...]) -> _Splits:
    """Return the samples of each split: the user's splits, or 70/15/15 of each class."""
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

    Identical files are one image here, so they stay together.

    Raises:
        UserError: If a class has too few distinct images for one in each split.
    """
    split_of: dict[str, SplitName] = {}
    for name in classes:
        images = sorted({s.sha256 for s in samples if s.class_name == name})
        needed = len(held_out) + 1
        if len(images) < needed:
            raise UserError(
                f"The class '{name}' has {len(images)} distinct image(s) to make "
                f"{', '.join(('train', *held_out))} of; at least {needed} are needed.",
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
    count = settle(name, split, asked, None, len(samples))
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
    return hash_parts(parts)


LAYOUT_HINT = (
    "Expected PATH/CLASS/*.jpg (also jpeg, png, bmp, webp, tif, tiff, gif), one folder for each "
    "class, or such folders under PATH/train, PATH/test and, if you like, PATH/val."
)
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
_SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class FolderScan:
    """One image file."""

    path: Path
    """Where it lies."""
    class_name: str
    """Name of its class folder."""
    split: SplitName | None
    """The split whose folder it lies in; None where the folder has no splits."""


def scan(root: Path) -> list[FolderScan]:
    """Return every image file below a folder, with its class and, if there is one, its split.

    Args:
        root: Holds class folders, or split folders that hold class folders.

    Raises:
        UserError: If there is no such folder, or its layout is not the expected one.
    """
    if not root.exists():
        raise UserError(f"There is no folder {root}.", LAYOUT_HINT)
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder of images.", LAYOUT_HINT)
    try:
        splits = _split_folders(root)
        if not splits:
            return _classes(root, None)
        return [
            found for split in SPLITS if split in splits for found in _classes(splits[split], split)
        ]
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or root}: {error.strerror}.") from error


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts 'img2' before 'img10' and 'a' beside 'A'."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    numbered = [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p.casefold()) for p in parts]
    return numbered, name


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """Return the folder of each split; empty if the class folders lie in ``root`` itself."""
    holding = [path for path in _visible_folders(root) if _has_image(path)]
    named = [path for path in holding if path.name.casefold() in _SPLIT_FOLDERS]
    others = [path.name for path in holding if path not in named]
    if others:
        nested = {_split_of(p) for p in named if any(map(_has_image, _visible_folders(p)))}
        if {"train", "test"} <= nested:
            raise UserError(
                f"{root} has split folders ('train', 'test') and other folders with images "
                f"beside them: {_listed(others)}.",
                LAYOUT_HINT,
            )
        return {}  # a folder of that name is a class like the others
    splits: dict[SplitName, Path] = {}
    for path in sorted(named):
        other = splits.setdefault(_split_of(path), path)
        if other != path:
            raise UserError(
                f"{root} has two folders for one split: '{other.name}' and '{path.name}'.",
                "Remove or rename one of them.",
            )
    if splits:
        _check_train_and_test(root, splits)
    return splits


def _split_of(folder: Path) -> SplitName:
    return _SPLIT_FOLDERS[folder.name.casefold()]


def _check_train_and_test(root: Path, splits: dict[SplitName, Path]) -> None:
    needed: tuple[SplitName, ...] = ("train", "test")
    for split in needed:
        if split not in splits:
            there = next(iter(splits.values()))
            raise UserError(
                f"{root} has a folder '{there.name}' and no '{split}' folder with images.",
                f"Add one; or give folder:{there}, which is then split 70/15/15.",
            )


def _classes(root: Path, split: SplitName | None) -> list[FolderScan]:
    folders = sorted(_visible_folders(root), key=lambda path: natural_key(path.name))
    found = {
        path.name: [FolderScan(image, path.name, split) for image in _images_below(path)]
        for path in folders
    }
    loose = next((path for path in _visible_files(root) if _is_image(path)), None)
    if not any(found.values()):
        if loose is not None:
            raise UserError(
                f"The images lie directly in {root}, for instance {loose.name}, "
                f"not in class folders.",
                LAYOUT_HINT,
            )
        raise UserError(f"No images found in {root}, expected PATH/class/*.jpg.", LAYOUT_HINT)
    if loose is not None:
        raise UserError(
            f"{root} has class folders and images beside them, for instance {loose.name}.",
            "Move these images into class folders, or away.",
        )
    empty = [name for name, images in found.items() if not images]
    if empty:
        raise UserError(
            f"No images in the class folder{'s' if len(empty) > 1 else ''} {_listed(empty)} "
            f"of {root} (0 images).",
            "Put images there, or remove the folder.",
        )
    return [image for images in found.values() for image in images]


def _images_below(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder, links followed, a link to a parent only once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_visible(name))
        for name in sorted(files):
            path = Path(here, name)
            if _is_visible(name) and _is_image(path):
                yield path


def _raise(error: OSError) -> None:
    raise error


def _has_image(folder: Path) -> bool:
    return next(_images_below(folder), None) is not None


def _is_image(path: Path) -> bool:
    return path.suffix.casefold() in _SUFFIXES


def _is_visible(name: str) -> bool:
    # __MACOSX is what a zip file made on a Mac leaves beside the data.
    return not name.startswith(".") and name != "__MACOSX"


def _visible_folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _is_visible(path.name) and path.is_dir()]


def _visible_files(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _is_visible(path.name) and not path.is_dir()]


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names, key=natural_key))
