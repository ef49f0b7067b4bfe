"""Augmentation in NumPy: the parameters are drawn first, so that pixels never depend on threads."""

from __future__ import annotations

from collections.abc import Iterable

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


def gather(
    images: npt.NDArray[np.uint8],
    chosen: Iterable[int],
    parameters: Parameters,
    out: npt.NDArray[np.uint8],
) -> None:
    """Write images of ``images`` (N, px, px, C) into ``out``, shifted and mirrored.

    It copies rectangles: at 224 px that takes a quarter of the time of indexing by rows and
    columns, and the interpreter's lock is free meanwhile.

    Args:
        images: All images, perhaps mapped from a file.
        chosen: Numbers of the images to write, in order.
        parameters: Their (M, 3) parameters.
        out: (M, px, px, C).
    """
    for index, (down, right, mirror), target in zip(chosen, parameters.tolist(), out, strict=True):
        _move(images[index], down, right, target[:, ::-1] if mirror else target)


def _move(image: npt.NDArray[np.uint8], down: int, right: int, out: npt.NDArray[np.uint8]) -> None:
    """Write into ``out`` what stands ``down`` rows and ``right`` columns further in an image, whose
    border is repeated beyond it."""
    height, width = image.shape[:2]
    top, bottom = max(-down, 0), height - max(down, 0)
    left, end = max(-right, 0), width - max(right, 0)
    out[top:bottom, left:end] = image[top + down : bottom + down, left + right : end + right]
    if left:
        out[top:bottom, :left] = out[top:bottom, left : left + 1]
    if end < width:
        out[top:bottom, end:] = out[top:bottom, end - 1 : end]
    if top:
        out[:top] = out[top]
    if bottom < height:
        out[bottom:] = out[bottom - 1]
