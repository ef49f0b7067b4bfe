"""Augmentation in NumPy: the parameters are drawn first, so that pixels never depend on threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench.spec.run import AugmentationName

SHIFT_FRACTION = 8
"""A crop moves by up to 1/8 of the image in each direction; the border is repeated."""
Parameters = npt.NDArray[np.int64]
"""(N, 3) int64: rows and columns to shift by; 1 to mirror, else 0."""


def draw(
    augmentation: AugmentationName, images: int, px: int, random: np.random.Generator
) -> Parameters:
    """Draw (N, 3) parameters for N ``images`` of height and width ``px``: 'crop' shifts,
    'crop_flip' also mirrors left to right; 'none' draws nothing from ``random``."""
    if augmentation == "none":
        return np.zeros((images, 3), np.int64)
    reach = px // SHIFT_FRACTION
    shifts = random.integers(-reach, reach + 1, (images, 2))
    mirror = random.integers(0, 2, (images, 1))
    if augmentation == "crop":
        mirror = np.zeros_like(mirror)
    return np.concatenate([shifts, mirror], axis=1)


def apply(images: npt.NDArray[np.uint8], parameters: Parameters) -> npt.NDArray[np.uint8]:
    """Shift and mirror images (N, px, px, C); return ``images`` itself if no parameter is set."""
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
