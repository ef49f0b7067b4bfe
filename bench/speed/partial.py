"""Launches of a measurement that was interrupted: kept, and continued by the same command."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.spec.base import canonical_hash
from bench.speed.launch import Launch
from bench.storage.text_files import replace_text

STALE_S = 24 * 3600.0
"""Age in seconds from which on launches are left out: the machine has drifted since."""


class PartialLaunches:
    """A file with a line for each launch; the first line says what is measured."""

    def __init__(self, path: Path, question: Mapping[str, Any]) -> None:
        """Read the launches of the same question; anything else is replaced."""
        self._path, self._key = path, canonical_hash(dict(question))
        self.launches: list[Launch] = []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            is_recent = time.time() - path.stat().st_mtime < STALE_S
            if is_recent and json.loads(lines[0]) == self._key:
                for line in lines[1:]:
                    self.launches.append(Launch.model_validate_json(line))
        except (OSError, ValueError, IndexError):
            pass  # there are none, or the last one was cut short by a crash
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{one.model_dump_json()}\n" for one in self.launches)
        replace_text(path, f"{json.dumps(self._key)}\n{text}")

    def add(self, one: Launch) -> None:
        """Write a launch."""
        self.launches.append(one)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(one.model_dump_json() + "\n")

    def remove(self) -> None:
        """Remove the file: the measurement is complete."""
        self._path.unlink(missing_ok=True)
