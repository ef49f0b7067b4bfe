"""``folder:PATH``: layouts, splits by content, subsets, and one clear error for each mistake."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import Dataset, FileRules, Split, SplitSizes, open_dataset, pack
from bench.data.folder_layout import natural_key
from bench.data.sampling import balanced_order, proportional_order
from bench.errors import UserError


def _image(path: Path, value: int) -> None:
    """Write an image that only this value gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value % 256, value // 256, 7)).save(path)


def _fill(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    for name, count in counts.items():
        for number in range(count):
            _image(root / name / f"{number}.png", start)
            start += 1
    return root


def _open(root: Path, sizes: SplitSizes | None = None, *, skip: bool = False) -> Dataset:
    return open_dataset(
        f"folder:{root}",
        sizes or SplitSizes(),
        cache_dir=root.parent / "cache",
        rules=FileRules(skip_unreadable=skip),
    )


def _counts(dataset: Dataset) -> tuple[int, int, int]:
    return dataset.train_images, dataset.val_images, dataset.test_images


def _values(split: Split) -> list[tuple[int, int]]:
    """Return the value and the label of each image."""
    first = split.images[:, 0, 0].astype(int)
    pairs = zip(first[:, 0] + 256 * first[:, 1], split.labels, strict=True)
    return [(int(value), int(label)) for value, label in pairs]


def test_plain_layout_is_split_by_content_not_by_name_or_place(tmp_path: Path) -> None:
    root = _fill(tmp_path / "one" / "flowers", {"daisy": 20, "rose10": 10, "rose9": 3})
    dataset = _open(root)
    assert dataset.name == dataset.label == "folder:flowers"
    assert dataset.classes == ("daisy", "rose9", "rose10")
    assert (dataset.similarity, dataset.size_bounds) == (None, None)
    assert _counts(dataset) == (14 + 6 + 1, 3 + 2 + 1, 3 + 2 + 1)
    other = tmp_path / "two" / "elsewhere"
    for path in root.rglob("*.png"):
        target = other / path.parent.name / "deep" / f"x{path.stem}.PNG"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert _open(other).content_hash == dataset.content_hash
    assert str(tmp_path) not in repr(dataset)
    (root / "daisy" / "0.png").unlink()
    assert _open(root).content_hash != dataset.content_hash


def test_every_image_lands_in_one_split_under_its_class(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 20, "b": 10})
    packed = pack(_open(root), 4, tmp_path)
    splits = [_values(packed.train), _values(packed.val), _values(packed.test)]
    everything = sorted(pair for split in splits for pair in split)
    assert everything == [(v, int(v >= 20)) for v in range(30)]
    assert all({label for _, label in split} == {0, 1} for split in splits)


def test_identical_files_of_a_class_stay_together(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 4, "b": 4})
    for number in range(4):
        for copy in range(5):
            _image(root / "a" / f"copy{copy}of{number}.png", number)
    packed = pack(_open(root), 4, tmp_path)
    seen = [{value for value, _ in _values(s)} for s in (packed.train, packed.val, packed.test)]
    assert sum(len(values) for values in seen) == 8


@pytest.mark.parametrize("val", ["val", "valid", "Validation", None])
def test_split_layout_is_kept_and_val_is_carved_if_need_be(tmp_path: Path, val: str | None) -> None:
    root = tmp_path / "set"
    _fill(root / "train", {"a": 10, "b": 10})
    _fill(root / "test", {"a": 2, "b": 3}, start=100)
    if val:
        _fill(root / val, {"a": 1, "b": 1}, start=200)
    dataset = _open(root)
    assert _counts(dataset) == ((20, 2, 5) if val else (16, 4, 5))
    packed = pack(dataset, 4, tmp_path)
    assert {value for value, _ in _values(packed.test)} == set(range(100, 105))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"train": 3, "bus": 3, "car": 3})
    assert _open(root).classes == ("bus", "car", "train")


def test_what_is_hidden_or_no_image_is_ignored_and_links_are_followed(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 5, "b": 4})
    content_hash = _open(root).content_hash
    (root / "readme.txt").write_text("hello", encoding="utf-8")
    (root / "a" / "notes.md").write_text("hello", encoding="utf-8")
    (root / ".hidden").mkdir()
    (root / "a" / "._0.jpg").write_bytes(b"resource fork")
    (root / "b" / "again").symlink_to(root / "b")
    outside = tmp_path / "outside.png"
    (root / "a" / "4.png").rename(outside)
    (root / "a" / "link.png").symlink_to(outside)
    assert _open(root).content_hash == content_hash


@pytest.mark.parametrize("asked", [2, 9, 40])
def test_subsets_are_nested_and_keep_the_proportions(tmp_path: Path, asked: int) -> None:
    root = _fill(tmp_path / "set", {"a": 60, "b": 20})
    some = pack(_open(root, SplitSizes(train=asked)), 4, tmp_path)
    everything = pack(_open(root), 4, tmp_path)
    assert _values(some.train) == _values(everything.train)[:asked]
    assert _values(some.test) == _values(everything.test)
    of_b = Counter(some.train.labels.tolist())[1]
    assert abs(of_b - asked / 4) <= 1


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _fill(tmp_path / "set", {"a": 3, "b": 3})
    assert open_dataset("folder:~/set", SplitSizes(), cache_dir=tmp_path).name == "folder:set"


def _loose(root: Path) -> None:
    _image(root / "1.png", 1)


def _loose_beside_classes(root: Path) -> None:
    _fill(root, {"a": 3, "b": 3})
    _image(root / "1.png", 99)


def _empty_class(root: Path) -> None:
    _fill(root, {"a": 3, "b": 3})
    (root / "c").mkdir()


def _same_in_two_classes(root: Path) -> None:
    _fill(root, {"a": 3, "b": 3})
    _image(root / "b" / "twin.png", 0)


def _leak(root: Path) -> None:
    _fill(root / "train", {"a": 3, "b": 3})
    _fill(root / "test", {"a": 1, "b": 1}, start=50)
    _image(root / "test" / "a" / "twin.png", 0)


def _differing(root: Path) -> None:
    _fill(root / "train", {"a": 3, "b": 3, "c": 3})
    _fill(root / "test", {"a": 1, "b": 1}, start=50)


def _no_test(root: Path) -> None:
    _fill(root / "train", {"a": 3, "b": 3})
    _fill(root / "val", {"a": 1, "b": 1}, start=50)


def _splits_and_more(root: Path) -> None:
    _fill(root / "train", {"a": 3, "b": 3})
    _fill(root / "test", {"a": 1, "b": 1}, start=50)
    _fill(root / "extra", {"a": 1, "b": 1}, start=60)


def _splits_without_classes(root: Path) -> None:
    _fill(root, {"train": 3, "test": 3})


def _two_vals(root: Path) -> None:
    for start, name in enumerate(("train", "test", "val", "valid")):
        _fill(root / name, {"a": 3, "b": 3}, start=start * 10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "No images found in .*expected PATH/class/\\*.jpg"),
        (lambda root: _fill(root, {"a": 5}), "only the class 'a'"),
        (
            lambda root: _fill(root, {"a": 5, "b": 2}),
            "1 class has fewer than 3 distinct images.*'b' \\(2\\)",
        ),
        (_loose, "lie directly in"),
        (_loose_beside_classes, "images beside them"),
        (_empty_class, "'c'.*0 images"),
        (
            _same_in_two_classes,
            "(?s)1 image is in two classes:.*0.png \\(a\\) and .*twin.png \\(b\\)",
        ),
        (_leak, "(?s)in two splits.*0.png \\(train\\) and .*twin.png \\(test\\)"),
        (_differing, "'test' has no 'c'"),
        (_no_test, "has no test images.*\n.*--test-from val takes"),
        (_splits_and_more, "beside them: 'extra'"),
        (_splits_without_classes, "lie directly in .*train"),
        (_two_vals, "two folders for one split"),
    ],
)
def test_each_mistake_has_one_clear_error(tmp_path: Path, make: object, said: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    assert callable(make)
    make(root)
    with pytest.raises(UserError, match=said):
        _open(root)


def test_no_folder_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        _open(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="is a file") as caught:
        _open(tmp_path / "file")
    assert "PATH/CLASS/*.jpg" in (caught.value.hint or "")


def test_more_than_there_is(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 10, "b": 10})
    with pytest.raises(UserError, match="15 train images were requested; folder:set has 12"):
        _open(root, SplitSizes(train=15))


def test_unreadable_images_stop_packing_or_are_left_out(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 10, "b": 10})
    clean = _open(root).content_hash
    for number in range(7):
        (root / "a" / f"bad{number}.jpg").write_bytes(b"bad" + bytes([number]))
    with pytest.raises(UserError, match="7 images cannot be read") as caught:
        pack(_open(root), 4, tmp_path)
    assert "--skip-unreadable" in (caught.value.hint or "")
    skipping = _open(root, skip=True)
    assert skipping.content_hash == clean
    assert len(skipping.skipped) == 7
    assert pack(skipping, 4, tmp_path).train.images.shape == (12, 4, 4, 3)


def test_empty_files_and_dangling_links_are_unreadable(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 5, "b": 5})
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(UserError, match="(?s)2 images.*the file is empty.*No such file"):
        _open(root)
    assert len(_open(root, skip=True).skipped) == 2


def test_a_class_of_nothing_but_unreadable_images(tmp_path: Path) -> None:
    root = _fill(tmp_path / "set", {"a": 5, "b": 5})
    (root / "c").mkdir()
    (root / "c" / "bad.png").write_bytes(b"bad")
    with pytest.raises(UserError, match="'c' has 0 images that can be used"):
        _open(root, skip=True)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_orders_are_permutations_whose_prefixes_are_balanced(labels: list[int]) -> None:
    keys = [f"{position * 7919 % 101:03d}{position}" for position in range(len(labels))]
    total = Counter(labels)
    for order in (balanced_order(labels, keys), proportional_order(labels, keys)):
        assert sorted(order) == list(range(len(labels)))
        assert {labels[p] for p in order[: len(total)]} == set(labels)
    for size in range(len(labels) + 1):
        had = Counter(labels[p] for p in balanced_order(labels, keys)[:size])
        most = max(had.values(), default=0)
        assert all(had[c] >= min(most - 1, total[c]) for c in total)
        had = Counter(labels[p] for p in proportional_order(labels, keys)[:size])
        assert all(abs(had[c] - size * total[c] / len(labels)) <= len(total) for c in total)


def test_natural_order() -> None:
    assert sorted(["b10", "b9", "B2", "10", "9", "a"], key=natural_key) == [
        "9",
        "10",
        "a",
        "B2",
        "b9",
        "b10",
    ]
