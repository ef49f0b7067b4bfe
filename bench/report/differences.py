"""What differs around runs of the same spec: versions, machine, variables, knobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.catalog.backends import BACKENDS
from bench.report.table_model import ABSENT, Column, Table, text
from bench.spec import Environment
from bench.store import StoredRun

TOLD = 6
"""Differences that a sentence names."""
MACHINE = {
    "system": "system",
    "processor": "processor",
    "cores": "cores",
    "device": "device",
    "device_model": "model of the device",
    "driver": "driver",
    "python": "Python",
    "thawbench": "Thawbench and its code",
}
"""Field of an environment → what a reader is told that it is."""
Pairs = Sequence[tuple[StoredRun, StoredRun]]
Difference = tuple[str, str, str]
"""What differs, and its value in either folder."""


def _environment(environment: Environment) -> dict[str, Any]:
    fields = {told: getattr(environment, field) for field, told in MACHINE.items()}
    packages = {f"package {name}": v for name, v in environment.packages.items()}
    variables = {f"variable {name}": v for name, v in environment.variables.items()}
    return fields | packages | variables


def _knobs(run: StoredRun) -> dict[str, Any]:
    """Those in force that no version says already."""
    known = {*run.environment.packages, *MACHINE}
    return {f"in force: {k}": v for k, v in run.result.knobs.items() if k not in known}


def _value(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value)


def differences(pairs: Pairs) -> dict[Difference, list[str]]:
    """What differs → the backends in whose runs it does, in the order of the catalogue."""
    found: dict[Difference, list[str]] = {}
    for a, b in pairs:
        first = _environment(a.environment) | _knobs(a)
        second = _environment(b.environment) | _knobs(b)
        for name in dict.fromkeys([*first, *second]):
            values = _value(first.get(name)), _value(second.get(name))
            if values[0] != values[1]:
                backends = found.setdefault((name, *values), [])
                backends += [a.spec.backend] if a.spec.backend not in backends else []
    known = list(BACKENDS)
    return {
        what: sorted(backends, key=lambda b: (b not in known, known.index(b) if b in known else 0))
        for what, backends in found.items()
    }


def environment_table(pairs: Pairs, names: tuple[str, str]) -> Table:
    """A row for each difference."""
    return Table(
        "side_by_side_environments",
        "What differs around the runs",
        "Between runs of the same spec, or where there are none, of the nearest: machine, driver, "
        "versions, environment variables, and knobs as they were read back from the frameworks.",
        [
            Column("what", "what"),
            Column("first", names[0]),
            Column("second", names[1]),
            Column("backends", "backends"),
        ],
        [
            [text(name), text(first), text(second), text(", ".join(backends))]
            for (name, first, second), backends in differences(pairs).items()
        ],
    )


def told_environment(pairs: Pairs) -> list[str]:
    """The same as a sentence."""
    found = list(differences(pairs))
    if not pairs:
        return []
    if not found:
        if any(a.spec != b.spec for a, b in pairs):
            return ["Around these runs nothing differs that is recorded."]
        return [
            "Nothing that is recorded differs around the runs: versions, machine, variables and "
            "Thawbench's code are the same, so that this is one run and its repetition."
        ]
    told = [f"{name} ({first} → {second})" for name, first, second in found[:TOLD]]
    more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return [f"Around the runs these differ: {', '.join(told)}{more}."]
