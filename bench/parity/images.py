"""Images for proofs: generated, so that no download is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data import Split
from bench.parity.tolerances import SEED

PATCHES = 8
LABELS = 3
"""Number of classes that occur, of the ``CLASSES`` of the head. With few labels ten small steps
lower the loss, and small steps avoid chaos."""


def proof_split(px: int, images: int) -> Split:
    """Return images of coloured patches under noise: neither flat nor without structure.

    Args:
        px: Height and width, in pixels.
        images: Number of images.
    """
    random = np.random.default_rng([SEED, px])
    patches = random.integers(0, 256, (images, PATCHES, PATCHES, 3))
    at = np.arange(px) * PATCHES // px
    noise = random.integers(-40, 41, (images, px, px, 3))
    pixels = np.clip(patches[:, at][:, :, at] + noise, 0, 255).astype(np.uint8)
    return Split(pixels, np.arange(images, dtype=np.int64) % LABELS)


def save_split(split: Split, path: Path) -> None:
    """Write images and labels for workers, whose NumPy may be another version."""
    np.savez(path, images=split.images, labels=split.labels)


def load_split(path: Path) -> Split:
    """Return what ``save_split`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Split(file["images"], file["labels"])
