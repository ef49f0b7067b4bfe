"""The scripts of ejected projects are formatted and typed as they stand."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

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
