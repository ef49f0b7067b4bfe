"""The layout of a user's folder of images: which files it holds, of which class and split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.data.image_files import ImageFile
from bench.data.model import SPLITS, SplitName
from bench.errors import UserError

LAYOUT_HINT = (
    "Expected PATH/CLASS/*.jpg (also jpeg, png, bmp, webp, tif, tiff, gif), one folder for each "
    "class, or such folders under PATH/train, PATH/test and, if you like, PATH/val."
)
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
_SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip


def scan(root: Path) -> list[ImageFile]:
    """Return every image file below a folder of class folders, or of split folders that hold them;
    raise UserError if there is no such folder or it has another layout."""
    if not root.exists():
        raise UserError(f"There is no folder {root}.", LAYOUT_HINT)
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder of images.", LAYOUT_HINT)
    try:
        splits = _split_folders(root)
        if not splits:
            return _images_of_classes(root, None)
        ordered = [(splits[split], split) for split in SPLITS if split in splits]
        return [image for place in ordered for image in _images_of_classes(*place)]
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or root}: {error.strerror}.") from error


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that puts 'img2' before 'img10' and 'a' beside 'A'."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    numbered = [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p.casefold()) for p in parts]
    return numbered, name


def quoted(names: Iterable[str]) -> str:
    """Return names in natural order as 'a', 'b'."""
    return ", ".join(f"'{name}'" for name in sorted(names, key=natural_key))


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """Return the folder of each split; empty if the class folders lie in ``root`` itself."""
    holding = [path for path in _folders_in(root) if _has_image(path)]
    named = sorted(path for path in holding if path.name.casefold() in _SPLIT_FOLDERS)
    others = [path.name for path in holding if path not in named]
    if others:
        nested = {_split_of(path) for path in named if any(map(_has_image, _folders_in(path)))}
        if {"train", "test"} <= nested:
            raise UserError(
                f"{root} has split folders ('train', 'test') and other folders with images "
                f"beside them: {quoted(others)}.",
                LAYOUT_HINT,
            )
        return {}  # a folder called 'train' is a class here
    splits: dict[SplitName, Path] = {}
    for path in named:
        other = splits.setdefault(_split_of(path), path)
        if other != path:
            raise UserError(
                f"{root} has two folders for one split: '{other.name}' and '{path.name}'.",
                "Remove or rename one of them.",
            )
    missing = [split for split in ("train", "test") if split not in splits]
    if splits and missing:
        there = next(iter(splits.values()))
        raise UserError(
            f"{root} has a folder '{there.name}' and no '{missing[0]}' folder with images.",
            f"Add one; or give folder:{there}, which is then split 70/15/15.",
        )
    return splits


def _split_of(folder: Path) -> SplitName:
    return _SPLIT_FOLDERS[folder.name.casefold()]


def _images_of_classes(root: Path, split: SplitName | None) -> list[ImageFile]:
    folders = sorted(_folders_in(root), key=lambda path: natural_key(path.name))
    found = {
        path.name: [ImageFile(image, path.name, split) for image in _images_below(path)]
        for path in folders
    }
    loose = next((path for path in root.iterdir() if _is_image(path) and not path.is_dir()), None)
    if not any(found.values()):
        if loose is not None:
            raise UserError(
                f"The images lie directly in {root}, for instance {loose.name}, not in class "
                "folders.",
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
            f"No images in the class folder{'s' if len(empty) > 1 else ''} {quoted(empty)} "
            f"of {root} (0 images).",
            "Put images there, or remove the folder.",
        )
    return [image for images in found.values() for image in images]


def _images_below(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder; links are followed, each folder is visited once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_visible(name))
        yield from (path for name in sorted(files) if _is_image(path := Path(here, name)))


def _raise(error: OSError) -> None:
    raise error


def _has_image(folder: Path) -> bool:
    return next(_images_below(folder), None) is not None


def _is_image(path: Path) -> bool:
    return path.suffix.casefold() in _SUFFIXES and _is_visible(path.name)


def _is_visible(name: str) -> bool:
    # Zip files made on a Mac leave a folder __MACOSX beside the data.
    return not name.startswith(".") and name != "__MACOSX"


def _folders_in(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _is_visible(path.name) and path.is_dir()]
