"""Inputs of proofs: generated images, so that no download is needed, and perturbed tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.data import Split
from bench.network.blueprint import Array
from bench.parity.tolerances import SEED

PATCHES = 8
LABELS = 3
"""Number of different labels; the head has ``CLASSES`` outputs. With few labels, ten small steps
lower the loss, and small steps avoid chaos."""


def proof_split(px: int, images: int) -> Split:
    """Return images of (px, px) coloured patches under noise: neither flat nor unstructured."""
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


class Perturbed(Mapping[str, Array]):
    """Tensors with every number moved up or down by one last bit at random, computed on access, to
    measure how far one backend's results move by rounding."""

    def __init__(self, tensors: Mapping[str, Array], number: int) -> None:
        self._tensors = tensors
        self._number = number
        self._places = {name: place for place, name in enumerate(sorted(tensors))}

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        random = np.random.default_rng([SEED, self._number, self._places[name]])
        up = random.integers(0, 2, tensor.shape, dtype=np.bool_)
        direction = np.where(up, tensor.dtype.type(np.inf), tensor.dtype.type(-np.inf))
        moved: Array = np.nextafter(tensor, direction)
        return moved

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
