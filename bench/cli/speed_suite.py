"""Shared by the commands ``speed`` and ``gate``: suites, targets, backends, devices, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS, OWN_STEP
from bench.cli.gate_progress import show_line
from bench.cli.options import interpreters, names
from bench.cli.output import tell
from bench.cli.run_clock import duration
from bench.errors import UserError, check_is_file, choose
from bench.runner.devices import resolve_devices
from bench.speed.cases import SUITES, SuiteSize, TimedCase, cases, own_step, prepare, suite_size
from bench.speed.launch import Place
from bench.speed.partial import PartialLaunches
from bench.speed.software import lacking, software_of
from bench.storage.cache import cache_root
from bench.storage.checksums import sha256_of_file
from bench.workers.process import Interpreters
from bench.workers.tasks import OwnStepTask, Software

OWN_SUITE = "own step"
"""Beginning of the name of what is timed with ``--target``."""


class Target(NamedTuple):
    """A user's own step."""

    file: Path
    function: str


def parse_target(text: str | None) -> Target | None:
    """Return the target of ``--target FILE.py:FUNCTION``; raise UserError if it is none."""
    if text is None:
        return None
    path, colon, function = text.rpartition(":")
    if not colon or not path.endswith(".py") or not function.isidentifier():
        raise UserError(
            f"--target '{text}' is not of the form FILE.py:FUNCTION.",
            "Write, for example, --target my_step.py:make.",
        )
    file = Path(path).expanduser()
    check_is_file(f"--target: '{file}'", file)
    return Target(file.absolute(), function)


def measuring_place(python: Sequence[str] | None, device: str) -> Place:
    """Return the place of launches by ``--python`` and ``--device``."""
    chosen = interpreters(python)
    return Place(chosen, cache_root(), one_device(device, chosen))


def one_device(text: str, interpreters: Interpreters) -> str:
    """Return the device of ``--device``; raise UserError if it means several."""
    if text == "all":
        raise UserError("--device all: speed is measured on one device.", "Use cpu or cuda:0.")
    (device, *_), remark = resolve_devices(text, interpreters)
    if remark:
        tell(remark)
    return device


def wanted_backends(text: str | None, target: Target | None) -> list[str] | None:
    """Return the backends of ``--backends``, None if none are named; raise UserError for an unknown
    one, or beside a target."""
    found = names(text)
    for name in found or ():
        choose("backend", name, BACKENDS)
    if found and target is not None:
        raise UserError("--backends has no effect with --target.", "Leave out one of them.")
    return found


def check_suite(name: str) -> str:
    """Return the name of a suite; raise UserError if it is unknown."""
    return choose("speed suite", name, SUITES)


def suite_name(name: str, target: Target | None) -> str:
    """Return the name of what is timed: a suite, or a user's own step; raise UserError if the suite
    is unknown."""
    return check_suite(name) if target is None else f"{OWN_SUITE} {target.file.name}"


def is_own(suite: str) -> bool:
    """Return True for the name of a user's own step."""
    return suite.startswith(OWN_SUITE)


def timed_cases(
    suite: str, backends: Sequence[str], target: Target | None, place: Place, *, details: bool
) -> list[TimedCase]:
    """Return the cases to time at a place."""
    if target is not None:
        return [own_step(target.file, target.function, place.device)]
    size: SuiteSize = suite_size(suite, place.device)
    return prepare(
        cases(size, backends), size, place.device, place.interpreters, place.cache, details=details
    )


def software_by_backend(
    wanted: Sequence[str] | None, target: Target | None, place: Place
) -> dict[str, Software]:
    """Return what each backend runs at a place: of those named, else of the usual ones that are
    installed.

    Raises:
        UserError: A named backend, or every usual one, lacks a package.
    """
    asked = [OWN_STEP] if target is not None else list(wanted or DEFAULT_BACKENDS)
    found: dict[str, Software] = {}
    problems: list[str] = []
    for backend in asked:
        software = software_of(backend, place)
        if missing := lacking(backend, software):
            problems.append(f"{backend} lacks {', '.join(missing)}")
        else:
            found[backend] = software
    if problems and (wanted or not found):
        raise UserError(
            f"Cannot be timed here: {'; '.join(problems)}.",
            f"Install it: {place.interpreters.of(asked[0])} -m pip install PACKAGE",
        )
    for problem in problems:
        tell(f"left out: {problem}")
    return found


def kept_launches(
    folder: Path, name: str, suite: str, software: Mapping[str, Software],
    cases: Sequence[TimedCase],
) -> PartialLaunches:  # fmt: skip
    """Return the launches that an interrupted measurement of the same has left."""
    question = {
        "suite": suite,
        "software": {backend: own.model_dump(mode="json") for backend, own in software.items()},
        "shapes": {case.name: case.shape for case in cases},
        "targets": [
            sha256_of_file(Path(case.task.file))
            for case in cases
            if isinstance(case.task, OwnStepTask)
        ],
    }
    kept = PartialLaunches(folder / f".{name}.launches", question)
    if kept.launches:
        tell(f"going on after {len(kept.launches)} launches that an interrupted command has kept")
    return kept


def launch_watch() -> Callable[[int, int], None]:
    """Return a display of launches with the time left, on standard error."""
    began, kept = time.monotonic(), -1

    def watch(done: int, of: int) -> None:
        nonlocal kept
        kept = done if kept < 0 else kept  # launches of an interrupted command took no time now
        new = done - kept
        left = None if not new else (time.monotonic() - began) / new * (of - done)
        show_line(f"launch {done + 1} of {of}, {duration(left)} left")

    return watch


def software_words(software: Mapping[str, Software]) -> str:
    """Return frameworks and versions in a line."""
    words = []
    for backend, own in software.items():
        packages = BACKENDS[backend].packages if backend in BACKENDS else ()
        versions = ", ".join(f"{name} {own.distributions.get(name, '?')}" for name in packages)
        words.append(f"{backend}: Python {own.python}{', ' if versions else ''}{versions}")
    return "; ".join(words)
