"""Runs with made-up answers to the test images, and their findings and tables."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.analysis.findings import Findings, findings_of
from bench.analysis.rows import rows_of
from bench.catalog.policies import POLICIES as CATALOGUE
from bench.report.from_page import load_page
from bench.report.tables.model import Table
from bench.report.tables.standard import standard_set
from bench.storage.results import StoredRun
from bench.system import project_root

IMAGES = 400
Make = Callable[..., StoredRun]

POLICIES: dict[str, dict[str, Any]] = {name: p.model_dump() for name, p in CATALOGUE.items()}
RANDOM = {"kind": "random", "source": "random", "sha256": None}


def published_before(folder: Path) -> list[StoredRun]:
    """Return the 288 runs of the suite standard as published before (commit 07cbaa3), read from
    their page, which has no answers to single images; ``folder`` is for the unpacked page."""
    page = folder / "standard_before.html"
    packed = project_root() / "tests" / "data" / "standard_before.html.gz"
    page.write_bytes(gzip.decompress(packed.read_bytes()))
    return load_page(page)[0]


def found(*runs: StoredRun) -> Findings:
    return findings_of(rows_of(runs))


def tables(*runs: StoredRun) -> dict[str, Table]:
    return {table.name: table for table in standard_set(found(*runs))}


def cell(table: Table, row: int, column: str) -> str:
    place = [c.name for c in table.columns].index(column)
    return table.rows[row][place].text
