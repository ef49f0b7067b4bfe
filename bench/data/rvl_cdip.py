"""The data set ``rvl_cdip``: pages in the official layout of RVL-CDIP, scanned or generated.

``PATH/images/…`` holds the pages, and ``PATH/labels/{train,val,test}.txt`` a line ``path label``
for each page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.data.decode import squashed
from bench.data.duplicates import without_conflicts
from bench.data.image_files import FileSource, ImageFile, Splits, read_files, unreadable_error
from bench.data.model import SPLITS, Dataset, FileRules, SplitName, SplitSizes
from bench.data.sampling import balanced_order, settled_size
from bench.data.synthetic_pages import PAGE_CLASSES
from bench.errors import UserError
from bench.storage.checksums import sha256_of_texts
from bench.storage.regular_files import decoded, read_regular

_SIZES: dict[SplitName, int] = {"train": 800, "val": 160, "test": 1040}
"""Images in each split, if no other number is requested and there are as many."""
MOST_LETTERS, MOST_DIGITS = 80, 9
"""Letters of a wrong line that a message repeats; digits of a label, which may have leading zeros.
"""
_LAYOUT_HINT = (
    "Expected PATH/images/… and PATH/labels/train.txt, val.txt and test.txt with lines "
    "'imagesq/q/o/c/qoc54c00/80035521.tif 15'."
)


class _Line(NamedTuple):
    """A line of a label file. Files of pages are not looked at before they are chosen, because
    there are 400,000."""

    relative: str
    """Path of the page below ``images``."""
    label: int
    split: SplitName
    where: str
    """Place of the line in messages: 'FILE, line N'."""


def open_pages(name: str, root: Path, sizes: SplitSizes, rules: FileRules) -> Dataset:
    """Open a folder in RVL-CDIP's layout, see ``open_dataset``; only the pages of the subsets are
    read. Subsets are balanced, and unreadable pages are replaced if
    ``rules.skip_unreadable`` is True."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}.", _LAYOUT_HINT)
    if not (root / "images").is_dir():
        raise UserError(f"{root} has no folder 'images'.", _LAYOUT_HINT)
    lines = {split: _read_lines(root, split) for split in SPLITS}
    _check_disjoint(chain.from_iterable(lines.values()))
    pages: Splits = {}
    skipped: list[str] = []
    hashed_texts = ["rvl_cdip 1"]  # the 1 stays, so that stored results keep their hashes
    for split in SPLITS:
        requested, available = sizes.of(split), len(lines[split])
        count = settled_size(name, split, requested, available, _SIZES[split])
        pages[split], failures = _choose(root, lines[split], count, rules)
        skipped += failures
        settled_size(f"{name} (unreadable pages left out)", split, requested, len(pages[split]))
    chosen = [page for split in SPLITS for page in pages[split]]
    kept, remarks = without_conflicts(chosen, drop=rules.drop_duplicates)
    for split in SPLITS:
        pages[split] = [page for page in kept if page.split == split]
        what = f"{name} (duplicates left out)"
        settled_size(what, split, sizes.of(split), len(pages[split]))
        if not pages[split]:
            raise UserError(f"{name}: no {split} page is left without duplicates.")
        for page in pages[split]:
            hashed_texts += [split, str(PAGE_CLASSES.index(page.class_name)), page.sha256]
    source = FileSource(PAGE_CLASSES, pages, squashed, rules.max_pixels)
    return source.dataset(name, hashed_texts, skipped, remarks)


def _read_lines(root: Path, split: SplitName) -> list[_Line]:
    """Read the label file of a split; raise UserError if a line is not as expected."""
    path = root / "labels" / f"{split}.txt"
    try:
        text = decoded(read_regular(path))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", _LAYOUT_HINT) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file.", _LAYOUT_HINT) from error
    lines: list[_Line] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line:
            continue
        where = f"{path}, line {number}"
        relative, _, label = line.rpartition(" ")
        relative = relative.strip()
        if not relative or "\0" in relative or not (label.isascii() and label.isdigit()):
            shown = line[:MOST_LETTERS]
            raise UserError(f"{where}: '{shown}' is not of the form 'path label'.", _LAYOUT_HINT)
        if len(label) > MOST_DIGITS or int(label) >= len(PAGE_CLASSES):
            shown = label[:MOST_LETTERS]
            raise UserError(f"{where}: the label {shown} is not in 0 to {len(PAGE_CLASSES) - 1}.")
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts:
            raise UserError(f"{where}: '{relative}' leads out of the folder 'images'.")
        lines.append(_Line(relative, int(label), split, where))
    if not lines:
        raise UserError(f"{path} names no pages.", _LAYOUT_HINT)
    return lines


def _check_disjoint(lines: Iterable[_Line]) -> None:
    """Raise UserError if a page is listed in two splits, or with two labels."""
    first: dict[str, _Line] = {}
    for line in lines:
        other = first.setdefault(unicodedata.normalize("NFC", line.relative), line)
        if other.split != line.split:
            raise UserError(
                f"The page {line.relative} is in two splits: {other.where} and {line.where}.",
                "Remove one of the two lines.",
            )
        if other.label != line.label:
            raise UserError(
                f"The page {line.relative} has two labels: {other.label} in {other.where} and "
                f"{line.label} in {line.where}.",
                "Remove one of the two lines.",
            )


def _page_path(root: Path, relative: str) -> Path:
    """Return the path of a page. Label files may write a name in composed characters and the disk
    in decomposed ones, or the other way around."""
    spellings = (relative, *(unicodedata.normalize(form, relative) for form in ("NFC", "NFD")))
    paths = [root / "images" / spelling for spelling in spellings]
    return next((path for path in paths if path.exists()), paths[0])


def _choose(
    root: Path, lines: list[_Line], count: int, rules: FileRules
) -> tuple[list[ImageFile], list[str]]:
    """Return the first ``count`` pages of the balanced order, and 'FILE: reason' for each skipped;
    raise UserError if a page cannot be read and ``rules.skip_unreadable`` is False, or if none can.
    """
    keys = [sha256_of_texts([line.relative, str(line.label)]) for line in lines]
    order = balanced_order([line.label for line in lines], keys)
    pages: list[ImageFile] = []
    skipped: list[str] = []
    while len(pages) < count and order:
        missing = count - len(pages)
        batch, order = [lines[position] for position in order[:missing]], order[missing:]
        files = [
            ImageFile(_page_path(root, relative), PAGE_CLASSES[label], split, where)
            for relative, label, split, where in batch
        ]
        readable, failures = read_files(files, rules)
        pages += readable
        skipped += failures
    if not pages:
        raise unreadable_error(skipped)
    return pages, skipped
