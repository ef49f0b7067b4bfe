"""What all commands print with, and where results go by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.storage.text_files import json_text

RESULTS = Path("results") / "runs"
"""Folder of results unless ``--out`` names another one."""


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(json_text(document))
