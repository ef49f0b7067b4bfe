"""The images on which advice rests: training and validation images, divided into folds.

The user's test images are never part of a choice. Where the validation images are the user's own
split, they alone are held out, as they may be apart from the training images on purpose (other
days, other patients). Where Thawbench took them from the same folder, all images are divided into
folds, each held out once, so that more of them say how good a choice is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from bench.data.image_files import FileSource
from bench.data.model import SPLITS, Dataset, Packed, SplitName
from bench.data.resplit import ImagePool, Indices, PoolSource, resplit

FOLDS = 4
"""Number of folds, if every class has so many images."""
SEED = 0
WATCHED_IMAGES = 2
"""Validation images of a trial for each class, on average. A run must have such a split; a trial
shows its accuracy on it after each epoch, and decides nothing by it."""


@dataclass(frozen=True)
class Development:
    """All images that a choice may use."""

    dataset: Dataset
    packed: Packed
    pool: ImagePool
    """Training images, then validation images."""
    fold_of: Indices
    """(N,) number of the fold in which an image is held out, from 0; −1: never."""
    whole_counts: Indices | None = None
    """(classes,) numbers of training and validation images of which the pool is a part; None if it
    has all of them."""

    @property
    def whole_images(self) -> int:
        """Number of training and validation images of which the pool has all or a part."""
        return len(self.pool.labels) if self.whole_counts is None else int(self.whole_counts.sum())

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.fold_of.max()) + 1

    @property
    def held_out(self) -> Indices:
        """Positions of the images that are held out in some fold."""
        return np.flatnonzero(self.fold_of >= 0)

    def fit_images(self, fold: int) -> Indices:
        """Return the positions of the images that a trial in a fold trains on."""
        return np.flatnonzero(self.fold_of != fold)

    def test_images(self, fold: int) -> Indices:
        """Return the positions of the images that are held out in a fold."""
        return np.flatnonzero(self.fold_of == fold)

    def trial_dataset(self, fold: int, train_images: int | None = None) -> Dataset:
        """Return the data set of a trial: it trains on a fold's images, or on the first of them in
        a stratified order, and is tested on those held out."""
        fit, test = self.fit_images(fold), self.test_images(fold)
        if train_images is not None:
            fit = fit[stratified_order(self.pool.labels[fit])[:train_images]]
        watched = test[stratified_order(self.pool.labels[test])]
        watched = watched[: WATCHED_IMAGES * len(self.dataset.classes)]
        chosen: dict[SplitName, Indices] = {"train": fit, "val": watched, "test": test}
        return resplit(self.dataset, self.pool, chosen)


def development(dataset: Dataset, packed: Packed, is_val_own: bool) -> Development:
    """Divide the training and validation images of a packed data set.

    Args:
        is_val_own: True if the validation images are a split of the user's own.
    """
    train, val = packed.train, packed.val
    splits: tuple[SplitName, ...] = ("train", "val")
    names = tuple(
        dataset.source.where(split, index)
        for split, count in zip(splits, (len(train.labels), len(val.labels)), strict=True)
        for index in range(count)
    )
    pool = ImagePool(
        np.concatenate([train.images, val.images]),
        np.concatenate([train.labels, val.labels]),
        _groups(dataset),
        names,
    )
    if is_val_own:
        fold_of = np.full(len(pool.labels), -1)
        fold_of[len(train.labels) :] = 0
    else:
        fold_of = divided(pool, FOLDS)
    return Development(dataset, packed, pool, fold_of)


def divided(pool: ImagePool, most: int) -> Indices:
    """Return the fold (N,) in which each image is held out: classes keep their shares, groups stay
    together. There are ``most`` folds, or as many as the smallest class has images or groups if
    these are fewer, but two at least."""
    units = np.arange(len(pool.labels)) if pool.groups is None else pool.groups
    fewest = min(len(np.unique(units[pool.labels == c])) for c in np.unique(pool.labels))
    count = max(min(most, fewest), 2)
    fold_of = np.zeros(len(pool.labels), np.int64)
    for number, (_, held_out) in enumerate(_parts(pool, count)):
        fold_of[held_out] = number
    return fold_of


def _parts(pool: ImagePool, count: int) -> Iterator[tuple[Indices, Indices]]:
    if pool.groups is None:
        kinds = StratifiedKFold(count, shuffle=True, random_state=SEED)
        yield from kinds.split(pool.labels, pool.labels)
    else:
        grouped = StratifiedGroupKFold(count, shuffle=True, random_state=SEED)
        yield from grouped.split(pool.labels, pool.labels, pool.groups)


def _groups(dataset: Dataset) -> Indices | None:
    """Return the groups of the training and validation images (N,), identical files among them;
    None where each image stands alone, or where a class is a single group, which cannot be
    divided."""
    source = dataset.source
    if isinstance(source, FileSource):
        units = [image.unit for split in SPLITS[:2] for image in source.images[split]]
        groups = np.asarray(np.unique(units, return_inverse=True)[1], np.int64)
    elif isinstance(source, PoolSource):
        if source.pool.groups is None:
            return None
        groups = np.concatenate([source.pool.groups[source.chosen[s]] for s in SPLITS[:2]])
    else:
        parts: list[Indices] = []
        for split in SPLITS[:2]:
            found = source.groups(split)
            if found is None:
                return None
            parts.append(found + (parts[-1].max() + 1 if parts else 0))
        groups = np.concatenate(parts)
    if len(np.unique(groups)) == len(groups):
        return None
    labels = np.concatenate([source.labels("train"), source.labels("val")])
    fewest = min(len(np.unique(groups[labels == c])) for c in np.unique(labels))
    return None if fewest < 2 else groups


def stratified_order(labels: Indices, seed: int = SEED) -> Indices:
    """Return an order of images whose every beginning has the classes in their shares, an image of
    each class first, so that smaller subsets are part of larger ones."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    counts = np.bincount(labels)
    rank = np.zeros(len(labels))
    seen = np.zeros(len(counts))
    for position in shuffled:
        label = labels[position]
        first = seen[label] == 0
        rank[position] = -1.0 if first else (seen[label] + 0.5) / counts[label]
        seen[label] += 1
    return np.lexsort((shuffled.argsort(), labels, rank))
