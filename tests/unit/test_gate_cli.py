"""Mistakes in the options of ``gate`` and ``speed``."""

from __future__ import annotations

import pytest

from tests.unit.conftest import Cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate"], "Nothing to compare"),
        (["gate", "--ab", "a", "b", "--baseline", "x"], "exclude each other"),
        (["gate", "--baseline", "nothing"], "no baseline 'nothing'"),
        (["gate", "--ab-env", "X=1"], "not of the form NAME=A,B"),
        (["gate", "--ab-env", "X=1,2", "--budget", "soon"], "--budget: 'soon' is no time"),
        (["gate", "--ab-env", "X=1,2", "--suite", "smal"], "Did you mean 'smallest'"),
        (["gate", "--ab-env", "X=1,2", "--backends", "torc"], "Did you mean 'torch'"),
        (["gate", "--ab-env", "X=1,2", "--max-slowdown", "3"], "--max-slowdown 3 is no fraction"),
        (["gate", "--ab-env", "X=1,2", "--max-slowdown", "0"], "--max-slowdown 0 is no fraction"),
        (["gate", "calibrate", "--strict", "--blocks", "9"], "--blocks, --strict has no effect"),
        (["gate", "--baseline", "x", "--suite", "usual"], "--suite has no effect"),
        (["gate", "--stored", "g", "--turns"], "--turns has no effect"),
        (["gate", "--baseline", "x", "--against", "y", "--confirm"], "exclude each other"),
        (["gate", "--ab-env", "X=1,2", "--format", "xml"], "Unknown format 'xml'"),
        (["gate", "--ab-env", "X=1,2", "--target", "none.py:make"], "does not exist"),
        (["gate", "calibrat"], "Did you mean 'calibrate'"),
        (["gate", "--stored", "."], "not the folder of a comparison"),
        (["speed", "histry"], "Did you mean 'history'"),
        (["speed", "--device", "all"], "one device"),
    ],
)
def test_mistakes_are_told_in_words(words: list[str], message: str, here: Cli) -> None:
    done = here(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
