"""The data set ``rvl_cdip``: pages in the official layout of RVL-CDIP, scanned or generated.

``PATH/images/…`` holds the pages, and ``PATH/labels/{train,val,test}.txt`` a line ``path label``
for each page.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from bench.data.decode import load_rgb, quiet_pillow, squashed
from bench.data.model import (
    SPLITS,
    Dataset,
    Resize,
    SplitName,
    SplitSizes,
    UnreadableImageError,
)
from bench.data.packing import unreadable_error
from bench.data.sampling import balanced_order, check_sizes, settled_size, size_of_split
from bench.data.synthetic_pages import PAGE_CLASSES, generated_pages
from bench.data.threads import in_threads
from bench.errors import UserError
from bench.storage.checksums import sha256_of_file, sha256_of_texts

RVL_CDIP_REVISION = 1
"""Part of the content hash: increase it when subsets or decoding change."""
RVL_CDIP_DEFAULTS = SplitSizes(train=800, val=160, test=1040)
_LAYOUT_HINT = (
    "Expected PATH/images/… and PATH/labels/train.txt, val.txt and test.txt with lines "
    "'imagesq/q/o/c/qoc54c00/80035521.tif 15'."
)


@dataclass(frozen=True)
class _Line:
    """A line of a label file."""

    relative: str
    """Path of the page below ``images``."""
    label: int
    """Class index, 0 to 15."""
    where: str
    """Place of the line in messages: 'FILE, line N'."""


@dataclass(frozen=True)
class _Page:
    """A page of the chosen subset."""

    line: _Line
    path: Path
    sha256: str


def open_rvl_cdip(path: str, sizes: SplitSizes, *, skip_unreadable: bool = False) -> Dataset:
    """Open a folder in RVL-CDIP's layout; only the pages of the subsets are read.

    Args:
        path: Path as the user typed it; ``~`` is expanded.
        sizes: Requested sizes. Subsets are balanced, and a smaller one is part of a larger one.
        skip_unreadable: Decode the pages of the subsets now and replace unreadable ones.

    Raises:
        UserError: The layout, a label line or a page is not as expected, or there are fewer pages
            than requested.
    """
    root = Path(os.path.abspath(os.path.expanduser(path)))
    name = f"rvl_cdip:{root.name or 'root'}"
    return _open(root, name, name, sizes, skip_unreadable)


def open_synthetic_rvl_cdip(sizes: SplitSizes, cache_dir: Path) -> Dataset:
    """Open the generated pages, which are generated now if they are not in the cache.

    Raises:
        UserError: More pages are requested than are generated, or the cache cannot be written.
    """
    check_sizes(sizes)
    root = generated_pages(cache_dir)
    label = "rvl_cdip (synthetic pages)"
    return _open(root, "rvl_cdip", label, sizes, skip_unreadable=False)


@dataclass(frozen=True)
class _Pages:
    """Page files in the order of the subset."""

    pages: dict[SplitName, list[_Page]]

    def labels(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the class indices, shape (N,)."""
        return np.array([page.line.label for page in self.pages[split]], dtype=np.int64)

    def read(
        self, split: SplitName, index: int, px: int, resize: Resize = "antialias"
    ) -> npt.NDArray[np.uint8]:
        """Return one whole page, squashed to a square, as RGB, shape (px, px, 3)."""
        return squashed(load_rgb(self.pages[split][index].path), px, resize)

    def where(self, split: SplitName, index: int) -> str:
        """Return the page's file."""
        return str(self.pages[split][index].path)


def _open(
    root: Path,
    name: str,
    label: str,
    sizes: SplitSizes,
    skip_unreadable: bool,
) -> Dataset:
    check_sizes(sizes)
    _check_layout(root)
    lines = {split: _read_lines(root / "labels" / f"{split}.txt") for split in SPLITS}
    _check_disjoint(lines)
    pages: dict[SplitName, list[_Page]] = {}
    skipped: list[str] = []
    for split in SPLITS:
        requested, default = size_of_split(sizes, split), size_of_split(RVL_CDIP_DEFAULTS, split)
        count = settled_size(name, split, requested, default, len(lines[split]))
        pages[split], failures = _choose(root, lines[split], count, skip_unreadable)
        skipped += failures
        settled_size(
            f"{name} (unreadable pages left out)", split, requested, None, len(pages[split])
        )
    return Dataset(
        name=name,
        content_hash=_content_hash(pages),
        classes=PAGE_CLASSES,
        train_images=len(pages["train"]),
        val_images=len(pages["val"]),
        test_images=len(pages["test"]),
        similarity="not_similar",
        size_bounds=None,
        label=label,
        source=_Pages(pages),
        skipped=tuple(skipped),
    )


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}.", _LAYOUT_HINT)
    if not (root / "images").is_dir():
        raise UserError(f"{root} has no folder 'images'.", _LAYOUT_HINT)


def _read_lines(path: Path) -> list[_Line]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", _LAYOUT_HINT) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file.", _LAYOUT_HINT) from error
    lines = [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise UserError(f"{path} names no pages.", _LAYOUT_HINT)
    return lines


def _parse(text: str, where: str) -> _Line:
    relative, _, label = text.strip().rpartition(" ")
    relative = relative.strip()
    if not relative or not (label.isascii() and label.isdigit()):
        raise UserError(f"{where}: '{text.strip()}' is not of the form 'path label'.", _LAYOUT_HINT)
    if int(label) >= len(PAGE_CLASSES):
        raise UserError(f"{where}: the label {label} is not in 0 to {len(PAGE_CLASSES) - 1}.")
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts:
        raise UserError(f"{where}: '{relative}' leads out of the folder 'images'.")
    return _Line(relative, int(label), where)


def _check_disjoint(lines: dict[SplitName, list[_Line]]) -> None:
    first: dict[str, tuple[SplitName, _Line]] = {}
    for split in SPLITS:
        for line in lines[split]:
            other_split, other = first.setdefault(line.relative, (split, line))
            if other_split != split:
                raise UserError(
                    f"The page {line.relative} is in two splits: {other.where} and {line.where}.",
                    "Remove one of the two lines.",
                )


def _choose(
    root: Path, lines: list[_Line], count: int, skip_unreadable: bool
) -> tuple[list[_Page], list[str]]:
    """Return the first ``count`` pages of the balanced order, and 'FILE: reason' for each skipped.

    Raises:
        UserError: A page is missing or unreadable and ``skip_unreadable`` is False, or no page
            can be read.
    """
    keys = [sha256_of_texts([line.relative, str(line.label)]) for line in lines]
    order = [lines[p] for p in balanced_order([line.label for line in lines], keys)]
    pages: list[_Page] = []
    failures: list[str] = []
    position = 0
    while len(pages) < count and position < len(order):
        batch = order[position : position + count - len(pages)]
        position += len(batch)
        for result in _read_pages(root, batch, decode=skip_unreadable):
            if isinstance(result, _Page):
                pages.append(result)
            else:
                failures.append(result)
        if failures and not skip_unreadable:
            raise unreadable_error(failures)
    if not pages:
        raise unreadable_error(failures)
    return pages, failures


def _read_pages(root: Path, lines: list[_Line], *, decode: bool) -> list[_Page | str]:
    """Hash pages; return 'FILE (LABEL FILE, line N): reason' in place of an unreadable page."""

    def read(line: _Line) -> _Page | str:
        path = root / "images" / line.relative
        try:
            if decode:
                load_rgb(path)
            return _Page(line, path, sha256_of_file(path))
        except UnreadableImageError as error:
            return f"{path} ({line.where}): {error}"
        except OSError as error:
            return f"{path} ({line.where}): {error.strerror}"

    with quiet_pillow():
        return in_threads(read, lines)


def _content_hash(pages: dict[SplitName, list[_Page]]) -> str:
    parts = [f"rvl_cdip {RVL_CDIP_REVISION}"]
    for split in SPLITS:
        for page in pages[split]:
            parts += [split, str(page.line.label), page.sha256]
    return sha256_of_texts(parts)
