"""Launches that an interrupted measurement has kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from bench.speed import measure
from bench.speed.cases import TimedCase, own_step
from bench.speed.launch import CaseFailure, Launch, Place
from bench.speed.partial import PartialLaunches
from bench.workers.process import Interpreters
from tests.unit.made_launches import made_launch

CASE = own_step(Path("step.py"), "make", "cpu")


class _Launcher:
    def __init__(self, stops_at: int | None = None) -> None:
        self.count, self._stops_at = 0, stops_at

    def __call__(self, cases: Sequence[TimedCase], place: Place, random: Random) -> Launch:
        if self.count == self._stops_at:
            raise KeyboardInterrupt
        self.count += 1
        return made_launch([0.01 * self.count]).model_copy(update={"backend": CASE.backend})


def _measure(folder: Path, question: str = "q") -> list[Launch]:
    kept = PartialLaunches(folder / ".name.launches", {"what": question})
    place = Place(Interpreters({}), folder)
    return measure.measure_suite([CASE], place, 5, kept, lambda done, of: None)


def test_ctrl_c_keeps_launches_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "launch", _Launcher(stops_at=3))
    with pytest.raises(KeyboardInterrupt):
        _measure(tmp_path)
    again = _Launcher()
    monkeypatch.setattr(measure, "launch", again)
    assert len(_measure(tmp_path)) == 5
    assert again.count == 2


def test_another_question_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "launch", _Launcher(stops_at=3))
    with pytest.raises(KeyboardInterrupt):
        _measure(tmp_path)
    again = _Launcher()
    monkeypatch.setattr(measure, "launch", again)
    _measure(tmp_path, "another")
    assert again.count == 5


@pytest.mark.parametrize("text", ["", "{", "null", "[]\n{}\n"])
def test_a_damaged_file_is_replaced(text: str, tmp_path: Path) -> None:
    path = tmp_path / ".x.launches"
    path.write_text(text)
    kept = PartialLaunches(path, {})
    assert kept.launches == []
    kept.add(made_launch([0.01]))
    assert len(PartialLaunches(path, {}).launches) == 1
    kept.remove()
    assert not path.exists()


def test_a_case_that_fails_ends_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = CaseFailure(status="crashed", message="no more memory")
    failed = made_launch([0.01]).model_copy(update={"cases": {}, "failures": {"c": failure}})
    monkeypatch.setattr(measure, "launch", lambda *_: failed)
    with pytest.raises(Exception, match="timing c failed: no more memory"):
        _measure(tmp_path)
