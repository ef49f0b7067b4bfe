"""Load results folders, and point to others where a folder holds no results."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.parity.model import PairProof
from bench.parity.proofs import Proofs, read_copy
from bench.spec.run import UNFINISHED
from bench.storage.cache import cache_root
from bench.storage.results import Store, StoredRun, collector_paused
from bench.workers.environment import NO_DEVICE


def known_proofs(
    folder: Path, runs: Sequence[StoredRun], others: Sequence[PairProof] = ()
) -> list[PairProof]:
    """Return this machine's proofs, those beside the results, and ``others``, of the runs'
    environments."""
    environments = {run.result.environment_id for run in runs}
    pairs = [*others, *read_copy(folder)[0], *Proofs(cache_root()).load()]
    newest = {pair.key: pair for pair in pairs}  # this machine's come last
    # One known environment is enough: two may have been compared through a third.
    return [pair for pair in newest.values() if environments & set(pair.environments)]


LoadedRuns = tuple[list[StoredRun], list[str]]
"""Runs of a folder, and a sentence for each that could not be read."""
REPORT = "python run_bench.py report"
MOST_NAMED = 8
"""Most folders that a message names."""


@collector_paused()
def load_runs(folders: Sequence[Path], planned: Collection[tuple[str, str]] = ()) -> LoadedRuns:
    """Load results folders and merge their runs as ``merge_runs`` does; raise UserError if a folder
    does not exist, or there are no runs."""
    return merge_runs(folders, [Store(folder).load() for folder in folders], planned)


def merge_runs(
    folders: Sequence[Path], found: Sequence[LoadedRuns], planned: Collection[tuple[str, str]] = ()
) -> LoadedRuns:
    """Merge the runs found in several folders, without superseded ones; the last folder that holds
    a run counts. Return with them a sentence for each run and each copy of proofs that could not be
    read. Raise UserError if there are no runs. ``planned``: see ``drop_superseded``."""
    runs = {run.key: run for those, _ in found for run in those}
    problems = [problem for _, wrong in found for problem in wrong]
    problems += [problem for f in folders if f.is_dir() and (problem := read_copy(f)[1])]
    kept = drop_superseded(list(runs.values()), planned)
    if not kept:
        hint = _nearby_results(folders) or "Make some: python run_bench.py run"
        more = len(problems) - MOST_NAMED
        rest = [f"{more:,} more could not be read."] if more > 0 else []
        said = [f"No results in {_quoted(folders)}.", *problems[:MOST_NAMED], *rest]
        raise UserError("\n".join(said), hint)
    return kept, problems


def _quoted(folders: Iterable[Path]) -> str:
    return ", ".join(f"'{folder}'" for folder in folders)


def check_not_empty(folders: Sequence[Path], found: Sequence[LoadedRuns]) -> None:
    """Raise UserError if one of several folders is empty and another is not: a page would not
    mention the empty one."""
    empty = [f for f, loaded in zip(folders, found, strict=True) if not any(loaded)]
    if empty and len(empty) < len(folders):
        hint = _nearby_results(empty) or "Leave it out, or make some there."
        raise UserError(f"No results in {_quoted(empty)}.", hint)


def drop_superseded(
    runs: Sequence[StoredRun], planned: Collection[tuple[str, str]] = ()
) -> list[StoredRun]:
    """Drop unavailable results of a run that has another result on the same machine, whatever the
    versions. Others stay as gaps, as do those of ``planned`` runs: (run_id, environment_id)."""
    finished = [run for run in runs if run.result.status not in UNFINISHED]
    done = {_on_machine(r, m) for r in finished for m in (r.environment.device_model, NO_DEVICE)}
    return [
        run
        for run in runs
        if run.result.status != "unavailable"
        or _on_machine(run, run.environment.device_model) not in done
        or run.key in planned
    ]


def _on_machine(run: StoredRun, device_model: str) -> tuple[str, ...]:
    """Return a run and its machine; a GPU's model is unknown as long as it has no driver."""
    e = run.environment
    return run.result.run_id, e.system, e.processor, str(e.cores), device_model


def check_different(folders: Sequence[Path]) -> None:
    """Raise UserError if the two folders to compare are the same."""
    first, second = folders
    if first.resolve() == second.resolve():
        names = f"'{first}' twice" if first == second else f"'{first}' and '{second}'"
        raise UserError(
            f"{names}: that is the same folder, so that there is nothing to compare.",
            f"Name another one, or report it alone: {REPORT} {shlex.quote(str(first))}",
        )


def _nearby_results(folders: Sequence[Path]) -> str | None:
    """Return a hint to results near folders that hold none; None if there are none."""
    near = [p for f in folders for p in (*sorted(f.glob("*")), *sorted(f.glob("*/*")), f.parent)]
    others = [place for place in near if any(place.glob("runs/*/*/result.json"))]
    if not others:
        return None
    more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
    named, first = f"{_quoted(others[:MOST_NAMED])}{more}", shlex.quote(str(others[0]))
    return f"There are results in {named}. Name one: {REPORT} {first}"
