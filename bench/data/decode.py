"""Decoding of image files, odd formats included, into RGB pixels of the input size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.data.model import Resize, UnreadableImageError
from bench.errors import first_line

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the image; right and bottom are excluded."""
_DEEP_GREY = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""Pillow's modes of grey images with more than 8 bits per pixel."""


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings (odd EXIF, large images) within a ``with`` block.

    Warning filters belong to the process: enter this once, outside the threads that decode.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def load_rgb(path: Path) -> Image.Image:
    """Return the first frame of an image file, upright, in mode RGB with 8 bits per channel.

    Raises:
        UnreadableImageError: The file cannot be decoded, for whatever reason.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(_upright(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file
        raise UnreadableImageError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB: on white if transparent, grey repeated, 16 bits scaled to 8."""
    if image.mode in _DEEP_GREY:
        image = _eight_bit_grey(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def centre_square(
    image: Image.Image, px: int, resize: Resize = "antialias"
) -> npt.NDArray[np.uint8]:
    """Return the largest square at the image's centre, resized: RGB, shape (px, px, 3).

    Only the square is resized, so that a very long image takes no memory.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return pixels(RESIZERS[resize](image, px, box))


def squashed(image: Image.Image, px: int, resize: Resize = "antialias") -> npt.NDArray[np.uint8]:
    """Return the whole image resized without keeping its aspect ratio: RGB, shape (px, px, 3)."""
    return pixels(RESIZERS[resize](image, px, (0, 0, *image.size)))


def _antialiased(image: Image.Image, px: int, box: Box) -> Image.Image:
    return image.resize((px, px), Image.Resampling.BILINEAR, box=box)


def _bilinear(image: Image.Image, px: int, box: Box) -> Image.Image:
    """Resize as tf.image.resize does: pixel centres at halves, edges repeated, no antialiasing."""
    left, top, right, bottom = box
    matrix = ((right - left) / px, 0.0, left, 0.0, (bottom - top) / px, top)
    return image.transform(
        (px, px), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )


RESIZERS: dict[Resize, Callable[[Image.Image, int, Box], Image.Image]] = {
    "antialias": _antialiased,
    "bilinear": _bilinear,
}


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of an RGB image, shape (height, width, 3)."""
    return np.asarray(image, dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode != "F":
        values = values / 257
    elif values.max() <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can identify"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
