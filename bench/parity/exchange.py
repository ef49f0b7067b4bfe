"""What a probe leaves for the comparison: a file for each level, read tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.network.blueprint import Array

RecordedValues = Mapping[str, Array]
FACTS = "facts.json"


def write(folder: Path, level: str, values: RecordedValues) -> None:
    """Write the values of a level, without a second copy of them in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = dict(values)
    np.savez(_file(folder, level), **named)


def read(folder: Path, level: str) -> RecordedValues:
    """The values of a level, each read when it is asked for: a large network's need not fit twice
    into memory.

    Raises:
        OSError, ValueError: Not a file that ``write`` made.
    """
    values: RecordedValues = np.load(_file(folder, level), allow_pickle=False)
    return values


def _file(folder: Path, level: str) -> Path:
    return folder / f"{level}.npz"


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write what is not an array: floors, the loss's fall, the learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``write_facts`` wrote."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts
