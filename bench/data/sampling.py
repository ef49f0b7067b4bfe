"""Sizes of splits, and deterministic orders of images whose every prefix is balanced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from bench.data.model import SplitName
from bench.errors import UserError


def settled_size(
    name: str, split: SplitName, requested: int | None, available: int, default: int | None = None
) -> int:
    """Return the number of images that a split of the data set ``name`` gets: those requested, else
    ``default``, or all available ones if these are fewer or there is no default; raise UserError if
    there are fewer than requested."""
    if requested is None:
        return available if default is None else min(default, available)
    if requested > available:
        raise UserError(
            f"{requested} {split} images were requested; {name} has {available}.",
            f"Ask for {available} or fewer.",
        )
    return requested


def balanced_order(labels: Sequence[int], keys: Sequence[str]) -> list[int]:
    """Return an order of the images, as positions in ``labels``, whose every prefix has the classes
    as equal as possible.

    Args:
        labels: Class index of each image.
        keys: Sort key of each image within its class; must not depend on where the files are.
    """
    return [position for _, _, position in sorted(_ranked(labels, keys))]


def proportional_order(labels: Sequence[int], keys: Sequence[str]) -> list[int]:
    """Return an order of the images whose every prefix has the classes in their proportions.

    One image of each class comes first, so that a small subset still has every class.
    Arguments and result are those of ``balanced_order``.
    """
    counts = Counter(labels)

    def place(ranked: tuple[int, int, int]) -> tuple[float, int]:
        rank, label, _ = ranked
        return (-1.0 if rank == 0 else (rank + 0.5) / counts[label], label)

    return [position for _, _, position in sorted(_ranked(labels, keys), key=place)]


def _ranked(labels: Sequence[int], keys: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return (rank within its class, class, position) for each image."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=lambda p: keys[p]):
        by_class[labels[position]].append(position)
    return [
        (rank, label, position)
        for label, positions in by_class.items()
        for rank, position in enumerate(positions)
    ]
