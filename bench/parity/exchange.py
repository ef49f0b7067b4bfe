"""Files through which a probe hands its values to the comparison: one file per level."""

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
    """Write the values of a level, without a second copy in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = dict(values)
    np.savez(folder / f"{level}.npz", **named)


def read(folder: Path, level: str) -> RecordedValues:
    """Return the values of a level, each loaded on access: those of a large network do not fit into
    memory twice. Raise OSError or ValueError if the file is missing or ``write`` did not make
    it."""
    values: RecordedValues = np.load(folder / f"{level}.npz", allow_pickle=False)
    return values


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write the noise floors, the fall of the loss and the learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what ``write_facts`` wrote."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts
