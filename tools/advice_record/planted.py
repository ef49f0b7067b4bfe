"""Planted faults: versions of a cell whose images or labels cannot support advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data import Dataset
from bench.data.model import SPLITS, Labels, Pixels, SplitName
from bench.data.resplit import ImagePool, Indices, PoolSource, resplit

WRONG_SHARE = 0.75
"""Share of labels drawn at random in the set with mostly wrong labels."""
DOMINANT_SHARE = 0.9
COPIED_SHARE = 0.3
"""Share of the test images that are replaced by training images."""
FEW_OF_A_CLASS = 2
FRAME_PX = 3


@dataclass
class Parts:
    """Images and labels of a set, with the positions of each split among them."""

    images: Pixels
    labels: Labels
    chosen: dict[SplitName, Indices]

    @property
    def seen(self) -> Indices:
        """Positions of training and validation images."""
        return np.concatenate([self.chosen["train"], self.chosen["val"]])


Fault = Callable[[Parts, np.random.Generator], None]
"""Changes images, labels or splits in place."""


def _shuffled_labels(parts: Parts, random: np.random.Generator) -> None:
    parts.labels[parts.seen] = random.permutation(parts.labels[parts.seen])


def _mostly_wrong(parts: Parts, random: np.random.Generator) -> None:
    drawn = random.integers(0, parts.labels.max() + 1, len(parts.seen))
    is_wrong = random.uniform(size=len(drawn)) < WRONG_SHARE
    parts.labels[parts.seen] = np.where(is_wrong, drawn, parts.labels[parts.seen])


def _too_few(parts: Parts, random: np.random.Generator) -> None:
    """Keep two images of each class, one for training and one for validation."""
    counts: dict[SplitName, int] = {"train": FEW_OF_A_CLASS - 1, "val": 1}
    for split, count in counts.items():
        positions = parts.chosen[split]
        labels = parts.labels[positions]
        kept = [positions[labels == label][:count] for label in np.unique(labels)]
        parts.chosen[split] = np.concatenate(kept)


def _dominant_class(parts: Parts, random: np.random.Generator) -> None:
    for split in SPLITS[:2]:
        positions = parts.chosen[split]
        others = positions[parts.labels[positions] != 0]
        count = max(1, round((1 - DOMINANT_SHARE) * len(positions)))
        changed = random.permutation(others)[count:]
        own = positions[parts.labels[positions] == 0]
        parts.images[changed] = parts.images[random.choice(own, len(changed))][:, :, ::-1]
        parts.labels[changed] = 0


def _copies(parts: Parts, random: np.random.Generator) -> None:
    test, train = parts.chosen["test"], parts.chosen["train"]
    count = round(COPIED_SHARE * len(test))
    twins = random.choice(train, count)
    noise = random.integers(-2, 3, parts.images[twins].shape)
    parts.images[test[:count]] = np.clip(parts.images[twins] + noise, 0, 255).astype(np.uint8)
    parts.labels[test[:count]] = parts.labels[twins]


def _border(parts: Parts, random: np.random.Generator) -> None:
    """Frame the images of each class in a grey of its own."""
    greys = np.linspace(20, 235, int(parts.labels.max()) + 1)[parts.labels]
    _frame(parts, np.arange(len(parts.labels)), greys)


def _border_of_one(parts: Parts, random: np.random.Generator) -> None:
    """Frame the images of the first class in a colour that has no other use."""
    own = np.flatnonzero(parts.labels == 0)
    _frame(parts, own, np.full(len(own), 100.0))
    parts.images[own, :FRAME_PX, :, 2] = parts.images[own, -FRAME_PX:, :, 2] = 180
    parts.images[own, :, :FRAME_PX, 2] = parts.images[own, :, -FRAME_PX:, 2] = 180


def _frame(parts: Parts, positions: Indices, greys: npt.NDArray[np.float64]) -> None:
    """Frame images in (N,) greys."""
    framed = parts.images[positions]
    for edge in (np.s_[:, :FRAME_PX], np.s_[:, -FRAME_PX:],
                 np.s_[:, :, :FRAME_PX], np.s_[:, :, -FRAME_PX:]):  # fmt: skip
        framed[edge] = greys[:, None, None, None].astype(np.uint8)
    parts.images[positions] = framed


def _tint(parts: Parts, random: np.random.Generator) -> None:
    """Give each class a colour of its own, as of the light of one session."""
    hues = np.linspace(0, 2 * np.pi, int(parts.labels.max()) + 1, endpoint=False)[parts.labels]
    shifts = 35 * np.stack([np.cos(hues), np.cos(hues - 2.1), np.cos(hues + 2.1)], axis=1)
    for index, image in enumerate(parts.images):
        contrast = image.astype(np.float64) - image.mean(axis=(0, 1))
        level = 125 + shifts[index] + random.normal(0, 1, 3)
        parts.images[index] = np.clip(0.35 * contrast + level, 0, 255).astype(np.uint8)


def _session(parts: Parts, random: np.random.Generator) -> None:
    """Replace the images of each class by noisy frames of one of them."""
    for label in np.unique(parts.labels):
        own = np.flatnonzero(parts.labels == label)
        frame = parts.images[own[0]].astype(np.float64)
        noise = random.normal(0, 3, (len(own), *frame.shape))
        parts.images[own] = np.clip(frame + noise, 0, 255).astype(np.uint8)


class Planted(NamedTuple):
    """A fault, and the kind of the sign that shows it."""

    plant: Fault
    kind: str


FAULTS: Mapping[str, Planted] = {
    "shuffled labels": Planted(_shuffled_labels, "labels"),
    "mostly wrong labels": Planted(_mostly_wrong, "labels"),
    "too few images": Planted(_too_few, "too_few"),
    "a dominant class": Planted(_dominant_class, "dominant_class"),
    "copies in the test": Planted(_copies, "copies"),
    "a border": Planted(_border, "shortcut"),
    "a border of one class": Planted(_border_of_one, "shortcut"),
    "a tint": Planted(_tint, "shortcut"),
    "one session": Planted(_session, "shortcut"),
}


def with_fault(dataset: Dataset, name: str) -> Dataset:
    """Return a cell with a planted fault, as ``FAULTS`` names it."""
    source = dataset.source
    assert isinstance(source, PoolSource)
    parts = Parts(source.pool.images.copy(), source.pool.labels.copy(), dict(source.chosen))
    FAULTS[name].plant(parts, np.random.default_rng(0))
    pool = ImagePool(parts.images, parts.labels, None, source.pool.names)
    named = replace(dataset, content_hash=f"{dataset.content_hash} {name}")
    return resplit(named, pool, parts.chosen)
