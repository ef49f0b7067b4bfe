"""``--folds`` and ``--group-by``: every image is tested once, and what belongs together stays
so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import Dataset, FileRules, SplitSizes, open_dataset, pack
from bench.data.model import SPLITS
from bench.errors import UserError
from bench.runner.planner import Planner
from bench.runner.suite import Suite
from bench.training.predictions import UNREADABLE, image_answers, unpacked_groups
from bench.workers.process import Interpreters
from tests.unit.conftest import Cli


def _image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value % 256, value // 256, 7)).save(path)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Return a folder of 23 roses and 17 tulips, five photographs of each plant."""
    root = tmp_path / "flowers"
    for value in range(40):
        name = "rose" if value < 23 else "tulip"
        _image(root / name / f"plant{value // 5}_{value % 5}.png", value)
    return root


def _open(root: Path, **rules: object) -> Dataset:
    return open_dataset(
        f"folder:{root}", SplitSizes(), cache_dir=root.parent / "cache",
        rules=FileRules(**rules),  # type: ignore[arg-type]
    )  # fmt: skip


def _files(dataset: Dataset, split: str) -> list[str]:
    count = getattr(dataset, f"{split}_images")
    return [dataset.source.where(split, n) for n in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_image_is_a_test_image_once(flowers: Path, folds: int) -> None:
    opened = [_open(flowers, fold=(number, folds)) for number in range(1, folds + 1)]
    tested = Counter(file for dataset in opened for file in _files(dataset, "test"))
    assert len(tested) == 40
    assert set(tested.values()) == {1}
    sizes = [dataset.test_images for dataset in opened]
    assert max(sizes) - min(sizes) <= 1
    for dataset in opened:
        parts = [set(_files(dataset, split)) for split in SPLITS]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 40
        for part in parts:
            assert {Path(file).parent.name for file in part} == {"rose", "tulip"}


def test_folds_are_parts_of_one_cross_validation(flowers: Path) -> None:
    first, second = (_open(flowers, fold=(number, 5)).fold for number in (1, 2))
    assert first is not None
    assert second is not None
    assert (first.number, second.number, first.of) == (1, 2, 5)
    assert first.images_sha256 == second.images_sha256
    assert _open(flowers).fold is None
    hashes = {_open(flowers, fold=(number, 5)).content_hash for number in range(1, 6)}
    assert len(hashes) == 5


def test_more_folds_than_a_class_has_images_are_refused_with_a_number(flowers: Path) -> None:
    with pytest.raises(
        UserError, match=r"1 class has fewer than 20 distinct images.*'tulip' \(17\)"
    ) as e:
        _open(flowers, fold=(1, 20))
    assert e.value.hint is not None
    assert "--folds 17" in e.value.hint


def test_a_folder_with_split_folders_has_no_folds(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for value in range(8):
            _image(
                tmp_path / "f" / split / "ab"[value % 2] / f"{value}.png",
                value + 100 * (split == "test"),
            )
    with pytest.raises(UserError, match="--folds: .* has split folders of its own"):
        _open(tmp_path / "f", fold=(1, 2))


@pytest.mark.parametrize("fold", [None, (1, 3)])
def test_what_belongs_together_stays_in_one_split(
    flowers: Path, fold: tuple[int, int] | None
) -> None:
    """A frame of a video in training and the next one in the test would be a leak."""
    dataset = _open(flowers, group_by=r"(plant\d+)_", fold=fold)
    plants = {
        split: {Path(file).name.partition("_")[0] for file in _files(dataset, split)}
        for split in SPLITS
    }
    assert all(plants.values())
    assert not plants["train"] & plants["test"]
    assert not plants["train"] & plants["val"]
    assert not plants["val"] & plants["test"]
    assert set.union(*plants.values()) == {f"plant{n}" for n in range(8)}


def test_groups_reach_the_answers_of_a_run(flowers: Path) -> None:
    dataset = _open(flowers, group_by=r"plant\d+", fold=(1, 2))
    packed = pack(dataset, 8, flowers.parent / "cache")
    groups = packed.test.groups
    assert groups is not None
    plants = [Path(file).name.partition("_")[0] for file in _files(dataset, "test")]
    assert len(set(zip(groups.tolist(), plants, strict=True))) == len(set(plants))
    assert packed.train.groups is None
    kept = image_answers(np.zeros((len(groups), 2)), packed.test.labels, groups)
    assert kept.groups is not None
    assert (unpacked_groups(kept.groups, kept.images) == groups).all()
    assert pack(_open(flowers), 8, flowers.parent / "cache").test.groups is None


@pytest.mark.parametrize("text", ["", "no base64!", "eJwDAAAAAAE=", "eJxjYGBgAAAABAAB"])
def test_damaged_groups_are_refused(text: str) -> None:
    with pytest.raises(UNREADABLE):
        unpacked_groups(text, 3)


def test_crops_of_one_photograph_belong_together(tmp_path: Path) -> None:
    sizes = SplitSizes(36, 18, 36)
    photos = open_dataset("photos", sizes, cache_dir=tmp_path)
    groups = photos.source.groups("test")
    assert groups is not None
    assert (groups == photos.source.labels("test")).all()
    digits = open_dataset("mnist5k", SplitSizes(20, 10, 10), cache_dir=tmp_path)
    assert digits.source.groups("test") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is no regular expression"), ("video", "matches no file below")],
)
def test_a_pattern_that_cannot_be_used_is_refused(
    flowers: Path, pattern: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _open(flowers, group_by=pattern)


@pytest.mark.parametrize("pattern", ["x" * 501, "plant\n"])
def test_a_pattern_that_no_result_could_record_is_refused(flowers: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="at most 500 characters, all printable"):
        _open(flowers, group_by=pattern)


def test_identical_files_stay_together_where_one_of_them_does_not_match(flowers: Path) -> None:
    copy = flowers / "rose" / "copy.png"
    copy.write_bytes((flowers / "rose" / "plant2_0.png").read_bytes())
    opened = _open(flowers, group_by=r"plant(\d+)")
    parts = {split: _files(opened, split) for split in SPLITS}
    (own,) = [split for split, files in parts.items() if str(copy) in files]
    assert {f"plant2_{n}.png" for n in range(5)} <= {Path(file).name for file in parts[own]}
    assert "--group-by: 8 groups of 41 images" in opened.remarks
    some = _open(flowers, group_by=r"plant([0-3])_")
    assert any(r.endswith("files do not match, and each counts by itself") for r in some.remarks)


def test_the_number_of_folds_that_is_advised_works(tmp_path: Path) -> None:
    for value in range(20):
        _image(tmp_path / "set" / ("a" if value < 17 else "b") / f"{value}.png", value)
    with pytest.raises(UserError) as error:
        _open(tmp_path / "set", fold=(1, 5))
    assert error.value.hint is not None
    assert error.value.hint.startswith("Use --folds 3, ")
    assert sum(_open(tmp_path / "set", fold=(n, 3)).test_images for n in (1, 2, 3)) == 20


def test_each_fold_is_a_run_of_its_own_and_ids_without_folds_stay(flowers: Path) -> None:
    suite = Suite.model_validate({
        "name": "t", "backends": ["torch"],
        "grid": [{"dataset": f"folder:{flowers}", "policies": ["from_scratch"], "px": 32}],
    })  # fmt: skip
    planned = Planner(Interpreters({}), cache=flowers.parent / "cache", folds=4).plan(suite)
    assert [run.spec.case.dataset.fold.number for run in planned if run.spec.case.dataset.fold] == [
        1, 2, 3, 4
    ]  # fmt: skip
    assert len({run.spec.run_id for run in planned}) == 4
    (whole,) = Planner(Interpreters({}), cache=flowers.parent / "cache").plan(suite)
    assert "fold" not in whole.spec.model_dump(mode="json")["case"]["dataset"]


def test_options_about_own_images_are_refused_for_embedded_ones(here: Cli) -> None:
    for words in (("--folds", "5"), ("--group-by", "x")):
        done = here("run", "--datasets", "photos", "--dry-run", *words)
        assert done.returncode == 2
        assert f"{words[0]} {words[1]} is about images of your own" in done.stderr
    assert here("run", "--folds", "1").returncode == 2
    done = here("run", "--datasets", "folder:x,photos", "--dry-run", "--folds", "5")
    assert done.returncode == 2
    assert "--folds 5 is about folder:PATH, and these runs use photos, too." in done.stderr
