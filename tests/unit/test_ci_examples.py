"""The examples of CI jobs: valid YAML, whose commands exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
import yaml

from bench.cli.main import app
from bench.report.gate.formats import FORMATS
from bench.system import project_root

FOLDER = project_root() / "examples" / "ci"


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for own in value.values() for text in _texts(own)]
    if isinstance(value, list):
        return [text for own in value for text in _texts(own)]
    return [value] if isinstance(value, str) else []


def _command(name: str) -> str:
    """Return the gate's command line in an example."""
    document = yaml.safe_load((FOLDER / name).read_text())
    (found,) = [text for text in _texts(document) if "thawbench gate" in text]
    return found.replace("\\\n", " ")


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_commands_options_exist(name: str) -> None:
    command = _command(name)
    gate: Any = typer.main.get_command(app)
    known = {text for parameter in gate.commands["gate"].params for text in parameter.opts}
    for option in re.findall(r"(?<=\s)--[a-z-]+", command):
        assert option in known
    formats = re.search(r"--format (\S+)", command)
    assert formats is not None
    assert set(formats[1].split(",")) <= set(FORMATS)


def test_files_that_a_job_reads_are_written() -> None:
    text = (FOLDER / "github-actions.yml").read_text() + (FOLDER / "gitlab-ci.yml").read_text()
    written = {file for file, _ in FORMATS.values()}
    for file in re.findall(r"gate/([a-z]+\.[a-z]+)", text):
        assert file in written
