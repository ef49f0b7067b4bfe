"""The two resize filters, each against its formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench.data import SplitSizes, open_dataset, pack
from bench.data.decode import centre_square, squashed
from bench.data.packing import pack_key


def _picture(height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _half_pixel_bilinear(
    image: npt.NDArray[np.float64], px: int, box: tuple[float, float, float, float]
) -> npt.NDArray[np.float64]:
    """Compute tf.image.resize(method="bilinear", antialias=False) in NumPy."""
    left, top, right, bottom = box

    def weights(first: float, last: float, size: int) -> tuple[npt.NDArray[np.float64], ...]:
        at = first + (np.arange(px) + 0.5) * (last - first) / px - 0.5
        low = np.floor(at)
        return np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1), at - low

    y0, y1, fy = weights(top, bottom, image.shape[0])
    x0, x1, fx = weights(left, right, image.shape[1])
    rows = (
        image[y0.astype(int)] * (1 - fy)[:, None, None] + image[y1.astype(int)] * fy[:, None, None]
    )
    a, b = rows[:, x0.astype(int)], rows[:, x1.astype(int)]
    return a * (1 - fx)[:, None] + b * fx[:, None]


@pytest.mark.parametrize(("height", "width", "px"), [(40, 40, 16), (37, 61, 16), (9, 12, 24)])
def test_bilinear_is_tensorflows(height: int, width: int, px: int) -> None:
    image = _picture(height, width)
    pixels = np.asarray(image, float)
    whole = _half_pixel_bilinear(pixels, px, (0, 0, width, height))
    assert np.abs(squashed(image, px, "bilinear") - whole).max() <= 1
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = _half_pixel_bilinear(pixels, px, (left, top, left + side, top + side))
    assert np.abs(centre_square(image, px, "bilinear") - square).max() <= 1


def test_the_filters_differ_where_an_image_shrinks() -> None:
    image = _picture(64, 64)
    smooth, rough = squashed(image, 16), squashed(image, 16, "bilinear")
    assert rough.std() > 2 * smooth.std()


def test_each_filter_has_a_pack_of_its_own_and_the_first_keeps_its_name(tmp_path: Path) -> None:
    dataset = open_dataset("photos", SplitSizes(18, 18, 18), cache_dir=tmp_path)
    assert pack_key(dataset, 16) == pack_key(dataset, 16, "antialias")
    both = pack(dataset, 16, tmp_path), pack(dataset, 16, tmp_path, "bilinear")
    assert both[0].path != both[1].path
    assert not np.array_equal(both[0].test.images, both[1].test.images)
    fixed = replace(dataset, content_hash="ab" * 32)
    assert pack_key(fixed, 16, "bilinear") != pack_key(fixed, 16)
