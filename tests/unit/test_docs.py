"""The documents: links resolve, commands parse, and the README's table is the real one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from bench.analysis.folders import load_runs
from bench.analysis.rows import rows_of
from bench.cli.main import app
from bench.parity.proofs import proved_subjects, read_copy
from bench.report.terminal import runs_on_terminal

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "results" / "README.md"]
README_WIDTH = 112
"""Columns of the terminal whose output the README shows."""
COMMANDS = typer.main.get_command(app)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_parse(page: Path) -> None:
    """Unknown commands and options are refused; nothing is run."""
    for line in re.findall(r"run_bench\.py ([a-z][^`#\n]*)", page.read_text(encoding="utf-8")):
        name, *arguments = shlex.split(line.partition(" > ")[0])
        command = COMMANDS.get_command(None, name)  # type: ignore[attr-defined]
        assert command is not None, line
        if arguments:
            command.make_context(name, arguments)


def test_the_readme_shows_the_real_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    folder = ROOT / "results" / "examples" / "quick"
    runs, problems = load_runs([folder])
    assert problems == []
    rows = rows_of(runs, proved_subjects(read_copy(folder)[0]))
    assert runs_on_terminal(rows, README_WIDTH) in readme
