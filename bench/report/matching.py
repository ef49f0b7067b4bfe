"""Which runs of two results folders are the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.store import StoredRun


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


Pairs = list[tuple[StoredRun, StoredRun]]


ALONE = "not in both folders"


def match(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[Pairs, list[Unmatched]]:
    """Runs that are ok in both, of the same spec, and all others. Where a spec is in one folder
    alone, and the same spec of another device in the other one alone, these match.

    Args:
        a: Runs of one folder, each spec and environment once.
        b: Of another.
    """
    pairs: Pairs = []
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


def _pair(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[Pairs, str | None]:
    """Pairs of one spec, or why there are none."""
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
