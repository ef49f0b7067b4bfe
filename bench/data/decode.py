"""Decoding of image files, odd formats included, into RGB pixels of the input size."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.data.model import FileRules, Pixels, Resize
from bench.errors import first_line
from bench.storage.regular_files import open_regular
from bench.system import cores

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the image; right and bottom are excluded."""
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's decoders of pixels. Pillow chooses by content, whatever a file's name, and its others
run programs (EPS), read further files or are little tested."""
PIXELS_AT_ONCE = 64_000_000
"""Pixels decoded at the same time by all threads together; a larger image is decoded alone."""
RANGE_TAGS = {"sample": (340, 341), "classic": (280, 281)}
"""TIFF tags with the smallest and largest sample value: SMinSampleValue and SMaxSampleValue;
MinSampleValue and MaxSampleValue (TIFF 6.0)."""
SURELY_16_BITS = 2**14
"""Value above which a 16-bit TIFF surely uses its whole range; others may be of a camera with 10,
12 or 14 bits."""
BITS_TAG, PHOTOMETRIC_TAG = 258, 262
"""TIFF tags BitsPerSample and PhotometricInterpretation."""
DEEP_COST = 7
"""Memory of a deep grey pixel while it is scaled, over that of others."""
T = TypeVar("T")
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
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ``load_rgb`` has its own
        try:
            yield pool
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class _PixelBudget:
    """Lets threads decode images of at most ``PIXELS_AT_ONCE`` pixels together."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pixels = 0

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image of this size, and keep the room meanwhile."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._pixels == 0 or self._pixels + pixels <= PIXELS_AT_ONCE
            )
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


_BUDGET = _PixelBudget()


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of ``FORMATS`` that the installed Pillow can decode."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_image(path: Path) -> bool:
    """Return True if a file's content begins like an image of one of ``FORMATS``."""
    try:
        with open_regular(path) as file, Image.open(file, formats=_formats()):
            return True
    except Exception:  # Pillow's plugins raise nearly anything on other files
        return False


class ImageHeader(NamedTuple):
    """The header of an image file, read without decoding its pixels."""

    width: int
    height: int
    mode: str
    """Pillow's name of the kind of pixels."""
    format: str


def image_headers(paths: Iterable[Path]) -> list[ImageHeader]:
    """Return the headers of image files, which may be of any size."""
    with decoding_threads() as pool:
        return list(pool.map(_header, paths))


def _header(path: Path) -> ImageHeader:
    with open_regular(path) as file, Image.open(file, formats=_formats()) as image:
        return ImageHeader(image.width, image.height, image.mode, image.format or "")


def load_rgb(path: Path, max_pixels: int = FileRules.max_pixels) -> Image.Image:
    """Return the first frame of an image file, see ``use_rgb``."""
    return use_rgb(path, lambda image: image, max_pixels)


def use_rgb(
    path: Path, use: Callable[[Image.Image], T], max_pixels: int = FileRules.max_pixels
) -> T:
    """Return what ``use`` makes of the first frame of an image file: upright, in mode RGB with 8
    bits per channel. Images in use by all threads together are bounded.

    Transparent images are laid on white, grey is repeated, deeper samples are scaled to 8 bits by
    the range that the file declares.

    Raises:
        UnreadableImageError: It cannot be decoded, for whatever reason, has more than
            ``max_pixels`` pixels, or samples of an unknown range.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=_formats()) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise UnreadableImageError(
                    f"{pixels:,} pixels are more than {max_pixels:,}; --max-pixels {pixels} admits "
                    "it"
                )
            with _BUDGET.taken(pixels * (DEEP_COST if image.mode in _DEEP_GREY else 1)):
                image.load()
                upright: Image.Image = image
                with suppress(Exception):  # Pillow raises nearly anything on broken EXIF data
                    upright = ImageOps.exif_transpose(image)
                return use(_rgb(upright, image))
    except (MemoryError, UnreadableImageError):
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


def _rgb(image: Image.Image, file: Image.Image) -> Image.Image:
    """Convert an image to RGB; ``file`` is the same image as it was opened, with its tags."""
    if image.mode in _DEEP_GREY:
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise UnreadableImageError("it has pixels that are no finite numbers")
        low, high = _sample_range(file, values)
        values = (values - low) * (255 / (high - low))
        if _tag(file, PHOTOMETRIC_TAG) == 0:  # white is zero; Pillow inverts 8 bits itself
            values = 255 - values
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    elif image.mode in ("RGB", "RGBA") and (_tag(file, BITS_TAG) or 0) > 8:
        _check_bright(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def _sample_range(file: Image.Image, values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the samples that are black and white; raise UnreadableImageError if the file does not
    say and the values leave it open."""
    for low_tag, high_tag in RANGE_TAGS.values():
        low, high = (_tag(file, tag) for tag in (low_tag, high_tag))
        if high is not None and high > (low or 0.0):
            return low or 0.0, high
    most = float(values.max(initial=0.0))
    if file.mode == "F":
        if values.min(initial=0.0) >= 0 and most <= 1:
            return 0.0, 1.0
        kind = "floating-point"
    elif file.format != "TIFF" or (file.mode != "I" and not 0 < most < SURELY_16_BITS):
        return 0.0, 65535.0  # PNG, PGM and JPEG 2000 say by their format that they use 16 bits
    else:
        kind = "32-bit" if file.mode == "I" else "16-bit"
    raise UnreadableImageError(
        f"{kind} samples from {values.min():g} to {most:g}, and the file does not say which are "
        "black and white (TIFF tags SMinSampleValue and SMaxSampleValue); save it with 8 bits"
    )


def _check_bright(image: Image.Image) -> None:
    """Raise UnreadableImageError for a 16-bit colour TIFF whose values, of which Pillow keeps the
    upper 8 bits, may be those of a camera with fewer bits."""
    most = max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]
    if 0 < most < SURELY_16_BITS >> 8:
        raise UnreadableImageError(
            f"16-bit samples up to about {(most + 1) * 256}, and it is not known which of them is "
            "white; save it with 8 bits"
        )


def _tag(file: Image.Image, tag: int) -> float | None:
    """Return the first number of a TIFF tag; None if there is none."""
    value = getattr(file, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
