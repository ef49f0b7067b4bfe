"""``rvl_cdip``: a small folder in the official layout, and the generated pages."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import Dataset, FileRules, SplitSizes, open_dataset, pack
from bench.data.synthetic_pages import KINDS, draw_page
from bench.errors import UserError


def _make(root: Path, per_class: dict[str, int]) -> Path:
    value = 0
    (root / "labels").mkdir(parents=True)
    for split, count in per_class.items():
        lines = []
        for label in range(16):
            for number in range(count):
                path = root / "images" / "imagesq" / split / f"{label}-{number}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                page = Image.new("L", (10, 14), label * 16)
                page.putpixel((0, 0), value % 256)
                page.save(path)
                lines.append(f"imagesq/{split}/{label}-{number}.tif {label}\n")
                value += 1
        (root / "labels" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return root


def _open(root: Path, sizes: SplitSizes | None = None, *, skip: bool = False) -> Dataset:
    return open_dataset(
        f"rvl_cdip:{root}",
        sizes or SplitSizes(),
        cache_dir=root,
        rules=FileRules(skip_unreadable=skip),
    )


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return _make(tmp_path / "official", {"train": 3, "val": 1, "test": 2})


def test_the_official_split_is_kept_and_pages_carry_their_class(
    official: Path, tmp_path: Path
) -> None:
    dataset = _open(official)
    assert (dataset.name, dataset.label) == ("rvl_cdip:official", "rvl_cdip:official")
    assert (dataset.train_images, dataset.val_images, dataset.test_images) == (48, 16, 32)
    assert dataset.classes[:3] == ("letter", "form", "email")
    assert dataset.classes[5:7] == ("scientific report", "scientific publication")
    assert dataset.classes[15] == "memo"
    packed = pack(dataset, 7, tmp_path)
    assert (packed.train.images[:, 6, 6, 0] // 16).tolist() == packed.train.labels.tolist()
    assert np.array_equal(packed.train.images[..., 0], packed.train.images[..., 2])


def test_subsets_are_balanced_nested_and_touch_only_their_pages(
    official: Path, tmp_path: Path
) -> None:
    everything = pack(_open(official), 4, tmp_path)
    dataset = _open(official, SplitSizes(train=20, val=16, test=16))
    packed = pack(dataset, 4, tmp_path)
    assert set(Counter(packed.train.labels.tolist()).values()) == {1, 2}
    assert set(Counter(packed.test.labels.tolist()).values()) == {1}
    assert np.array_equal(packed.train.images, everything.train.images[:20])
    kept = {page.path for page in dataset.source.images["train"]}  # type: ignore[attr-defined]
    for path in (official / "images" / "imagesq" / "train").iterdir():
        if path not in kept:
            path.unlink()
    again = _open(official, SplitSizes(train=20, val=16, test=16))
    assert again.content_hash == dataset.content_hash
    assert "official" not in again.content_hash


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("imagesq/train/0-0.tif", "line 49: .* is not of the form"),
        ("imagesq/train/0-0.tif x", "line 49: .* is not of the form"),
        ("imagesq/train/0-0.tif -1", "line 49: .* is not of the form"),
        ("imagesq/train/0-0.tif 16", "line 49: the label 16 is not in 0 to 15"),
        ("../../secret.tif 3", "line 49: .* leads out"),
        ("/etc/secret.tif 3", "line 49: .* leads out"),
        ("imagesq/nowhere.tif 3", "train.txt, line 49.*No such file"),
        ("imagesq/test/0-0.tif 0", "two splits: .*train.txt, line 49 and .*test.txt, line 1"),
    ],
)
def test_bad_label_lines_are_named(official: Path, line: str, said: str) -> None:
    labels = official / "labels" / "train.txt"
    labels.write_text(labels.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        _open(official)


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_composed_and_a_decomposed_name_are_one(
    official: Path, listed: str, on_disk: str
) -> None:
    """A label file from one system may spell the names on the disk of another differently."""
    name = "imagesq/train/Prüfung.tif"
    Image.new("L", (10, 14), 3).save(official / "images" / unicodedata.normalize(on_disk, name))
    labels = official / "labels" / "train.txt"
    line = f"{unicodedata.normalize(listed, name)} 0\n"
    labels.write_text(labels.read_text() + line, encoding="utf-8")
    assert _open(official).train_images == 49
    other = f"{unicodedata.normalize(on_disk, name)} 1\n"
    labels.write_text(labels.read_text(encoding="utf-8") + other, encoding="utf-8")
    with pytest.raises(UserError, match="has two labels"):
        _open(official)


def test_missing_parts_of_the_layout(official: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        _open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no folder 'images'"):
        _open(tmp_path)
    (official / "labels" / "val.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="val.txt names no pages"):
        _open(official)
    (official / "labels" / "val.txt").unlink()
    with pytest.raises(UserError, match="Cannot read .*val.txt"):
        _open(official)


def test_more_pages_than_there_are(official: Path) -> None:
    with pytest.raises(UserError, match="49 train images were requested; .* has 48"):
        _open(official, SplitSizes(train=49))


def test_unreadable_pages_stop_packing_or_are_replaced(official: Path, tmp_path: Path) -> None:
    sizes = SplitSizes(train=40)
    first = _open(official, sizes)
    bad: Path = first.source.images["train"][3].path  # type: ignore[attr-defined]
    bad.write_bytes(b"no page")
    with pytest.raises(UserError, match="1 image cannot be read"):
        pack(_open(official, sizes), 4, tmp_path)
    skipping = _open(official, sizes, skip=True)
    assert skipping.train_images == 40
    assert len(skipping.skipped) == 1
    assert len(pack(skipping, 4, tmp_path).train.labels) == 40
    with pytest.raises(UserError, match="48 train images were requested; .* has 47"):
        _open(official, SplitSizes(train=48), skip=True)


def test_generated_pages_differ_by_kind_and_number_and_are_deterministic() -> None:
    pages = {(kind, n): draw_page(kind, n).tobytes() for kind in KINDS for n in range(3)}
    assert len(set(pages.values())) == 48
    assert draw_page("memo", 2).tobytes() == pages["memo", 2]
    assert draw_page("memo", 2).mode == "L"


def test_generated_pages_are_read_like_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.data.synthetic_pages._PER_CLASS", {"train": 2, "val": 1, "test": 1})
    dataset = open_dataset("rvl_cdip", SplitSizes(), cache_dir=tmp_path)
    assert (dataset.name, dataset.label) == ("rvl_cdip", "rvl_cdip (synthetic pages)")
    assert (dataset.train_images, dataset.val_images, dataset.test_images) == (32, 16, 16)
    assert dataset.similarity == "not_similar"
    images = sorted((tmp_path / "synthetic_rvl_cdip").rglob("*.tif"))
    assert len(images) == 64
    images[5].unlink()
    again = open_dataset("rvl_cdip", SplitSizes(), cache_dir=tmp_path)
    assert again.content_hash == dataset.content_hash
    assert images[5].exists()
    assert pack(again, 16, tmp_path).train.images.shape == (32, 16, 16, 3)
