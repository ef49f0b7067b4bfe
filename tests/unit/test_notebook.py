"""The example notebook, executed as its reader would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import bench

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "results.ipynb"
RESULTS = ROOT / "results" / "examples" / "quick"
FIGURE = "application/vnd.plotly.v1+json"


def _read() -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_it_is_committed_without_outputs() -> None:
    """They would be megabytes, and change with every run."""
    code = [cell for cell in _read().cells if cell.cell_type == "code"]
    assert len(code) == 3
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_runs_and_draws_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # else it warns of its folders of old
    notebook = _read()
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    read, sentences, plot = (cell for cell in notebook.cells if cell.cell_type == "code")
    runs = bench.results(RESULTS)
    (table,) = read.outputs
    assert table.data["text/html"].count("<tr") == 1 + len(runs)
    (said,) = sentences.outputs
    assert said.text.splitlines()[1] == f"fit_s: {runs.attrs['columns']['fit_s']}"
    (drawn,) = plot.outputs
    traces = drawn.data[FIGURE]["data"]
    assert {trace["name"] for trace in traces} == set(runs["backend"])
    assert sum(len(trace["text"]) for trace in traces) == len(runs)
