"""The scripts of ejected projects are formatted and typed as they stand."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.advise.eject.train import is_within
from bench.advise.eject.write import _reads_alike, check_new
from bench.data import SplitSizes, open_dataset
from bench.data.image_files import FileSource
from bench.errors import UserError

TYPED = ("--disallow-untyped-defs", "--check-untyped-defs", "--no-error-summary",
         "--follow-imports=skip", "--ignore-missing-imports")  # fmt: skip


@pytest.mark.parametrize("name", ["train_torch.py.txt", "train_keras.py.txt"])
@pytest.mark.parametrize(
    "checker",
    [("ruff", "format", "--check", "--line-length", "100"),
     ("ruff", "check", "--line-length", "100"), ("mypy", *TYPED)],
    ids=["format", "lint", "types"],
)  # fmt: skip
def test_a_script_is_formatted_and_typed(
    name: str, checker: tuple[str, ...], tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_bytes((files("bench.advise.eject") / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", *checker, str(script)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("deepest", "is_alike"), [(np.uint8, True), (np.uint16, False)])
def test_deep_grey_images_are_given_as_they_were_decoded(
    deepest: type[np.unsignedinteger], is_alike: bool, tmp_path: Path
) -> None:
    """Pillow alone would clip 16 bits to white."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        for number in range(12):
            is_last = (label, number) == ("b", 11)
            kind = deepest if is_last else np.uint8
            values = random.integers(0, np.iinfo(kind).max, (40, 40), dtype=kind)
            Image.fromarray(values).save(tmp_path / "scans" / label / f"{number}.png")
    dataset = open_dataset(f"folder:{tmp_path / 'scans'}", SplitSizes(), cache_dir=tmp_path)
    assert isinstance(dataset.source, FileSource)
    assert _reads_alike(dataset.source) == is_alike


def test_a_project_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--eject: '.*file' cannot be written"):
        check_new(tmp_path / "file" / "project")
    check_new(tmp_path / "new" / "project")


def test_an_accuracy_on_the_end_of_an_interval_is_as_predicted() -> None:
    """A script computed 34 of 36 with 32 bits."""
    predicted = (34 / 36, 1.0)
    assert is_within(0.9444444179534912, predicted)
    assert is_within(1.0, predicted)
    assert not is_within(33 / 36, predicted)
