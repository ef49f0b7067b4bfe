"""What a probe leaves for the comparison: one safetensors file a level, read tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from bench.blueprint import Array

Values = Mapping[str, Array]
FACTS = "facts.json"


class Stored(Values):
    """The tensors of a file, each read when it is asked for: a large network's need not fit twice
    into memory."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            SafetensorError, OSError: Not a file that ``write`` made.
        """
        opened: Any = safe_open(path, framework="numpy")
        self._file = opened.__enter__()
        self._names: list[str] = list(self._file.keys())

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        array: Array = self._file.get_tensor(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write(folder: Path, level: str, values: Values) -> None:
    """Write the values of a level."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items()}
    save_file(arrays, folder / f"{level}.safetensors")


def read(folder: Path, level: str) -> Values:
    """The values of a level."""
    return Stored(folder / f"{level}.safetensors")


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write what is not an array: floors, the loss's fall, the learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``write_facts`` wrote."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts
