"""What ``advise`` says before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bench.advise.advise import Question
from bench.advise.plan import Step
from bench.advise.wishes import Wishes
from bench.cli import advise as command

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
