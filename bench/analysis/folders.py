"""The results folders that a report is of: what is in them, and what to say where nothing is."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.parity.model import PairProof
from bench.parity.proofs import Proofs, read_copy
from bench.spec.run import UNFINISHED
from bench.storage.cache import cache_root
from bench.storage.results import Store, StoredRun
from bench.workers.environment import NO_DEVICE


def known_proofs(folder: Path, runs: Sequence[StoredRun]) -> list[PairProof]:
    """Proofs that speak of the runs' environments: this machine's, and those beside the results."""
    environments = {run.result.environment_id for run in runs}
    pairs = [*read_copy(folder), *Proofs(cache_root()).load()]
    newest = {pair.about: pair for pair in pairs}  # this machine's come last
    # Also through a third environment, with which two were compared.
    return [pair for pair in newest.values() if environments & set(pair.environments)]


LoadedRuns = tuple[list[StoredRun], list[str]]
"""Runs of a folder, and a sentence for each that could not be read."""
REPORT = "python run_bench.py report"
MOST_NAMED = 8
"""Folders that a hint names."""


def load_runs(folders: Sequence[Path], planned: Collection[tuple[str, str]] = ()) -> LoadedRuns:
    """Runs of results folders, and a sentence for each that could not be read; see ``together``.

    Raises:
        UserError: A folder does not exist, or there is no run in any.
    """
    return together(folders, [Store(folder).load() for folder in folders], planned)


def together(
    folders: Sequence[Path], found: Sequence[LoadedRuns], planned: Collection[tuple[str, str]] = ()
) -> LoadedRuns:
    """What was found in several folders as one; of a run that is in several, the last.

    Args:
        folders: Results folders.
        found: In each of them.
        planned: Of ``outstanding``.

    Raises:
        UserError: There is no run in any.
    """
    runs: dict[tuple[str, str], StoredRun] = {}
    for those, _ in found:
        for run in those:
            runs[run.result.run_id, run.result.environment_id] = run
    problems = [problem for _, wrong in found for problem in wrong]
    kept = outstanding(list(runs.values()), planned)
    if not kept:
        places = ", ".join(f"'{f}'" for f in folders)
        raise UserError(
            f"No results in {places}." + "".join(f"\n{p}" for p in problems),
            _elsewhere(folders) or "Make some: python run_bench.py run",
        )
    return kept, problems


def check_full(folders: Sequence[Path], found: Sequence[LoadedRuns]) -> None:
    """Of several folders, each must hold something: a page would be silent about the others.

    Raises:
        UserError: One is empty, and another is not.
    """
    empty = [folder for folder, (runs, wrong) in zip(folders, found, strict=True)
             if not runs and not wrong]  # fmt: skip
    if empty and len(empty) < len(folders):
        places = ", ".join(f"'{folder}'" for folder in empty)
        raise UserError(
            f"No results in {places}.", _elsewhere(empty) or "Leave it out, or make some there."
        )


def outstanding(
    runs: Sequence[StoredRun], planned: Collection[tuple[str, str]] = ()
) -> list[StoredRun]:
    """Without those that were unavailable and have been done on the same machine, with whatever
    versions; of another machine they are a gap still.

    Args:
        runs: Of one folder or several.
        planned: (run_id, environment_id) that are kept whatever they are.
    """
    done = {
        _on_machine(run, model)
        for run in runs
        if run.result.status not in UNFINISHED
        for model in (run.environment.device_model, NO_DEVICE)
    }
    return [
        run
        for run in runs
        if run.result.status != "unavailable"
        or _on_machine(run, run.environment.device_model) not in done
        or (run.result.run_id, run.result.environment_id) in planned
    ]


def _on_machine(run: StoredRun, device_model: str) -> tuple[str, ...]:
    """A run and its machine; the model of a GPU is unknown where there is no driver yet."""
    e = run.environment
    return run.result.run_id, e.system, e.processor, str(e.cores), device_model


def check_apart(folders: Sequence[Path]) -> None:
    """
    Raises:
        UserError: Two folders that are to be compared are one.
    """
    first, second = folders
    if first.resolve() == second.resolve():
        names = f"'{first}' twice" if first == second else f"'{first}' and '{second}'"
        raise UserError(
            f"{names}: that is the same folder, so that there is nothing to compare.",
            f"Name another one, or report it alone: {REPORT} {shlex.quote(str(first))}",
        )


def _elsewhere(folders: Sequence[Path]) -> str | None:
    """Where there are results, of folders that hold none themselves."""
    near = [p for f in folders for p in (*sorted(f.glob("*")), *sorted(f.glob("*/*")), f.parent)]
    others = [place for place in near if any(place.glob("runs/*/*/result.json"))]
    if not others:
        return None
    named = ", ".join(f"'{place}'" for place in others[:MOST_NAMED])
    more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
    first = shlex.quote(str(others[0]))
    return f"There are results in {named}{more}. Name one: {REPORT} {first}"
