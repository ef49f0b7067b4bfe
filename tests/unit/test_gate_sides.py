"""The sides of a comparison: interpreters, revisions, settings, the null arm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.catalog.backends import OWN_STEP
from bench.errors import UserError
from bench.gate.sides import (
    common_backends,
    compared_sides,
    interpreter_side,
    null_side,
    setting_sides,
)
from bench.speed.launch import PADDING_BYTES, Place
from bench.speed.software import software_differences
from bench.workers.process import Interpreters
from tests.unit.made_launches import SOFTWARE


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(Interpreters({}), tmp_path / "cache")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two revisions of a step."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)

    git("init", "-b", "main")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "a")
    for number, tag in enumerate(("v1", "v2")):
        (folder / "step.py").write_text(f"VERSION = {number}\n")
        (folder / "src" / "own.py").write_text(f"VERSION = {number}\n")
        git("add", "-A")
        git("commit", "-m", tag)
        git("tag", tag)
    return folder


def test_an_interpreter_or_its_environment_is_a_side(place: Place, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.touch()
    for text in (str(python), str(tmp_path / "venv")):
        side = interpreter_side(text, place)
        assert side is not None
        assert side.place.interpreters.of("torch") == python
        assert side.place.interpreters.of(OWN_STEP) == python
    assert interpreter_side("main", place) is None


def test_settings_are_sides(place: Place) -> None:
    a, b = setting_sides(["OMP_NUM_THREADS=1,2", "X=,y"], place)
    assert a.place.variables == {"OMP_NUM_THREADS": "1", "X": ""}
    assert b.place.variables == {"OMP_NUM_THREADS": "2", "X": "y"}
    assert b.label == "OMP_NUM_THREADS=2 X=y"


@pytest.mark.parametrize(
    "text", ["OMP_NUM_THREADS", "OMP_NUM_THREADS=1", "=1,2", "A B=1,2", "A=1,2,3"]
)
def test_a_malformed_setting_is_refused(text: str, place: Place) -> None:
    with pytest.raises(UserError, match="not of the form NAME=A,B"):
        setting_sides([text], place)


def test_a_setting_that_comes_twice_is_refused(place: Place) -> None:
    with pytest.raises(UserError, match="names A twice"):
        setting_sides(["A=1,2", "A=3,4"], place)


def test_revisions_of_a_targets_repository_are_sides(place: Place, repository: Path) -> None:
    a, b = compared_sides(("v1", "main"), place, repository / "step.py")
    for side, number in ((a, 0), (b, 1)):
        assert side.target is not None
        assert side.target.read_text() == f"VERSION = {number}\n"
        assert side.target.parent in side.place.site.paths
        assert side.target.parent / "src" == side.place.site.paths[0]
        assert side.commit is not None
    assert len(str(a.target)) == len(str(b.target)), "paths of one length"
    assert a.place.site.root == place.site.root


def test_an_unknown_revision_has_a_suggestion(place: Place, repository: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'main'"):
        compared_sides(("v1", "mian"), place, repository / "step.py")


def test_a_target_that_a_revision_lacks_is_told(place: Place, repository: Path) -> None:
    (repository / "new.py").write_text("")
    with pytest.raises(UserError, match=r"no 'new.py' in revision 'v1'"):
        compared_sides(("v1", "v2"), place, repository / "new.py")


def test_a_target_outside_of_a_repository_is_told(place: Place, tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text("")
    with pytest.raises(UserError, match="in no git repository"):
        compared_sides(("v1", "v2"), place, tmp_path / "step.py")


def test_an_interpreter_and_a_revision_do_not_mix(place: Place) -> None:
    with pytest.raises(UserError, match="no Python interpreter, but the other side is"):
        compared_sides((sys.executable, "HEAD"), place)
    with pytest.raises(UserError, match="no interpreter '/no/such/python'"):
        compared_sides((sys.executable, "/no/such/python"), place)


def test_the_null_arm_is_the_same_side_elsewhere(place: Place) -> None:
    side = interpreter_side(sys.executable, place)
    assert side is not None
    null = null_side(side)
    assert null.place.site.root != side.place.site.root
    assert null.place.site.root.resolve() == side.place.site.root.resolve()
    python = null.place.interpreters.of("torch")
    assert os.path.realpath(python) == os.path.realpath(sys.executable)
    assert python != Path(sys.executable)
    code = "import sys; print(sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert os.path.realpath(done.stdout.strip()) == os.path.realpath(sys.prefix)
    assert null.place.padding_bytes[0] >= 2 * PADDING_BYTES > side.place.padding_bytes[1]


def test_a_backend_that_a_side_lacks_is_left_out_or_refused() -> None:
    lacks = {"torch": {}, "keras-tensorflow": {"b": ["tensorflow"]}}
    usual = ("torch", "keras-tensorflow")
    kept, remarks = common_backends(None, lacks, usual)
    assert kept == ["torch"]
    assert remarks == ["keras-tensorflow is left out: b lacks tensorflow"]
    with pytest.raises(UserError, match="keras-tensorflow: b lacks tensorflow"):
        common_backends(["keras-tensorflow"], lacks, usual)
    with pytest.raises(UserError, match="torch: a lacks torch"):
        common_backends(None, {"torch": {"a": ["torch"]}}, ["torch"])


def test_what_differs_in_software_is_named() -> None:
    now = SOFTWARE.model_copy(
        update={"python": "3.12.1", "distributions": {"torch": "2.15", "new": "1"}}
    )
    assert software_differences(SOFTWARE, SOFTWARE) == {}
    assert software_differences(SOFTWARE, now) == {
        "python": ["3.11.7", "3.12.1"], "new": [None, "1"], "torch": ["2.14.1", "2.15"],
    }  # fmt: skip
