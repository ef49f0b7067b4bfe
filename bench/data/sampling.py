"""Deterministic choices: orders whose every prefix is balanced, and the sizes of splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.data.model import SPLITS, SplitName, SplitSizes
from bench.errors import UserError


def check_sizes(sizes: SplitSizes) -> None:
    """Check that each number asked for is at least one.

    Raises:
        UserError: Naming the split and the number.
    """
    for split in SPLITS:
        asked = asked_for(sizes, split)
        if asked is not None and asked < 1:
            raise UserError(f"{asked} {split} images were asked for; at least 1 is needed.")


def asked_for(sizes: SplitSizes, split: SplitName) -> int | None:
    """Return the number of images asked for in one split."""
    return {"train": sizes.train, "val": sizes.val, "test": sizes.test}[split]


def settle(name: str, split: SplitName, asked: int | None, default: int | None, there: int) -> int:
    """Return how many images a split gets.

    Args:
        name: The data set, for the message.
        split: The split, for the message.
        asked: What the user asked for; None: the default.
        default: Taken when nothing was asked for, or all if there are fewer; None: all.
        there: How many there are.

    Raises:
        UserError: If more was asked for than there is.
    """
    if asked is None:
        return there if default is None else min(default, there)
    if asked > there:
        raise UserError(
            f"{asked} {split} images were asked for; {name} has {there}.",
            f"Ask for {there} or fewer.",
        )
    return asked


def balanced_order(labels: Sequence[int], keys: Sequence[str]) -> list[int]:
    """Return positions such that every prefix holds as many of each class as can be.

    Args:
        labels: Class index of each image.
        keys: What orders the images of one class; must not depend on where the data lie.
    """
    return [position for _, _, position in sorted(_ranked(labels, keys))]


def proportional_order(labels: Sequence[int], keys: Sequence[str]) -> list[int]:
    """Return positions such that every prefix has the classes in their overall proportions.

    One image of each class comes first, so that a small subset still knows every class.
    Arguments as for ``balanced_order``.
    """
    counts: dict[int, int] = defaultdict(int)
    for label in labels:
        counts[label] += 1

    def place(ranked: tuple[int, int, int]) -> tuple[float, int]:
        rank, label, _ = ranked
        return (-1.0 if rank == 0 else (rank + 0.5) / counts[label], label)

    return [position for _, _, position in sorted(_ranked(labels, keys), key=place)]


def _ranked(labels: Sequence[int], keys: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return (rank within the class, class, position) of each image."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(labels)), key=lambda p: keys[p]):
        by_class[labels[position]].append(position)
    return [
        (rank, label, position)
        for label, positions in by_class.items()
        for rank, position in enumerate(positions)
    ]
