"""The plan that ``advise`` prints before it begins, and its usage errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from bench.advise.advise import Question, open_images
from bench.advise.plan import Step
from bench.advise.wishes import Wishes
from bench.cli import advise as command
from bench.data import FileRules
from tests.unit.conftest import Cli

SIZES = {"large": 3_000_000, "small": 700_000}


class _Laboratory:
    def parameters_of(self, backbone: str, head: str) -> int:
        return SIZES[backbone]


def _planned(laboratory: Any, wishes: Wishes) -> list[Step]:
    """Return the plan for networks of which the third has no weights here."""
    (name,) = wishes.backbones
    if name == "absent":
        return [Step("absent is left out: no weights.", 0.0)]
    return [Step(f"probes of {name}", 2.0), Step("a trial", 3.0), Step("a trial", 9.0)]


@pytest.mark.parametrize(
    ("backbones", "most", "said"),
    [
        (("large", "small"), None, "probes of large, some 2 s, and of 1 other network; then"),
        (("large", "small"), 1_000_000, "probes of small, some 2 s; then"),
        (("absent", "small"), None, "probes of small, some 2 s; then"),
    ],
)
def test_the_plan_begins_with_the_first_network_that_may_be_used(
    backbones: tuple[str, ...], most: int | None, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(command, "plan_of", _planned)
    monkeypatch.setitem(SIZES, "absent", 500_000)
    wishes = Wishes(backbones, ("torch",), max_parameters=most)
    question = Question("photos", 60.0, wishes, "cpu", 64, 16, Path("unused"))
    command._tell_plan(cast(Any, _Laboratory()), question)
    text = capsys.readouterr().err
    assert f"planned: {said}" in text
    assert "takes 3 to 9 s" in text


def test_a_part_of_the_training_images_has_a_part_of_the_validation_images(tmp_path: Path) -> None:
    """Trials train on both where the folder has no validation images of its own: on 75 % of 36 +
    8 images, as a full run trains on 36, and not on 75 % of 36 + 60."""
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(200):
            image = Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8).astype(np.uint8))
            image.save(tmp_path / "images" / label / f"{number}.png")
    question = Question(
        f"folder:{tmp_path / 'images'}", 60.0, Wishes(("x",), ("torch",)), "cpu", 8, 16, tmp_path,
        train_images=36,
    )  # fmt: skip
    images = open_images(question, FileRules(), tmp_path / "cache")
    assert images.seen is images.whole
    assert (images.whole.train_images, images.whole.val_images) == (36, 8)
    assert images.whole.test_images == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--budget", "5s"], "too short even for the first evidence"),
        (["photos", "--budget", "soon"], "--budget: 'soon' is no time"),
        (["photos", "--budget", ""], "--budget: '' is no time"),
        (["photos", "--budget", "4000h"], "100 days are the most"),
        (["photos", "--budget-usd", "3"], "belong together"),
        (["photos", "--budget", "9m", "--price-per-hour", "2"], "excludes --budget-usd"),
        (["photos", "--budget-usd", "-3", "--price-per-hour", "2"], "must be numbers above 0"),
        (["fotos"], "Did you mean 'photos'"),
        (["photos", "--backbones", "resnet5"], "Did you mean 'resnet50'"),
        (["photos", "--frameworks", "torc"], "Did you mean 'torch'"),
        (["photos", "--max-memory", "lots"], "'lots' is no size"),
        (["photos", "--head", "big"], "Unknown head 'big'"),
        (["photos", "--margin", "nan"], "Invalid value for '--margin'"),
        (["photos", "--target", "nan"], "Invalid value for '--target'"),
        (["folder:good", "--train-images", "1"], "1 are fewer than the 2 classes"),
        (["folder:one"], "has only the class 'a'"),
        (["folder:two"], "2 classes have fewer than 3 distinct images"),
        (["folder:single"], "'b'"),
    ],
)
def test_mistakes_are_told_in_words(
    words: list[str], message: str, here: Cli, tmp_path: Path
) -> None:
    folders = {"one": {"a": 5}, "two": {"a": 1, "b": 1}, "single": {"a": 30, "b": 1},
               "good": {"a": 20, "b": 20}}  # fmt: skip
    for name, classes in folders.items():
        for label, count in classes.items():
            folder = tmp_path / "work" / name / label
            folder.mkdir(parents=True)
            for number in range(count):
                shade = 8 * number + (4 if label == "b" else 0)
                Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(folder / f"{number}.png")
    done = here("advise", *words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
