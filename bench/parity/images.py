"""Images for proofs: made, not photographed, so that a bare machine has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.catalog.tolerances import SEED
from bench.data import Split

PATCHES = 8
LABELS = 3
"""Of the classes that a head has."""


def proof_split(px: int, images: int) -> Split:
    """Coloured patches under noise: neither flat nor without structure.

    Args:
        px: Height and width.
        images: How many.
    """
    random = np.random.default_rng([SEED, px])
    patches = random.integers(0, 256, (images, PATCHES, PATCHES, 3))
    at = np.arange(px) * PATCHES // px
    noise = random.integers(-40, 41, (images, px, px, 3))
    pixels = np.clip(patches[:, at][:, :, at] + noise, 0, 255).astype(np.uint8)
    # A few labels, so that ten small steps lower the loss: small steps keep it out of chaos.
    return Split(pixels, np.arange(images, dtype=np.int64) % LABELS)


def save_split(split: Split, path: Path) -> None:
    """Write images and labels for workers, whose NumPy may be another."""
    np.savez(path, images=split.images, labels=split.labels)


def load_split(path: Path) -> Split:
    """What ``save_split`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Split(file["images"], file["labels"])
