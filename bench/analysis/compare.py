"""Runs of two results folders: which are the same run, and what differs around them.

Runs match if their specs are equal, seed included: the same ``run_id``, or one that differs in the
device alone. Their environments may differ; equal ones are a run and its repetition. If a folder
holds a run in several environments, those that the other folder lacks count (it was copied before
an upgrade); if that leaves more than one, nothing is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bench.analysis.groups import SeedGroup, experiment_of, lost_seeds, whole_seeds
from bench.analysis.rows import DIFFERING, FIELDS, backend_place, grouped, rows_of
from bench.spec.run import RunSpec
from bench.storage.results import StoredRun

RunPairs = Sequence[tuple[StoredRun, StoredRun]]
BothFolders = tuple[Sequence[StoredRun], Sequence[StoredRun]]
"""Runs of the first and of the second folder."""
MACHINE = ("system", "processor", "cores", "device", "device_model", "driver", "python",
           "thawbench")  # fmt: skip
"""Fields of an environment beside its packages and variables."""
Kind = Literal["machine", "package", "variable", "knob"]
SETTINGS = [
    name
    for name, path in FIELDS.items()
    if name not in DIFFERING - {"backend"} and not path.startswith("environment.")
]
"""Fields of rows that a spec decides."""
FOLLOWING = {
    "dataset": {"case", "size", "similarity", "dataset_label", "dataset_hash",
                "train_images", "val_images", "test_images"},
    "backbone": {"code_sha256", "network_digest"},
    "policy": {"boundary", "policy_digest"},
    "weights": {"weights_sha256", "reading_digest"},
}  # fmt: skip
"""Field of rows → fields that necessarily differ together with it."""


class EnvironmentDifference(NamedTuple):
    """Something around the runs of two folders that differs."""

    kind: Kind
    name: str
    first: str | None
    """Value in the first folder, JSON unless it is text; None: absent."""
    second: str | None


def differences(pairs: RunPairs) -> dict[EnvironmentDifference, list[str]]:
    """Return what differs around the runs → the backends concerned, in catalogue order."""
    found: dict[EnvironmentDifference, set[str]] = {}
    for a, b in pairs:
        first, second = _surroundings(a), _surroundings(b)
        for what in dict.fromkeys([*first, *second]):
            if first.get(what) != second.get(what):
                difference = EnvironmentDifference(*what, first.get(what), second.get(what))
                found.setdefault(difference, set()).add(a.spec.backend)
    return {what: sorted(backends, key=backend_place) for what, backends in found.items()}


def _surroundings(run: StoredRun) -> dict[tuple[Kind, str], str | None]:
    """Return a run's environment and the knobs in force that no version implies, as text."""
    environment = run.environment
    known = {*environment.packages, *MACHINE}
    groups: dict[Kind, Mapping[str, Any]] = {
        "machine": {
            **{name: getattr(environment, name) for name in MACHINE},
            **{f"device {name}": v for name, v in environment.device_settings.items()},
        },
        "package": environment.packages,
        "variable": environment.variables,
        "knob": {name: v for name, v in run.result.knobs.items() if name not in known},
    }
    return {
        (kind, name): v if v is None or isinstance(v, str) else json.dumps(v)
        for kind, values in groups.items()
        for name, v in values.items()
    }


NotMatched = Literal[
    "not in both folders",
    "not ok in both folders",
    "in several environments, of which none is the other folder's",
]


@dataclass(frozen=True)
class Unmatched:
    """A run that is not compared."""

    run_id: str
    first: str | None
    """Its statuses in the first folder; None if it is absent."""
    second: str | None
    reason: NotMatched

    @property
    def change(self) -> Literal["worse", "mended", "other"] | None:
        """Change of its status, from the first folder; None if a folder lacks it."""
        if self.first is None or self.second is None:
            return None
        was_ok, is_ok = self.first == "ok", self.second == "ok"
        return "other" if was_ok == is_ok else "mended" if is_ok else "worse"


RunsById = dict[str, list[StoredRun]]
"""``run_id`` of a spec → its runs in a folder."""


def match(
    a: Sequence[StoredRun], b: Sequence[StoredRun]
) -> tuple[list[tuple[StoredRun, StoredRun]], list[Unmatched]]:
    """Return the pairs of runs that are ok in both folders, and all other runs.

    Definitions of networks and weights count unless a run of an earlier version lacks them.
    A spec of one folder only is paired with the same spec on another device, if either folder has
    exactly one such run. Each folder holds a run in an environment once.
    """
    pairs: list[tuple[StoredRun, StoredRun]] = []
    unmatched = []
    undefined = any(run.spec.network_digest is None for run in (*a, *b))

    def spec_of(run: StoredRun) -> RunSpec:
        return run.spec.without_definitions() if undefined else run.spec

    first, second = (grouped(runs, lambda run: spec_of(run).run_id) for runs in (a, b))
    elsewhere = _on_other_devices(first, second, spec_of)
    moved = set(elsewhere.values())
    for run_id in dict.fromkeys([*first, *second]):
        if run_id in moved:
            continue
        these, those = first.get(run_id, []), second.get(elsewhere.get(run_id, run_id), [])
        found = _pair(these, those)
        if isinstance(found, list):
            pairs += found
        else:
            run_id = (these or those)[0].result.run_id
            unmatched.append(Unmatched(run_id, _statuses(these), _statuses(those), found))
    return pairs, unmatched


def _on_other_devices(
    first: RunsById, second: RunsById, spec_of: Callable[[StoredRun], RunSpec]
) -> dict[str, str]:
    """Return a key of the first folder → that of the second one which differs in the device alone,
    where each folder has exactly one such run and lacks the other's."""

    def alone(runs: RunsById, other: RunsById) -> dict[str, str]:
        """Return the spec without its device → the key, where there is exactly one."""
        specs = grouped(
            (key for key in runs if key not in other),
            lambda key: spec_of(runs[key][0]).model_copy(update={"device": ""}).run_id,
        )
        return {spec: keys[0] for spec, keys in specs.items() if len(keys) == 1}

    here, there = alone(first, second), alone(second, first)
    return {key: there[spec] for spec, key in here.items() if spec in there}


def _statuses(runs: Sequence[StoredRun]) -> str | None:
    return ", ".join(dict.fromkeys(run.result.status for run in runs)) or None


def _pair(
    a: Sequence[StoredRun], b: Sequence[StoredRun]
) -> list[tuple[StoredRun, StoredRun]] | NotMatched:
    """Return the pairs of one spec, or why there are none."""
    if not a or not b:
        return "not in both folders"
    here, there = (
        {run.result.environment_id: run for run in runs if run.result.status == "ok"}
        for runs in (a, b)
    )
    if not here or not there:
        return "not ok in both folders"
    if here.keys() == there.keys():
        return [(run, there[key]) for key, run in here.items()]
    # A folder copied before an upgrade shares its old environments: those of one folder are newer.
    own = [run for key, run in here.items() if key not in there] or list(here.values())
    new = [run for key, run in there.items() if key not in here] or list(there.values())
    if len(own) > 1 or len(new) > 1:
        return "in several environments, of which none is the other folder's"
    return [(own[0], new[0])]


def seed_group_pairs(pairs: RunPairs, whole: BothFolders) -> list[tuple[SeedGroup, SeedGroup]]:
    """Group matched runs that differ in the seed alone, in the order of a report. All runs of the
    ``whole`` folders decide which runs are unsteady and which seeds were lost."""
    partner = {first.key: second.key for first, second in pairs}
    here, there = (rows_of(side) for side in whole)
    lost = lost_seeds(here), lost_seeds(there)
    by_key = {row.key: row for row in there}
    groups = grouped(
        ((row, by_key[partner[row.key]]) for row in here if row.key in partner),
        lambda both: (experiment_of(both[0]), experiment_of(both[1])),
    )
    found = []
    for (one, other), rows in groups.items():
        partners = {mine.key: theirs for mine, theirs in rows}
        first, partial = whole_seeds(mine for mine, _ in rows)
        if not first:
            continue
        second = tuple(partners[mine.key] for mine in first)
        lost_here, lost_there = lost[0].get(one, 0), lost[1].get(other, 0)
        found.append((SeedGroup(first, max(lost_here, partial)),
                      SeedGroup(second, max(lost_there, partial))))  # fmt: skip
    return found


FieldDifference = tuple[str, str, str]
"""Name of a field of rows, and its values in the first and in the second folder as text."""


def fields_apart(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> list[FieldDifference]:
    """Return the settings of which two folders have no value in common, so that no run of one can
    be a run of the other; none if each value is in both, and only their combinations differ."""
    here, there = rows_of(a), rows_of(b)
    found = []
    for name in SETTINGS:
        first, second = (dict.fromkeys(row[name] for row in rows) for rows in (here, there))
        if first and second and not first.keys() & second.keys():
            found.append((name, _texts(first), _texts(second)))
    following = {name for leader, *_ in found for name in FOLLOWING.get(leader, ())}
    return [difference for difference in found if difference[0] not in following]


def _texts(values: Iterable[Any]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
