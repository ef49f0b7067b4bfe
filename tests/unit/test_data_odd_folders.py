"""Folders as people have them: odd names, litter, duplicates, missing splits, dangerous files."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cli.options import names, paths
from bench.data import Dataset, FileRules, SplitSizes, decode, open_dataset, pack
from bench.data.decode import UnreadableImageError, load_rgb
from bench.errors import UserError
from bench.runner.suite import load_suite


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value % 256, value // 256, 7)).save(path)


def fill(root: Path, counts: dict[str, int], start: int = 0, suffix: str = ".png") -> None:
    for folder, count in counts.items():
        for _ in range(count):
            image(root / folder / f"{start}{suffix}", start)
            start += 1


def opened(root: Path, kind: str = "folder", **rules: Any) -> Dataset:
    return open_dataset(
        f"{kind}:{root}", SplitSizes(), cache_dir=root.parent, rules=FileRules(**rules)
    )


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return dataset.train_images, dataset.val_images, dataset.test_images


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"),
        ("TRAIN", "test-images"),
        ("trainset", "testset"),
        ("train_data", "test data"),
        ("flowers_train", "flowers_test"),
        ("my-train-256", "my-test-256"),
    ],
)
def test_split_folders_of_published_sets_are_splits(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / "set", {f"{train}/a": 20, f"{train}/b": 20})
    fill(tmp_path / "set", {f"{test}/a": 3, f"{test}/b": 4}, start=100)
    found = opened(tmp_path / "set")
    assert found.classes == ("a", "b")
    assert counts(found) == (34, 6, 7)


def test_a_split_called_dev_is_for_validation(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "dev", "test")):
        fill(tmp_path / "set", {f"{split}/a": 3, f"{split}/b": 3}, start=start * 10)
    assert counts(opened(tmp_path / "set")) == (6, 6, 6)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("data/train/a", "data/test/a", "extra/other/a"), "'?data.* holds split folders"),
        (("images/a", "images/b", "parts/a", "parts/b"), "holds the same sub-folders"),
        (("north/a", "north/b", "south/a", "south/b"), "holds the same sub-folders"),
        (("images", "masks"), "images beside their masks"),
        (("JPEGImages", "Annotations"), "images beside their masks"),
        (("JPEGImages", "SegmentationClass"), "images beside their masks"),
        (("leftImg8bit/a", "gtFine/a"), "images beside their masks"),
        (("train", "train_masks", "test"), "images beside their masks"),
        (("input", "target"), "images beside their masks"),
        (("images", "labels_png"), "images beside their masks"),
        (("train/a", "train/b", "unlabeled"), "other folders with images beside them"),
        (("train/a", "train/b", "c"), "other folders with images beside them"),
        (("data/train/a", "data/val/a", "extra"), "'?data.* holds split folders"),
        (("fold1/a", "fold1/b", "fold2/a", "fold2/b", "fold3/a"), "holds the same sub-folders"),
        (("flowers_train", "flowers_test"), "not in class folders"),
        (("a", "b", "Testing/a", "Testing/b"), r"split folders \('Testing'\) and other folders"),
        (("a", "b", "validation/a"), r"split folders \('validation'\) and other folders"),
        (("a", "a/masks", "b", "b/masks"), "holds images and their masks"),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    fill(tmp_path / "set", dict.fromkeys(folders, 5))
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "set")


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    image(tmp_path / "set" / "a" / "1_mask.png", 50)
    with pytest.raises(UserError, match="1 file named like masks of the images beside them"):
        opened(tmp_path / "set")
    (tmp_path / "set" / "a" / "1_mask.png").rename(tmp_path / "set" / "a" / "gas_mask.png")
    assert sum(counts(opened(tmp_path / "set"))) == 11


def test_a_folder_around_the_class_folders_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"inner/a": 5, "inner/b": 5})
    with pytest.raises(UserError, match="has only the class 'inner'") as error:
        opened(tmp_path / "set")
    assert error.value.hint == f"If 'a', 'b' are the classes, give folder:{tmp_path / 'set/inner'}."


def test_classes_may_hold_sub_folders(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a/2019": 4, "a/2020": 4, "b/2019": 4, "c": 4})
    assert opened(tmp_path / "set").classes == ("a", "b", "c")


@pytest.mark.parametrize(
    "classes",
    [("test tube", "train station"), ("train", "tram"), ("mask", "no mask"), ("glass", "trash"),
     ("bullet_train", "freight_train")],
)  # fmt: skip
def test_classes_may_be_called_like_splits_masks_or_litter(
    tmp_path: Path, classes: tuple[str, str]
) -> None:
    fill(tmp_path / "set", dict.fromkeys(classes, 5))
    assert opened(tmp_path / "set").classes == classes


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jfif", "JPEG"),
        (".jpe", "JPEG"),
        (".ppm", "PPM"),
        (".avif", "AVIF"),
        (".jp2", "JPEG2000"),
        ("", "JPEG"),
        (".1", "PNG"),
    ],
)
def test_images_are_known_by_their_content(tmp_path: Path, suffix: str, kind: str) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "set" / "a" / f"more{suffix}", kind)
    found = opened(tmp_path / "set")
    assert sum(counts(found)) == 11
    assert found.remarks == ()


def test_other_files_are_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    for number in range(7):
        (tmp_path / "set" / "a" / f"{number}.txt").write_text("no image")
    (tmp_path / "set" / "README").write_text("about")
    (remark,) = opened(tmp_path / "set").remarks
    assert remark.startswith("8 files left out, as no image is in them (7 .txt, 1 no suffix): ")
    assert remark.endswith("and 5 more")


def test_what_systems_leave_behind_is_neither_class_nor_image(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    litter = ("@eaDir", "#recycle", "Thumbs", ".thumbnails", "$RECYCLE.BIN", "__MACOSX",
              "@SynoResource", "~snapshot", "thumbnails", "_vti_cnf", "FOUND.000", "RECYCLED",
              "Network Trash Folder", "Temporary Items")  # fmt: skip
    for place in ("", "a/"):
        fill(tmp_path / "set", {place + name: 2 for name in litter}, start=50)
        (tmp_path / "set" / place / "Thumbs.db").write_bytes(b"x")
    found = opened(tmp_path / "set")
    assert (found.classes, sum(counts(found)), found.remarks) == (("a", "b"), 10, ())


def test_both_spellings_of_an_accent_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path / "set", {f"train/{composed}": 5, "train/tea": 5})
    fill(tmp_path / "set", {f"test/{decomposed}": 5, "test/tea": 5}, start=50)
    assert opened(tmp_path / "set").classes == (composed, "tea")


def test_all_duplicates_are_told_at_once_and_can_be_dropped(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root, {"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 3})
    for number in range(8):
        shutil.copy(root / "train" / "a" / f"{number}.png", root / "test" / "a" / f"x{number}.png")
    with pytest.raises(UserError, match="(?s)8 images are in two splits.*and 3 more.*--drop-dup"):
        opened(root)
    found = opened(root, drop_duplicates=True)
    assert sum(counts(found)) == 32 + 6 + 8
    assert found.test_images == 14
    assert "8 files left out, as their images are also in a later split" in found.remarks
    shutil.copy(root / "test" / "b" / "43.png", root / "train" / "a" / "other.png")
    with pytest.raises(UserError, match="1 image is in two classes"):
        opened(root)
    found = opened(root, drop_duplicates=True)
    assert found.test_images == 13
    assert "2 files left out, as their images are in two classes" in found.remarks


def test_all_small_classes_are_told_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 9, "r1": 1, "r2": 1, "r3": 2})
    with pytest.raises(UserError, match=r"3 classes.*'r1' \(1\), 'r2' \(1\), 'r3' \(2\)"):
        opened(tmp_path / "set")


def test_test_images_come_from_where_the_user_says(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root, {"train/a": 20, "train/b": 20, "val/a": 4, "val/b": 4})
    with pytest.raises(UserError, match=r"no test images.\n--test-from val .*--test-from train:15"):
        opened(root)
    found = opened(root, test_from=("val", 1.0))
    assert counts(found) == (34, 6, 8)
    assert "test images: those of the split 'val' (--test-from val)" in found.remarks
    assert counts(opened(root, test_from=("train", 0.25))) == (30, 8, 10)
    plain = tmp_path / "plain"
    fill(plain, {"a": 9, "b": 9})
    with pytest.raises(UserError, match="--test-from: .* has no split folders"):
        opened(plain, test_from=("val", 1.0))


def pages(root: Path, train: str, test: str) -> Path:
    for number in range(16):
        image(root / "images" / f"{number}.png", number)
        image(root / "images" / f"t{number}.png", 100 + number)
    (root / "labels").mkdir()
    lines = "".join(f"{n}.png {n}\n" for n in range(16))
    tests = "".join(f"t{n}.png {n}\n" for n in range(16))
    for name, text in (("train", lines + train), ("val", tests), ("test", tests + test)):
        text = text.replace("t", "v") if name == "val" else text
        (root / "labels" / f"{name}.txt").write_text(text)
    for number in range(16):
        image(root / "images" / f"v{number}.png", 200 + number)
    return root


def test_a_page_has_one_label_and_one_split(tmp_path: Path) -> None:
    assert counts(opened(pages(tmp_path / "good", "", ""), "rvl_cdip")) == (16, 16, 16)
    twice = pages(tmp_path / "labels", "3.png 4\n", "")
    with pytest.raises(UserError, match="3.png has two labels: 3 in .*, line 4 and 4 in"):
        opened(twice, "rvl_cdip")
    copied = pages(tmp_path / "copied", "", "")
    shutil.copy(copied / "images" / "3.png", copied / "images" / "t3.png")
    with pytest.raises(UserError, match=r"(?s)1 image is in two splits.*3.png \(train\)"):
        opened(copied, "rvl_cdip")
    assert counts(opened(copied, "rvl_cdip", drop_duplicates=True)) == (15, 16, 16)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_files_of_windows_editors_are_read(tmp_path: Path, encoding: str) -> None:
    def rewritten(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        if encoding == "utf-16-le-bom":
            path.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
        else:
            path.write_text(text, encoding=encoding)

    root = pages(tmp_path / "set", "", "")
    rewritten(root / "labels" / "train.txt")
    assert counts(opened(root, "rvl_cdip")) == (16, 16, 16)
    suite = tmp_path / "my.toml"
    suite.write_text('name = "mine"\n[[grid]]\ndataset = "folder:é"\n', encoding="utf-8")
    rewritten(suite)
    assert load_suite(str(suite)).grid[0].dataset == "folder:é"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/tmp/ran) (w) file closefile\n"
FOREIGN = {
    "eps": POSTSCRIPT,
    "psd": b"8BPS\0\1" + bytes(40),
    "icns": b"icns" + bytes(60),
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "gbr": b"\0\0\0\x1c\0\0\0\2\0\0\0\x08\0\0\0\x08\0\0\0\4GIMP" + bytes(300),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_only_decoders_of_pixels_see_a_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_program(*_: Any, **__: Any) -> Any:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", run_program)
    monkeypatch.setattr("subprocess.run", run_program)
    for name in ("x.jpg", "x"):
        (tmp_path / name).write_bytes(FOREIGN[kind])
        assert not decode.is_image(tmp_path / name)
        with pytest.raises(UnreadableImageError, match="not an image that Pillow can identify"):
            load_rgb(tmp_path / name)


def test_pipes_sockets_and_devices_are_no_images(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    os.mkfifo(tmp_path / "set" / "a" / "pipe")
    os.mkfifo(tmp_path / "set" / "a" / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "set" / "a" / "zero.png")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(tmp_path / "set" / "a")  # the name of a socket must be short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
        with pytest.raises(UserError, match="(?s)3 images cannot be read.*not a regular file"):
            opened(tmp_path / "set")
        found = opened(tmp_path / "set", skip_unreadable=True)
    assert (sum(counts(found)), len(found.skipped)) == (10, 3)
    assert "1 file left out" in found.remarks[0]
    suite = tmp_path / "pipe.toml"
    os.mkfifo(suite)
    with pytest.raises(UserError, match="pipe.toml' does not exist|not a regular file"):
        load_suite(str(suite))


@pytest.mark.parametrize(
    ("values", "mode", "tags", "expected"),
    [
        ([0.0, 0.5, 1.0], "F", {}, [0, 128, 255]),
        ([0.0, 128.0, 255.0], "F", {}, "floating-point samples from 0 to 255"),
        ([-1.0, 0.0, 1.0], "F", {}, "floating-point samples from -1 to 1"),
        ([-1.0, 0.0, 1.0], "F", {340: -1.0, 341: 1.0}, [0, 128, 255]),
        ([0, 128, 255], "I", {}, "32-bit samples from 0 to 255"),
        ([0, 128, 255], "I", {341: 255}, [0, 128, 255]),
        ([0, 32896, 65535], "I;16", {}, [0, 128, 255]),
        ([0, 2048, 4095], "I;16", {}, "16-bit samples from 0 to 4095"),
        ([0, 2048, 4095], "I;16", {281: 4095}, [0, 128, 255]),
    ],
)
def test_deep_samples_are_scaled_by_what_the_file_says(
    tmp_path: Path, values: list[float], mode: str, tags: dict[int, float], expected: Any
) -> None:
    kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([values], kinds[mode])).save(path, tiffinfo=dict(tags))
    if isinstance(expected, str):
        with pytest.raises(UnreadableImageError, match=expected):
            load_rgb(path)
    else:
        assert np.asarray(load_rgb(path))[0, :, 0].tolist() == expected


def test_a_16_bit_png_uses_its_whole_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4095, 65535]], np.uint16)).save(tmp_path / "dark.png")
    assert np.asarray(load_rgb(tmp_path / "dark.png"))[0, :, 0].tolist() == [0, 16, 255]


def test_large_images_are_admitted_by_an_option(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 5, "b": 5})
    Image.new("L", (300, 200), 90).save(tmp_path / "set" / "a" / "scan.png")
    small = opened(tmp_path / "set", max_pixels=50_000)
    with pytest.raises(UserError, match="60,000 pixels are more than 50,000; --max-pixels 60000"):
        pack(small, 8, tmp_path)
    pack(opened(tmp_path / "set", max_pixels=60_000), 8, tmp_path)
    assert len(opened(tmp_path / "set", skip_unreadable=True, max_pixels=50_000).skipped) == 1


def test_large_images_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "PIXELS_AT_ONCE", 100)
    budget = decode._PixelBudget()
    at_once, most, lock = 0, 0, threading.Lock()

    def decode_one(pixels: int) -> None:
        nonlocal at_once, most
        with budget.taken(pixels):
            with lock:
                at_once += pixels
                most = max(most, at_once)
            threading.Event().wait(0.005)
            with lock:
                at_once -= pixels

    threads = [threading.Thread(target=decode_one, args=(size,)) for size in (40, 40, 40, 500) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert at_once == 0
    assert most == 500


@pytest.mark.parametrize("folder", ["red,green", "red, green"])
def test_a_comma_in_a_path_is_part_of_it(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    root.mkdir()
    (root / "net.py").write_text("")
    assert paths(names(f"photos,folder:{root},mnist5k")) == ["photos", f"folder:{root}", "mnist5k"]
    own = f"module:{root}/net.py:build"
    assert paths(names(f"alexnet,{own},vgg16")) == ["alexnet", own, "vgg16"]
    assert paths(names("folder:x,photos")) == ["folder:x", "photos"]
    assert paths(names("folder:x,nothing")) == ["folder:x", "nothing"]


def test_the_options_that_chose_the_files_are_recorded(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root, {"train/a": 20, "train/b": 20})
    found = opened(root, test_from=("train", 0.15), drop_duplicates=True, max_pixels=9_000_000)
    assert found.options == (
        "--drop-duplicates", "--test-from train:15%", "--max-pixels 9000000",
    )  # fmt: skip
    assert opened(root, test_from=("train", 0.15)).options == ("--test-from train:15%",)


def test_no_class_loses_all_its_training_images_to_the_test(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root, {"train/a": 8, "train/b": 2, "val/a": 2, "val/b": 2})
    found = opened(root, test_from=("train", 0.8))
    labels = found.source.labels("train")
    assert set(labels) == {0, 1}
    assert counts(found) == (3, 4, 7)


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 3})
    odd = os.fsdecode(os.fsencode(tmp_path / "set") + b"/b\xff")
    for number in range(3):
        image(Path(odd) / f"{number}.png", 50 + number)
    fill(tmp_path / "set", {"c\nd": 3}, start=80)
    assert opened(tmp_path / "set").classes == ("a", "b\\xff", "c\\nd")


@pytest.mark.parametrize(
    "folders",
    [
        ("train/a", "train/b", "val/a", "val/b", "unlabeled"),
        ("train/a", "train/b", "train/c", "rest/a", "rest/b"),
        ("train/images", "train/masks", "test/images", "test/masks"),
        ("image", "label"),
    ],
)
def test_more_folders_that_are_no_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    fill(tmp_path / "set", dict.fromkeys(folders, 5))
    with pytest.raises(UserError):
        opened(tmp_path / "set")


@pytest.mark.parametrize(
    ("values", "kind", "tags", "expected"),
    [
        ([0, 65535], np.uint16, {262: 0}, [255, 0]),
        ([0, 0], np.uint16, {}, [0, 0]),
        ([np.nan, 1.0], np.float32, {}, "no finite numbers"),
    ],
)
def test_inverted_black_and_missing_samples(
    tmp_path: Path, values: list[float], kind: Any, tags: dict[int, int], expected: Any
) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([values], kind)).save(path, tiffinfo=dict(tags))
    if isinstance(expected, str):
        with pytest.raises(UnreadableImageError, match=expected):
            load_rgb(path)
    else:
        assert np.asarray(load_rgb(path))[0, :, 0].tolist() == expected
