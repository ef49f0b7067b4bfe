"""Printing and the default results folder, shared by all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.storage.text_files import json_text

RESULTS = Path("results") / "runs"
"""Folder of the results of all suites, unless ``--out`` names another one."""


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(json_text(document))
