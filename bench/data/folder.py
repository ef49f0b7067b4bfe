"""The data set ``folder:PATH``: a user's folder of images, with the classes as sub-folders."""

from __future__ import annotations

from pathlib import Path

from bench.data.decode import centre_square
from bench.data.folder_layout import LAYOUT_HINT, natural_key, quoted, scan
from bench.data.image_files import FileSource, ImageFile, Splits, read_files
from bench.data.model import SPLITS, Dataset, SplitName, SplitSizes
from bench.data.sampling import proportional_order, settled_size
from bench.errors import UserError

_HELD_OUT = 0.15
"""Share of the distinct images of a class for each of validation and test, if not given."""


def open_folder(name: str, root: Path, sizes: SplitSizes, skip_unreadable: bool) -> Dataset:
    """Open a folder of images, see ``open_dataset``; every file is hashed. Subsets keep the
    proportions of the classes."""
    found = scan(root)
    classes = _class_names(found, root)
    images, skipped = read_files(found, skip_unreadable=skip_unreadable)
    _check_none_lost(found, images)
    _check_one_class_each(images)
    index = {class_name: label for label, class_name in enumerate(classes)}
    splits = _split(images, classes)
    chosen: Splits = {}
    hashed_texts = ["folder 1", *classes]  # the 1 stays, so that stored results keep their hashes
    for split in SPLITS:
        available = splits[split]
        count = settled_size(name, split, sizes.of(split), len(available))
        order = proportional_order(
            [index[image.class_name] for image in available], [image.sha256 for image in available]
        )
        chosen[split] = [available[position] for position in order[:count]]
        for image in chosen[split]:
            hashed_texts += [split, image.class_name, image.sha256]
    return FileSource(classes, chosen, centre_square).dataset(name, hashed_texts, skipped)


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
        raise UserError(
            f"{root} has only the class '{min(names)}'; at least two are needed.", LAYOUT_HINT
        )
    return tuple(sorted(names, key=natural_key))


def _check_none_lost(found: list[ImageFile], readable: list[ImageFile]) -> None:
    """Raise UserError if leaving out unreadable files left a class without images in a split."""
    kept = {(image.split, image.class_name) for image in readable}
    for image in found:
        if (image.split, image.class_name) not in kept:
            where = f" in '{image.split}'" if image.split else ""
            raise UserError(
                f"The class '{image.class_name}' has 0 images that can be read{where}.",
                "Add images to it, or remove the class.",
            )


def _check_one_class_each(images: list[ImageFile]) -> None:
    """Raise UserError if the same image is in two classes or in two splits."""
    first: dict[str, ImageFile] = {}
    for image in images:
        other = first.setdefault(image.sha256, image)
        if other.class_name != image.class_name:
            raise UserError(
                f"The same image is in the classes '{other.class_name}' and "
                f"'{image.class_name}': {other.path} and {image.path}.",
                "Remove the wrong one.",
            )
        if other.split != image.split:
            raise UserError(
                f"The same image is in '{other.split}' and in '{image.split}': "
                f"{other.path} and {image.path}.",
                "Test results on training images mean nothing: remove one of the two.",
            )


def _split(images: list[ImageFile], classes: tuple[str, ...]) -> Splits:
    """Return the images of each split: the user's splits, or 70/15/15 % of each class."""
    given: Splits = {split: [i for i in images if i.split == split] for split in SPLITS}
    if not any(given.values()):
        return _carve(images, classes, ("val", "test"))
    if not given["val"]:
        given |= _carve(given["train"], classes, ("val",))
    return given


def _carve(
    images: list[ImageFile], classes: tuple[str, ...], held_out: tuple[SplitName, ...]
) -> Splits:
    """Take 15 % of each class for each of the held-out splits; the rest is for training. Identical
    files count as one image, so that they stay in one split. Raise UserError if a class has too few
    distinct images for one in each split."""
    split_of: dict[str, SplitName] = {}
    for name in classes:
        distinct = sorted({image.sha256 for image in images if image.class_name == name})
        needed = len(held_out) + 1
        if len(distinct) < needed:
            raise UserError(
                f"The class '{name}' has {len(distinct)} distinct image(s); at least {needed} are "
                f"needed for {', '.join(('train', *held_out))}.",
                "Add images to it, or remove the class.",
            )
        share = max(1, round(_HELD_OUT * len(distinct)))
        for position, split in enumerate(held_out):
            for sha256 in distinct[position * share : (position + 1) * share]:
                split_of[sha256] = split
    return {
        split: [image for image in images if split_of.get(image.sha256, "train") == split]
        for split in SPLITS
        if split == "train" or split in held_out
    }
