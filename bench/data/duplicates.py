"""Images that are in a data set twice: under two labels, or for training and for the test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.data.image_files import ImageFile
from bench.data.model import SPLITS
from bench.errors import UserError

HINT = "Remove them, or leave them out with --drop-duplicates."


def without_conflicts(
    images: Sequence[ImageFile], *, drop: bool
) -> tuple[list[ImageFile], list[str]]:
    """Return the images without those that are in two classes, and without training or validation
    images that are also in a later split.

    Args:
        images: Hashed images.
        drop: True to leave them out; False to raise UserError for all of them at once.

    Returns:
        The rest, and a sentence for each kind that was left out.
    """
    copies: dict[str, list[ImageFile]] = defaultdict(list)
    for image in images:
        copies[image.sha256].append(image)
    labelled_twice = [c for c in copies.values() if len({i.class_name for i in c}) > 1]
    twice = {image.sha256 for same in labelled_twice for image in same}
    split_twice = [c for s, c in copies.items() if s not in twice and len({i.split for i in c}) > 1]
    if not drop:
        said = [
            _conflict(what, groups, place)
            for what, groups, place in (
                ("in two classes", labelled_twice, lambda i: i.class_name),
                ("in two splits, so that the test would be on training images", split_twice,
                 lambda i: str(i.split)),
            )
            if groups
        ]  # fmt: skip
        if said:
            raise UserError("\n".join(said), HINT)
        return list(images), []
    last = {sha256: max(map(_rank, same)) for sha256, same in copies.items()}
    kept = [i for i in images if i.sha256 not in twice and _rank(i) == last[i.sha256]]
    remarks = []
    if labelled_twice:
        files = sum(map(len, labelled_twice))
        remarks.append(f"{files} files left out, as their images are in two classes")
    if split_twice:
        files = len(images) - len(kept) - sum(map(len, labelled_twice))
        remarks.append(f"{files} files left out, as their images are also in a later split")
    return kept, remarks


def _rank(image: ImageFile) -> int:
    return -1 if image.split is None else SPLITS.index(image.split)


def _conflict(
    what: str, groups: Sequence[Sequence[ImageFile]], place: Callable[[ImageFile], str]
) -> str:
    named = ["\n  " + " and ".join(f"{i.path} ({place(i)})" for i in group[:3]) for group in groups]
    count = "1 image is" if len(groups) == 1 else f"{len(groups)} images are"
    more = f"\n  … and {len(groups) - 5} more" if len(groups) > 5 else ""
    return f"{count} {what}:{''.join(named[:5])}{more}"
