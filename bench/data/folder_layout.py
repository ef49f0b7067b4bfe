"""The layout of a user's folder of images: which files it holds, of which class and split."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.data.decode import is_image
from bench.data.image_files import ImageFile, first_of
from bench.data.model import SPLITS, SplitName
from bench.errors import UserError, number_of
from bench.storage.regular_files import is_regular
from bench.system import cores

LAYOUT_HINT = (
    "Expected PATH/CLASS/*.jpg (or png, webp, tif and so on), one folder for each class, or such "
    "folders under PATH/train, PATH/test and, if you like, PATH/val."
)
_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm",
    ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".qoi", ".tga",
})  # fmt: skip
"""Suffixes of images; a file with another one, or none, is an image if its content is."""
_LITTER = re.compile(
    r"__macosx|@.*|[#~]recycle|[#~]snapshot|\$recycle\.bin|recycler|recycled|recycle\.bin|lost\+found|"
    r"system volume information|_*thumbs|thumbs\.db|thumbnails|_vti_cnf|found\.\d+|"
    r"network trash folder|temporary items|desktop\.ini|__pycache__"
)
"""Folders and files that systems leave beside data, in lower case. 'trash' is not among them: it is
a class of pictures of waste."""
_SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "eval": "val", "evaluation": "val", "test": "test",
    "testing": "test", "tst": "test", "holdout": "test", "heldout": "test",
}  # fmt: skip
"""Words that name a split, alone or as in 'seg_train', 'training_set' and 'test-images'."""
_AROUND_SPLITS = frozenset({"seg", "set", "data", "dataset", "images", "imgs", "split", "folder"})
_MASKS = frozenset({
    "masks", "mask", "segmentations", "segmentation", "annotations", "annotation", "annots",
    "annot", "groundtruth", "truth", "labels", "label", "gt", "gts", "targets", "target", "depth",
})  # fmt: skip
_IMAGES = frozenset({
    "images", "image", "imgs", "img", "jpegimages", "photos", "inputs", "input", "rgb",
    *_SPLIT_WORDS,
})  # fmt: skip

_MASK_OF = re.compile(r"(.+)[-_. ](?:masks?|gt|segmentation|labels?)", re.IGNORECASE)
"""Name of a mask after that of its image."""


@dataclass(frozen=True)
class Scan:
    """The image files of a folder, and the files that are none."""

    images: list[ImageFile] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """Visible files without an image."""


def scan(root: Path) -> Scan:
    """Return every image file below a folder of class folders, or of split folders that hold them;
    raise UserError if there is no such folder or it has another layout."""
    if not root.exists():
        raise UserError(f"There is no folder {root}.", LAYOUT_HINT)
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder of images.", LAYOUT_HINT)
    try:
        splits = _split_folders(root)
        found = Scan()
        if not splits:
            _add_classes(root, None, found)
        for split in SPLITS:
            if split in splits:
                _add_classes(splits[split], split, found)
        return found
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or root}: {error.strerror}.") from error


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that puts 'img2' before 'img10' and 'a' beside 'A'."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    numbered = [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p.casefold()) for p in parts]
    return numbered, name


def quoted(names: Iterable[str]) -> str:
    """Return names in natural order as 'a', 'b'; of many, the first few and a number."""
    return first_of([f"'{name}'" for name in sorted(set(names), key=natural_key)])


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """Return the folder of each split; empty if the class folders lie in ``root`` itself."""
    holding = [path for path in _folders_in(root) if _may_hold_images(path)]
    split_of = _splits_among(holding)
    named = sorted(split_of)
    others = [path.name for path in holding if path not in named]
    if others:
        nested = [p.name for p in named if any(map(_may_hold_images, _folders_in(p)))]
        if nested:
            raise UserError(
                f"{root} has split folders ({quoted(nested)}) and other folders with images beside "
                f"them: {quoted(others)}.",
                "Put the class folders of the training images below a folder 'train', or move the "
                "split folders away.",
            )
        _check_are_classes(root, holding)
        return {}  # a folder called 'train' is a class here
    splits: dict[SplitName, Path] = {}
    for path in named:
        split = split_of[path]
        other = splits.setdefault(split, path)
        if other != path:
            raise UserError(
                f"{root} has two folders for one split: '{other.name}' and '{path.name}'.",
                "Remove or rename one of them.",
            )
    if splits and "train" not in splits:
        there = next(iter(splits.values()))
        raise UserError(
            f"{root} has a folder '{there.name}' and no 'train' folder with images.",
            f"Add one; or give folder:{there}, which is then split 70/15/15.",
        )
    return {split: _unwrapped(path, split) for split, path in splits.items()}


def _splits_among(folders: Sequence[Path]) -> dict[Path, SplitName]:
    """Return the folders that are named after splits: each by itself, or all of them by one word in
    names that are otherwise the same, as in 'flowers_train' and 'flowers_test'."""
    alone = {path: split for path in folders if (split := _split_of(path)) is not None}
    affixed: dict[Path, SplitName] = {}
    rests = set()
    for path in folders:
        words = _words(path.name)
        found = [word for word in words if word in _SPLIT_WORDS]
        if len(found) == 1:
            affixed[path] = _SPLIT_WORDS[found[0]]
            rests.add(tuple(word for word in words if word not in found))
    splits = set(affixed.values())
    is_whole = len(affixed) == len(folders) == len(splits) > 1
    return affixed if is_whole and len(rests) == 1 and "train" in splits else alone


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: 'leftImg8bit' is left, img and bit."""
    return [w.casefold() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _split_of(folder: Path) -> SplitName | None:
    """Return the split that a folder is named after, None if it is named after none."""
    words = [w for w in re.split(r"[^a-z]+", folder.name.casefold()) if w not in _AROUND_SPLITS]
    joined = re.sub(r"(set|data)$", "", "".join(words))
    return _SPLIT_WORDS.get(joined)


def _unwrapped(folder: Path, split: SplitName) -> Path:
    """Return the split's folder inside one of the same name, as in seg_train/seg_train/CLASS."""
    inside = [path for path in _folders_in(folder) if _may_hold_images(path)]
    if len(inside) == 1 and _split_of(inside[0]) == split:
        return _unwrapped(inside[0], split)
    return folder


def _check_are_classes(root: Path, folders: Sequence[Path]) -> None:
    """Raise UserError if folders that would be taken for classes hold splits or classes themselves,
    or are images beside their masks."""
    inside = {
        path.name: {p.name for p in _folders_in(path) if _may_hold_images(p)} for path in folders
    }
    for name, names in inside.items():
        splits = {split for n in names if (split := _split_of(Path(n))) is not None}
        if "train" in splits and len(splits) > 1:
            raise UserError(
                f"{root / name} holds split folders ({quoted(names)}), and would be taken for a "
                "class.",
                f"Give the folder that holds the data: folder:{root / name}.",
            )
    most = max(inside.values(), key=len, default=set())
    if (
        len(inside) > 1
        and len(most) > 1
        and all(names and names <= most for names in inside.values())
    ):
        raise UserError(
            f"Every folder of {root} ({quoted(inside)}) holds the same sub-folders "
            f"({quoted(most)}) or some of them: those are the classes, not these.",
            f"Give one of them, such as folder:{root / next(iter(inside))}, or rename them to "
            "'train' and 'test'.",
        )
    for name, names in inside.items():
        if _split_of(Path(name)) is None:
            continue
        alike = [n for n, other in inside.items() if n != name and len(names & other) > 1]
        if alike:
            raise UserError(
                f"{root / name} is named after a split and shares sub-folders with "
                f"{quoted(alike)}, so that these are no classes.",
                "Every split needs the same class folders; name the splits 'train' and 'test'.",
            )
    for name, names in inside.items():
        if beside := [n for n in names if set(_words(n)) & _MASKS]:
            raise UserError(
                f"{root / name} holds images and their masks or labels ({quoted(beside)}), which "
                "would be taken for images of the class.",
                f"Move {quoted(beside)} away.",
            )
    words = {name: {*_words(name), "".join(_words(name))} for name in inside}
    masks = {name for name in inside if words[name] & _MASKS}
    if masks and any(words[name] & _IMAGES for name in inside.keys() - masks):
        raise UserError(
            f"{root} holds images beside their masks or labels ({quoted(inside)}), not classes.",
            f"{LAYOUT_HINT} If these are classes, rename {quoted(masks)}.",
        )


def _add_classes(root: Path, split: SplitName | None, found: Scan) -> None:
    """Add the files of a folder's class folders; raise UserError if it has another layout."""
    folders = sorted(_folders_in(root), key=lambda path: natural_key(path.name))
    if split is not None:
        _check_are_classes(root, folders)
    images: dict[str, list[ImageFile]] = {}
    for path in folders:
        inside, others = _divided(_files_below(path))
        _check_no_masks(inside)
        name = class_name(path.name)
        images.setdefault(name, []).extend(ImageFile(p, name, split) for p in inside)
        found.others.extend(others)
    loose, others = _divided(
        path for path in root.iterdir() if _is_visible(path.name) and not path.is_dir()
    )
    found.others.extend(others)
    if not any(images.values()):
        if loose:
            raise UserError(
                f"The images lie directly in {root}, for instance {loose[0].name}, not in class "
                "folders.",
                LAYOUT_HINT,
            )
        raise UserError(f"No images found in {root}, expected PATH/class/*.jpg.", LAYOUT_HINT)
    if loose:
        raise UserError(
            f"{root} has class folders and images beside them, for instance {loose[0].name}.",
            "Move these images into class folders, or away.",
        )
    empty = [name for name, inside in images.items() if not inside]
    if empty:
        raise UserError(
            f"No images in the class folder{'s' if len(empty) > 1 else ''} {quoted(empty)} "
            f"of {root} (0 images).",
            "Put images there, or remove the folder.",
        )
    found.images.extend(image for inside in images.values() for image in inside)


def _check_no_masks(images: Sequence[Path]) -> None:
    """Raise UserError for masks beside their images, such as 3_mask.png beside 3.jpg."""
    stems = {path.with_suffix("") for path in images}
    masks = [
        path
        for path in images
        if (found := _MASK_OF.fullmatch(path.stem)) and path.with_name(found[1]) in stems
    ]
    if masks:
        raise UserError(
            f"{number_of(len(masks), 'file')} named like masks of the images beside them: "
            f"{first_of([str(path) for path in masks], 3)}.",
            "Move them away; they would be taken for images of the class.",
        )


def class_name(folder: str) -> str:
    """Return a folder's name as a class name: in composed form, as macOS writes 'é' as two
    characters, and both spellings are one name; bytes that are not UTF-8 and control characters
    are escaped."""
    text = os.fsencode(folder).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else repr(c)[1:-1] for c in unicodedata.normalize("NFC", text)
    )


def _divided(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that are images, by suffix or by content, and the others."""
    files = list(files)
    with ThreadPoolExecutor(min(16, cores())) as pool:
        are_images = list(
            pool.map(lambda p: p.suffix.casefold() in _SUFFIXES or is_image(p), files)
        )
    images = [path for path, is_one in zip(files, are_images, strict=True) if is_one]
    others = [path for path, is_one in zip(files, are_images, strict=True) if not is_one]
    return images, others


def others_remark(others: Sequence[Path]) -> str:
    """Return a sentence about files that are no images."""
    kinds = Counter(path.suffix.casefold() or "no suffix" for path in others)
    each = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
    return (
        f"{len(others):,} {'file' if len(others) == 1 else 'files'} left out, as no image is in "
        f"{'it' if len(others) == 1 else 'them'} "
        f"({each}): {first_of([str(path) for path in others], 3)}"
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder; links are followed, each folder is visited once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_visible(name))
        yield from (Path(here, name) for name in sorted(files) if _is_visible(name))


def _raise(error: OSError) -> None:
    raise error


def _may_hold_images(folder: Path) -> bool:
    """Return True if a folder has a file that could be an image: by its suffix, or by its content
    if it has a suffix that says nothing."""
    return any(
        path.suffix.casefold() in _SUFFIXES or (is_regular(path) and is_image(path))
        for path in _files_below(folder)
    )


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and _LITTER.fullmatch(name.casefold()) is None


def _folders_in(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _is_visible(path.name) and path.is_dir()]
