"""Augmentation in NumPy: the parameters are drawn first, so that pixels never depend on threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench.spec.run import AugmentationName

SHIFT_FRACTION = 8
"""A crop moves by up to 1/8 of the image in each direction; the border is repeated."""
Parameters = npt.NDArray[np.int64]
"""(N, 3): rows and columns to move by, and whether to mirror."""


def draw(
    augmentation: AugmentationName, images: int, px: int, random: np.random.Generator
) -> Parameters:
    """Draw the parameters for a batch.

    Args:
        augmentation: 'none', 'crop' (shift) or 'crop_flip' (shift and mirror left to right).
        images: Number of images, N.
        px: Height and width.
        random: Where the numbers come from; not used for 'none'.

    Returns:
        (N, 3) int64.
    """
    if augmentation == "none":
        return np.zeros((images, 3), np.int64)
    reach = px // SHIFT_FRACTION
    shifts = random.integers(-reach, reach + 1, (images, 2))
    mirror = random.integers(0, 2, (images, 1))
    if augmentation == "crop":
        mirror = np.zeros_like(mirror)
    return np.concatenate([shifts, mirror], axis=1)


def apply(images: npt.NDArray[np.uint8], parameters: Parameters) -> npt.NDArray[np.uint8]:
    """Shift and mirror images.

    Args:
        images: (N, px, px, C) uint8.
        parameters: (N, 3), from ``draw``.

    Returns:
        (N, px, px, C) uint8; ``images`` itself where nothing is to be done.
    """
    if not parameters.any():
        return images
    px = images.shape[1]
    out = np.empty_like(images)
    positions = np.arange(px)
    for image, (down, right, mirror), target in zip(images, parameters, out, strict=True):
        rows = np.clip(positions + down, 0, px - 1)
        columns = np.clip(positions + right, 0, px - 1)
        if mirror:
            columns = columns[::-1]
        target[:] = image[rows][:, columns]
    return out
