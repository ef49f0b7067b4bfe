"""Why no run of one folder has its like in another: the specs that are nearest, and how they
differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.spec import RunSpec
from bench.store import StoredRun
from bench.values import canonical_json

Names = tuple[str, str]
MOST_SPECS = 600
"""Of a folder that are looked at, seeds apart: beyond, those of a grid differ as the others do."""
TOLD = 3
"""Ways to differ that a sentence names."""
SHORT = 40
"""Letters of a value that a sentence holds."""
CALLED = {
    "case.number": "case",
    "case.dataset.name": "data set",
    "case.dataset.label": "data set's label",
    "case.dataset.content_hash": "content of the data set",
    "weights.kind": "weights",
    "weights.source": "source of the weights",
    "weights.sha256": "file of the weights",
    "policy.name": "policy",
    "code_sha256": "code of the network",
}
"""Place of a field in a spec → what it is called, where that is not its own name."""
LEADING = {"policy.name": "policy.", "case.dataset.name": "case.", "weights.kind": "weights."}
"""Place of a field → what follows from it, and is not told beside it."""
Difference = tuple[str, str | None, str | None]
"""A field's place, and its values in either spec."""


@dataclass(frozen=True)
class Near:
    """A run, and the one of the other folder whose spec is nearest."""

    a: StoredRun
    b: StoredRun
    differences: tuple[Difference, ...]
    """The fields in which the specs differ."""


def nearest(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> list[Near]:
    """For each run of one folder the nearest of another; of those that are as near, the first."""
    a, b = _apart_from_seeds(a), _apart_from_seeds(b)
    others = [(run, f := _fields(run.spec), frozenset(f.items())) for run in b[:MOST_SPECS]]
    found = []
    for run in a[:MOST_SPECS]:
        fields = _fields(run.spec)
        items = frozenset(fields.items())
        near = min(others, key=lambda o: len(items ^ o[2]), default=None)
        if near is not None:
            other, theirs, _ = near
            apart = [p for p in {**fields, **theirs} if fields.get(p) != theirs.get(p)]
            differences = tuple((p, fields.get(p), theirs.get(p)) for p in _leading(apart))
            found.append(Near(run, other, differences))
    return found


def _apart_from_seeds(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """One run of each spec: seeds that differ are not why nothing matches, unless they alone do."""
    found: dict[str, StoredRun] = {}
    for run in runs:
        found.setdefault(run.spec.model_copy(update={"seed": 0}).run_id, run)
    return list(found.values())


def _leading(places: Sequence[str]) -> list[str]:
    """Places of fields, without those that follow from others."""
    led = tuple(below for leader, below in LEADING.items() if leader in places)
    return [p for p in places if p in LEADING or not (led and p.startswith(led))]


def told_nearest(near: Sequence[Near], names: Names) -> list[str]:
    """How the specs differ, as a sentence; of those that differ least."""
    if not near:
        return []
    least = min(len(n.differences) for n in near)
    ways = Counter(n.differences for n in near if len(n.differences) == least)
    told = [_told(way, names) for way, _ in ways.most_common(TOLD)]
    more = "; or in other values" if len(ways) > TOLD else ""
    return [f"The nearest specs differ in {'; or in '.join(told)}{more}."]


def _fields(spec: RunSpec) -> dict[str, str]:
    """Place of a field → its value as text."""
    return dict(_flat(spec.model_dump(mode="json")))


def _flat(value: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{place}{name}.")
        else:
            yield f"{place}{name}", inner if isinstance(inner, str) else canonical_json(inner)


def _called(place: str) -> str:
    return CALLED.get(place, place.rpartition(".")[2].replace("_", " "))


def _told(differences: Sequence[Difference], names: Names) -> str:
    return ", ".join(
        f"{_called(p)} ({_value(first)} in '{names[0]}', {_value(second)} in '{names[1]}')"
        for p, first, second in differences
    )


def _value(text: str | None) -> str:
    if text is None or text == "null":
        return "none"
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"
