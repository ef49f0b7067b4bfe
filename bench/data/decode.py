"""Decoding of image files, odd formats included, into RGB pixels of the input size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.data.model import Pixels, Resize
from bench.errors import first_line
from bench.system import cores

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the image; right and bottom are excluded."""
_DEEP_GREY = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""Pillow's modes of grey images with more than 8 bits per pixel."""


class UnreadableImageError(Exception):
    """An image cannot be decoded; the message is the reason, without the file's name."""


@contextmanager
def decoding_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool with a thread for each core that this process may use, but at most 16.

    Pillow's warnings (odd EXIF, large images) are silenced meanwhile, here and not in the threads,
    because warning filters belong to the process.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(16, cores())) as pool:
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield pool


def load_rgb(path: Path) -> Image.Image:
    """Return the first frame of an image file, upright, in mode RGB with 8 bits per channel; raise
    UnreadableImageError if it cannot be decoded, for whatever reason.

    Transparent images are laid on white, grey is repeated, 16 bits are scaled to 8.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright: Image.Image = image
            with suppress(Exception):  # Pillow raises nearly anything on broken EXIF data
                upright = ImageOps.exif_transpose(image)
            return _rgb(upright)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image that Pillow can identify") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file
        raise UnreadableImageError(getattr(error, "strerror", "") or first_line(error)) from error


def centre_square(image: Image.Image, px: int, resize: Resize = "antialias") -> Pixels:
    """Return the largest square at the image's centre, resized: RGB, shape (px, px, 3). Only the
    square is resized, so that a very long image takes no memory."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return _resized(image, px, (left, top, left + side, top + side), resize)


def squashed(image: Image.Image, px: int, resize: Resize = "antialias") -> Pixels:
    """Return the whole image resized without keeping its aspect ratio: RGB, shape (px, px, 3)."""
    return _resized(image, px, (0, 0, *image.size), resize)


def _resized(image: Image.Image, px: int, box: Box, resize: Resize) -> Pixels:
    bilinear = Image.Resampling.BILINEAR
    if resize == "antialias":
        small = image.resize((px, px), bilinear, box=box)
    else:  # as tf.image.resize does: pixel centres at halves, edges repeated, no antialiasing
        left, top, right, bottom = box
        matrix = ((right - left) / px, 0.0, left, 0.0, (bottom - top) / px, top)
        small = image.transform((px, px), Image.Transform.AFFINE, matrix, resample=bilinear)
    return np.asarray(small, dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY:
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        if image.mode != "F":
            values = values / 257
        elif values.max() <= 1:
            values = values * 255
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")
