"""The command line in pytest's own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Call the command line from an empty folder, with an empty cache; catches no exception."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "work").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.setenv("THAWBENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["run_bench.py", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call
