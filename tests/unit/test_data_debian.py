"""Data sets of Debian packages, on files in the real layout."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import SplitSizes, debian, has_path, open_dataset, pack
from bench.data.model import SPLITS
from bench.errors import Unavailable, UserError


def _idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def garments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small Fashion-MNIST: 200 images for training and 50 for the test."""
    random = np.random.default_rng(0)
    for name, count in (("train", 200), ("t10k", 50)):
        _idx(tmp_path / f"{name}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28)))
        _idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    monkeypatch.setattr(debian, "FASHION", tmp_path)
    monkeypatch.setattr(debian, "_VAL_IMAGES", 40)
    return tmp_path


def test_garments_have_their_own_test_images_and_balanced_classes(
    garments: Path, tmp_path: Path
) -> None:
    data = open_dataset("debian:fashion-mnist", SplitSizes(), cache_dir=tmp_path)
    assert (data.train_images, data.val_images, data.test_images) == (160, 40, 50)
    assert (data.similarity, data.classes[9]) == ("not_similar", "ankle boot")
    assert not has_path(data.name)
    for split, count in (("train", 16), ("val", 4), ("test", 5)):
        assert set(Counter(data.source.labels(split).tolist()).values()) == {count}  # type: ignore[arg-type]
    few = open_dataset("debian:fashion-mnist", SplitSizes(20, 10, 10), cache_dir=tmp_path)
    packed = pack(few, 28, tmp_path / "cache")
    assert packed.train.images.shape == (20, 28, 28, 3)
    assert few.content_hash != data.content_hash


def test_pixels_and_labels_belong_together(garments: Path, tmp_path: Path) -> None:
    """Each class of this copy has a grey level of its own."""
    for name, count in (("train", 200), ("t10k", 50)):
        labels = np.arange(count) % 10
        images = np.tile((labels * 20)[:, None, None], (1, 28, 28))
        images[:, 0, 0] = np.arange(count)  # so that no two are alike
        _idx(garments / f"{name}-images-idx3-ubyte.gz", images)
    data = open_dataset("debian:fashion-mnist", SplitSizes(30, 10, 20), cache_dir=tmp_path)
    packed = pack(data, 28, tmp_path / "cache")
    for split in (packed.train, packed.test):
        assert (split.images[:, 14, 14, 0] == split.labels * 20).all()


def test_a_damaged_file_is_refused(garments: Path, tmp_path: Path) -> None:
    (garments / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc")
    )
    with pytest.raises(UserError, match="is not in the IDX format"):
        open_dataset("debian:fashion-mnist", SplitSizes(), cache_dir=tmp_path)
    path = garments / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is not in the IDX format"):
        open_dataset("debian:fashion-mnist", SplitSizes(), cache_dir=tmp_path)


def test_a_huge_drawing_is_left_out(drawings: Path, tmp_path: Path) -> None:
    """The package has one of 623 megapixels, which would need gigabytes to be decoded."""
    (drawings / "animals" / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2
    )
    data = open_dataset("debian:openclipart", SplitSizes(), cache_dir=tmp_path)
    for split in SPLITS:
        count = getattr(data, f"{split}_images")
        assert not any(data.source.where(split, n).endswith("huge.png") for n in range(count))


@pytest.fixture
def drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write ten classes of 12 to 21 drawings in sub-folders, one of them in two classes."""
    root = tmp_path / "png"
    for number, name in enumerate(debian._DRAWINGS):
        for value in range(12 + number):
            path = root / name / f"part{value % 3}" / f"{value}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), (number * 20, value * 5, 9)).save(path)
        Image.new("RGB", (6, 4), (1, 2, 3)).save(root / name / "everywhere.png")
    monkeypatch.setattr(debian, "CLIPART", root)
    return root


def test_drawings_are_distinct_balanced_and_in_one_split(drawings: Path, tmp_path: Path) -> None:
    data = open_dataset("debian:openclipart", SplitSizes(), cache_dir=tmp_path)
    counts = {}
    files = []
    for split in ("train", "val", "test"):
        labels = data.source.labels(split)  # type: ignore[arg-type]
        counts[split] = set(Counter(labels.tolist()).values())
        files += [data.source.where(split, n) for n in range(len(labels))]  # type: ignore[arg-type]
    assert counts == {"train": {7}, "val": {1}, "test": {4}}  # of the 12 of the smallest class
    assert len(files) == len(set(files))
    assert not any("everywhere" in file for file in files)


@pytest.mark.parametrize(
    ("name", "package"),
    [("debian:fashion-mnist", "dataset-fashion-mnist"), ("debian:openclipart", "openclipart-png")],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(debian, "FASHION", tmp_path / "none")
    monkeypatch.setattr(debian, "CLIPART", tmp_path / "none")
    with pytest.raises(Unavailable, match=f"apt-get install {package}"):
        open_dataset(name, SplitSizes(), cache_dir=tmp_path)


def test_another_debian_package_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="debian:fashion"):
        open_dataset("debian:fashion", SplitSizes(), cache_dir=tmp_path)
