"""Seconds of operations from the trace of a profiler (XPlane, which TensorFlow and JAX write)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

PICOSECONDS = 1e12


class TraceEvent(NamedTuple):
    """A stretch of time on a line of a trace: a thread, or a stream of a GPU."""

    name: str
    start_ps: int
    duration_ps: int


def is_device_plane(name: str) -> bool:
    """Return True for the plane of a GPU or of the host's threads, whose events are operations;
    others hold metadata and Python's calls."""
    return name.startswith("/device:GPU") or name == "/host:CPU"


def self_seconds(lines: Iterable[Sequence[TraceEvent]]) -> dict[str, float]:
    """Return the seconds of each operation itself, by its kind: without the events inside it, over
    all lines."""
    found: dict[str, float] = {}
    for line in lines:
        inside: list[TraceEvent] = []
        for event in sorted(line, key=lambda e: (e.start_ps, -e.duration_ps)):
            while inside and inside[-1].start_ps + inside[-1].duration_ps <= event.start_ps:
                inside.pop()
            kind = _kind(event.name)
            found[kind] = found.get(kind, 0.0) + event.duration_ps / PICOSECONDS
            if inside:
                outer = _kind(inside[-1].name)
                found[outer] = found.get(outer, 0.0) - event.duration_ps / PICOSECONDS
            inside.append(event)
    return found


def _kind(name: str) -> str:
    """Return the kind of an operation without the number of its instance: 'fusion.12' is a fusion,
    'model/conv1/Conv2D:Conv2D' a Conv2D."""
    kind = name.rpartition(":")[2] or name
    return re.sub(r"[._]\d+$", "", kind).strip() or name


def trace_file(folder: Path) -> Path:
    """Return the file that a profiler has written below a folder.

    Raises:
        RuntimeError: There is not exactly one.
    """
    found = list(folder.rglob("*.xplane.pb"))
    if len(found) != 1:
        raise RuntimeError(f"The profiler wrote {len(found)} traces instead of one.")
    return found[0]
