"""Which runs of two results folders are the same run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.catalog.backends import BACKENDS
from bench.spec.run import Environment
from bench.storage.results import StoredRun

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
RunPairs = Sequence[tuple[StoredRun, StoredRun]]
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
        return "–"
    return value if isinstance(value, str) else json.dumps(value)


def differences(pairs: RunPairs) -> dict[Difference, list[str]]:
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


@dataclass(frozen=True)
class Unmatched:
    """A run that is not compared."""

    run_id: str
    first: str | None
    """Its statuses in the first folder; None: it is not there."""
    second: str | None
    """In the second."""
    reason: str
    """Why it is not compared."""

    @property
    def is_worse(self) -> bool:
        """Whether it was ok in the first folder alone, of those that are in both."""
        return self.first == "ok" and self.second not in ("ok", None)

    @property
    def is_mended(self) -> bool:
        """Whether it is ok in the second folder alone, of those that are in both."""
        return self.second == "ok" and self.first not in ("ok", None)

    @property
    def is_other(self) -> bool:
        """Whether it is in both, and neither."""
        both = self.first is not None and self.second is not None
        return both and not self.is_worse and not self.is_mended


MatchedPairs = list[tuple[StoredRun, StoredRun]]
ALONE = "not in both folders"


def match(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[MatchedPairs, list[Unmatched]]:
    """Runs that are ok in both, of the same spec, and all others. Where a spec is in one folder
    alone, and the same spec of another device in the other one alone, these match.

    Args:
        a: Runs of one folder, each spec and environment once.
        b: Of another.
    """
    pairs: MatchedPairs = []
    left = []
    first, second = _by_id(a), _by_id(b)
    elsewhere = _on_other_devices(first, second)
    moved = set(elsewhere.values())
    for run_id in dict.fromkeys([*first, *second]):
        if run_id in moved:
            continue
        these, those = first.get(run_id, []), second.get(elsewhere.get(run_id, run_id), [])
        found, reason = _pair(these, those)
        pairs += found
        if reason is not None:
            left.append(Unmatched(run_id, _statuses(these), _statuses(those), reason))
    return pairs, left


def _by_id(runs: Sequence[StoredRun]) -> Groups:
    groups: Groups = {}
    for run in runs:
        groups.setdefault(run.result.run_id, []).append(run)
    return groups


Groups = dict[str, list[StoredRun]]


def _on_other_devices(first: Groups, second: Groups) -> dict[str, str]:
    """A ``run_id`` of the first folder alone → that of the second alone which differs from it in
    the device and nothing else; only where there is one such on either side."""
    here, there = (_by_spec(g, other) for g, other in ((first, second), (second, first)))
    return {
        run_ids[0]: there[spec][0]
        for spec, run_ids in here.items()
        if len(run_ids) == 1 and len(there.get(spec, [])) == 1
    }


def _by_spec(groups: Groups, other: Groups) -> dict[str, list[str]]:
    """Specs without their device → the ids of runs that are not in the other folder."""
    found: dict[str, list[str]] = {}
    for run_id, runs in groups.items():
        if run_id not in other:
            anywhere = runs[0].spec.model_copy(update={"device": ""}).run_id
            found.setdefault(anywhere, []).append(run_id)
    return found


def _statuses(runs: Sequence[StoredRun]) -> str | None:
    return ", ".join(dict.fromkeys(run.result.status for run in runs)) or None


def _pair(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[MatchedPairs, str | None]:
    """MatchedPairs of one spec, or why there are none."""
    if not a or not b:
        return [], ALONE
    a, b = ([run for run in runs if run.result.status == "ok"] for runs in (a, b))
    if not a or not b:
        return [], "not ok in both folders"
    here, there = ({run.result.environment_id: run for run in runs} for runs in (a, b))
    if here.keys() == there.keys():
        return [(run, there[key]) for key, run in here.items()], None
    # What only one folder holds was made after it was copied from the other.
    own = [run for key, run in here.items() if key not in there] or list(here.values())
    new = [run for key, run in there.items() if key not in here] or list(there.values())
    if len(own) > 1 or len(new) > 1:
        return [], "in several environments, of which none is the other folder's"
    return [(own[0], new[0])], None
