"""The plan that ``advise`` prints before it begins, and its usage errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from bench.advise.advise import Question
from bench.advise.plan import Step
from bench.advise.wishes import Wishes
from bench.cli import advise as command
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
        (["folder:one"], "has only the class 'a'"),
        (["folder:two"], "2 classes have fewer than 3 distinct images"),
        (["folder:single"], "'b'"),
    ],
)
def test_mistakes_are_told_in_words(
    words: list[str], message: str, here: Cli, tmp_path: Path
) -> None:
    folders = {"one": {"a": 5}, "two": {"a": 1, "b": 1}, "single": {"a": 30, "b": 1}}
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
