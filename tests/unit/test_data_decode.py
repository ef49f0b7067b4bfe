"""Decoding: every kind of image file becomes upright RGB, or an error with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.decode import (
    UnreadableImageError,
    centre_square,
    image_headers,
    load_rgb,
    squashed,
)


def _mean(path: Path) -> list[int]:
    return [round(v) for v in np.asarray(load_rgb(path), dtype=float).mean(axis=(0, 1))]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, [100, 100, 100]),
        ("1", 1, [255, 255, 255]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),
        ("LA", (0, 0), [255, 255, 255]),
        ("I;16", 257 * 40, [40, 40, 40]),
    ],
)
def test_modes_of_a_png_become_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], expected: list[int]
) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (6, 4), colour).save(path)
    assert load_rgb(path).mode == "RGB"
    assert _mean(path) == expected


def test_palette_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=0)
    assert _mean(tmp_path / "opaque.png") == [200, 0, 0]
    assert _mean(tmp_path / "clear.png") == [255, 255, 255]


def test_cmyk_jpeg_and_float_tiff(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "white.jpg")
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "half.tif")
    assert _mean(tmp_path / "white.jpg") == [255, 255, 255]
    assert _mean(tmp_path / "half.tif") == [128, 128, 128]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert _mean(tmp_path / "moving.gif") == [255, 0, 0]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_rgb(tmp_path / "turned.jpg").size == (4, 8)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_rubbish_is_unreadable_with_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match="identify"):
        load_rgb(tmp_path / "bad.png")


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UnreadableImageError, match="truncated"):
        load_rgb(path)


def test_a_decompression_bomb_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="exceeds limit"):
        load_rgb(tmp_path / "bomb.png")


def test_the_header_of_an_image_of_any_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (100, 50)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert image_headers([tmp_path / "large.png"]) == [(100, 50, "L", "PNG")]


@pytest.mark.parametrize("size", [(30, 10), (10, 30)])
def test_centre_square_keeps_the_centre_only(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    image.paste("white", ((size[0] - 10) // 2, (size[1] - 10) // 2, size[0], size[1]))
    middle = centre_square(image, 5)
    assert middle.shape == (5, 5, 3)
    assert middle.dtype == np.uint8
    assert middle[2, 2].tolist() == [255, 255, 255]


def test_squashed_keeps_the_whole() -> None:
    image = Image.new("RGB", (40, 10), "black")
    image.paste("white", (20, 0, 40, 10))
    assert squashed(image, 4)[:, 0].max() < squashed(image, 4)[:, 3].min()
