"""The data set ``folder:PATH``: a user's folder of images, with the classes as sub-folders."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bench.data.decode import centre_square
from bench.data.duplicates import without_conflicts
from bench.data.folder_layout import LAYOUT_HINT, natural_key, others_remark, quoted, scan
from bench.data.image_files import FileSource, ImageFile, Splits, first_of, read_files
from bench.data.model import SPLITS, Dataset, FileRules, SplitName, SplitSizes
from bench.data.sampling import proportional_order, settled_size
from bench.errors import UserError
from bench.spec.run import Fold
from bench.storage.checksums import sha256_of_texts

LEAST_FOLDS = 3
"""Fewest images of a class that can be cross-validated: one is the test, one the validation."""
MOST_LETTERS = 500
"""Longest regular expression of ``--group-by``."""
HELD_OUT = 0.15
"""Share of the distinct images of a class for each of validation and test, if not given."""


def open_folder(name: str, root: Path, sizes: SplitSizes, rules: FileRules) -> Dataset:
    """Open a folder of images, see ``open_dataset``; every file is hashed. Subsets keep the
    proportions of the classes."""
    found = scan(root)
    classes = _class_names(found.images, root)
    read, skipped = read_files(found.images, rules)
    if rules.group_by is not None:
        read = grouped_files(read, rules.group_by, root)
    images, remarks = without_conflicts(read, drop=rules.drop_duplicates)
    if rules.group_by is not None:
        remarks.append(_about_groups(images))
    _check_none_lost(found.images, images)
    if found.others:
        remarks.append(others_remark(found.others))
    index = {class_name: label for label, class_name in enumerate(classes)}
    splits = _split(images, classes, rules, remarks, root)
    chosen: Splits = {}
    hashed_texts = ["folder 1", *classes]  # the 1 stays, so that stored results keep their hashes
    hashed_texts += [f"group by {rules.group_by}"] if rules.group_by is not None else []
    fold = None
    if rules.fold is not None:
        number, count = rules.fold
        everything = sorted(f"{i.class_name}/{i.sha256}/{i.group}" for i in images)
        fold = Fold(number=number, of=count, images_sha256=sha256_of_texts(everything))
        hashed_texts.append(f"fold {number} of {count}")
    for split in SPLITS:
        available = splits[split]
        count = settled_size(name, split, sizes.of(split), len(available))
        order = proportional_order(
            [index[image.class_name] for image in available], [image.sha256 for image in available]
        )
        chosen[split] = [available[position] for position in order[:count]]
        for image in chosen[split]:
            hashed_texts += [split, image.class_name, image.sha256]
    source = FileSource(classes, chosen, centre_square, rules.max_pixels)
    return source.dataset(name, hashed_texts, skipped, remarks, fold)


def _class_names(found: list[ImageFile], root: Path) -> tuple[str, ...]:
    """Return the names of the classes in natural order; raise UserError if there is only one, or if
    the splits have different ones."""
    names = {image.class_name for image in found}
    for split in SPLITS:
        in_split = {image.class_name for image in found if image.split == split}
        if in_split and names - in_split:
            raise UserError(
                f"The splits of {root} have different classes: '{split}' has no "
                f"{quoted(names - in_split)}.",
                "Every split needs the same class folders, with an image in each.",
            )
    if len(names) < 2:
        parts = [image.path.relative_to(root).parts for image in found if image.split is None]
        below = {part[1] for part in parts if len(part) > 2}
        hint = LAYOUT_HINT
        if len(below) > 1:
            hint = f"If {quoted(below)} are the classes, give folder:{root / parts[0][0]}."
        raise UserError(f"{root} has only the class '{min(names)}'; at least two are needed.", hint)
    return tuple(sorted(names, key=natural_key))


def _check_none_lost(found: list[ImageFile], readable: list[ImageFile]) -> None:
    """Raise UserError if leaving out files left a class without images in a split."""
    kept = {(image.split, image.class_name) for image in readable}
    lost = {
        f"'{image.class_name}'" + (f" in '{image.split}'" if image.split else "")
        for image in found
        if (image.split, image.class_name) not in kept
    }
    if lost:
        what = (
            "The class"
            if len(lost) == 1
            else f"{len(lost)} classes have 0 images that can be used:"
        )
        end = " has 0 images that can be used" if len(lost) == 1 else ""
        raise UserError(
            f"{what} {first_of(sorted(lost))}{end}.",
            "Add images, or remove what has none.",
        )


def _split(
    images: list[ImageFile], classes: tuple[str, ...], rules: FileRules, remarks: list[str],
    root: Path,
) -> Splits:  # fmt: skip
    """Return the images of each split: the user's splits, or 70/15/15 % of each class. Add a
    sentence to ``remarks`` where a split was made from another one."""
    given: Splits = {split: [i for i in images if i.split == split] for split in SPLITS}
    if not any(given.values()):
        if rules.test_from is not None:
            raise UserError(
                f"--test-from: {root} has no split folders, and 15 % of each class are kept for "
                "the test anyway.",
                "Leave it out.",
            )
        if rules.fold is not None:
            return _fold(images, classes, *rules.fold)
        return _carve(images, classes, {"val": HELD_OUT, "test": HELD_OUT})
    if rules.fold is not None:
        raise UserError(
            f"--folds: {root} has split folders of its own.",
            "Put all images into class folders without train, val and test, or leave out --folds.",
        )
    if not given["test"]:
        given |= _test_split(given, classes, rules, remarks, root)
    elif rules.test_from is not None:
        raise UserError(f"--test-from: {root} has test images of its own.", "Leave it out.")
    if not given["val"]:
        given |= _carve(given["train"], classes, {"val": HELD_OUT})
        remarks.append(f"validation images: {HELD_OUT:.0%} of the training images of each class")
    return given


def _test_split(
    given: Splits, classes: tuple[str, ...], rules: FileRules, remarks: list[str], root: Path
) -> Splits:
    """Return the splits that change where the test images come from another split."""
    if rules.test_from is None:
        from_val = "--test-from val takes the validation images as the test, or "
        raise UserError(
            f"{root} has no test images.",
            f"{from_val if given['val'] else ''}--test-from train:15% keeps 15 % of each class of "
            "the training images for it.",
        )
    source, share = rules.test_from
    if not given[source]:
        raise UserError(f"--test-from {source}: {root} has no {source} images.")
    if share == 1.0:
        remarks.append(f"test images: those of the split '{source}' (--test-from {source})")
        return {source: [], "test": given[source]}
    divided = _carve(given[source], classes, {"test": share})
    remarks.append(f"test images: {share:.0%} of each class of the split '{source}' (--test-from)")
    return {source: divided["train"], "test": divided["test"]}


def _carve(
    images: list[ImageFile], classes: tuple[str, ...], shares: dict[SplitName, float]
) -> Splits:
    """Take these shares of each class for other splits; the rest is for training. Identical files,
    and files that belong together, count as one image, so that they stay in one split. Raise
    UserError if classes have too few distinct images for one in each split."""
    units = _units(images, classes)
    needed = len(shares) + 1
    what = f"as many as are needed for {', '.join(('train', *shares))}"
    _check_enough(units, needed, what, "Add images to them, or remove the classes.")
    split_of: dict[str, SplitName] = {}
    for found in units.values():
        first = 0
        for split, share in shares.items():
            last = min(first + max(1, round(share * len(found))), len(found) - 1)
            split_of |= dict.fromkeys(found[first:last], split)
            first = last
    return {
        split: [image for image in images if split_of.get(image.unit, "train") == split]
        for split in SPLITS
        if split == "train" or split in shares
    }


def _units(images: list[ImageFile], classes: tuple[str, ...]) -> dict[str, list[str]]:
    """Return class → its units in an order that does not depend on names. A unit with images of
    several classes counts for the first of them."""
    found: dict[str, set[str]] = {name: set() for name in classes}
    for image in images:
        found[image.class_name].add(image.unit)
    taken: set[str] = set()
    for name, own in found.items():
        found[name] = own - taken
        taken |= own
    return {name: sorted(units) for name, units in found.items()}


def _check_enough(units: dict[str, list[str]], needed: int, what: str, hint: str) -> None:
    """Raise UserError if a class has fewer units than needed."""
    small = [f"'{name}' ({len(found)})" for name, found in units.items() if len(found) < needed]
    if small:
        has = "class has" if len(small) == 1 else "classes have"
        raise UserError(
            f"{len(small)} {has} fewer than {needed} distinct images, {what}: {first_of(small)}.",
            hint,
        )


def _fold(images: list[ImageFile], classes: tuple[str, ...], number: int, count: int) -> Splits:
    """Return the splits of one fold: every ``count``-th unit of each class is the test, and the
    rest is divided into training and validation images. Raise UserError if a class has too few."""
    units = _units(images, classes)
    fewest = min(map(len, units.values()))
    hint = "Add images to them, or remove the classes."
    if fewest >= LEAST_FOLDS:
        hint = f"Use --folds {fewest}, add images to them, or remove the classes."
    _check_enough(units, count, f"as many as there are folds ({count})", hint)
    test, place = set(), 0
    for found in units.values():
        # The next class goes on where the last one ended, so that the folds are equally large.
        test |= {unit for n, unit in enumerate(found, place) if n % count == number - 1}
        place += len(found)
    rest = [image for image in images if image.unit not in test]
    divided = _carve(rest, classes, {"val": HELD_OUT})
    return {**divided, "test": [image for image in images if image.unit in test]}


def grouped_files(images: list[ImageFile], pattern: str, root: Path) -> list[ImageFile]:
    """Return the files with the group of each: files belong together if ``pattern`` finds the same
    text in their paths below ``root``, or if they are identical. Raise UserError if the pattern
    matches no file."""
    if not pattern.isprintable() or len(pattern) > MOST_LETTERS:
        raise UserError(
            f"--group-by: an expression has at most {MOST_LETTERS} characters, all printable."
        )
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-by '{pattern}' is no regular expression: {error}.") from error
    texts = []
    for image in images:
        match = expression.search(image.path.relative_to(root).as_posix())
        texts.append(None if match is None else match[1 if expression.groups else 0])
    if not any(texts):
        example = images[0].path.relative_to(root).as_posix()
        raise UserError(
            f"--group-by '{pattern}' matches no file below {root}, such as '{example}'.",
            "It is a regular expression for such a path; its first group names what images share.",
        )
    # Identical files must not be divided either: they join the group of the first that has one.
    named: dict[str, str] = {}
    for image, text in zip(images, texts, strict=True):
        if text:
            named.setdefault(image.sha256, text)
    return [
        replace(image, group=sha256_of_texts(["group", name]) if name else "")
        for image in images
        for name in [named.get(image.sha256)]
    ]


def _about_groups(images: list[ImageFile]) -> str:
    """Return a sentence on how many images belong together."""
    groups = [image.group for image in images if image.group]
    alone = len(images) - len(groups)
    text = f"--group-by: {len(set(groups)):,} groups of {len(groups):,} images"
    return text + (f"; {alone:,} files do not match, and each counts by itself" if alone else "")
