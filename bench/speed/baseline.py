"""Baselines: launches that were stored, in pytest-benchmark's format with all that we know beside.

``benchmarks`` holds one entry for each measure of a case, whose data are the medians of its
launches, so that ``pytest-benchmark compare`` and other tools read the file. The key ``thawbench``
holds everything else: every window with the state of the machine around it, the software (a lock
from which the environment can be rebuilt), and the shapes of the cases.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_commit_info

from bench.errors import UserError, first_line
from bench.spec.base import SCHEMA_VERSION, Frozen
from bench.speed.cases import TimedCase
from bench.speed.launch import Launch
from bench.speed.values import Windows, benchmarks_of, value_of
from bench.storage.checksums import sha256_of_file
from bench.storage.text_files import json_text, replace_text
from bench.system import project_root
from bench.workers.tasks import OwnStepTask, Software

KEY = "thawbench"
OPTIONS = {"disable_gc": False, "timer": "perf_counter", "min_rounds": 1, "max_time": 0.0,
           "min_time": 0.0, "warmup": True}  # fmt: skip


class Baseline(Frozen):
    """Launches of a suite, and what they ran on."""

    schema_version: int = SCHEMA_VERSION
    name: str
    recorded_at: str = Field(description="Time in UTC, ISO 8601.")
    commit: str = Field(description="Commit of the folder in which the command ran; 'unversioned'.")
    thawbench_commit: str | None = Field(
        default=None, description="Commit of Thawbench's own code; null where it is no checkout."
    )
    has_changes: bool = Field(
        default=False, description="True if there were changes that the commit does not have."
    )
    target_sha256: str | None = Field(
        default=None, description="SHA-256 of the file of a user's own step; null for a suite."
    )
    suite: str
    device: str
    software: dict[str, Software] = Field(description="Backend → what it ran, and on what.")
    shapes: dict[str, dict[str, Any]] = Field(description="Case → what must agree.")
    launches: tuple[Launch, ...]

    def values(self) -> dict[str, list[float]]:
        """Return the seconds of each benchmark, a value for each launch that nothing disturbed."""
        found: dict[str, list[float]] = {}
        for launch in self.launches:
            for name, windows in benchmarks_of(launch).items():
                value, calm = value_of(windows), found.setdefault(name, [])
                if value.disturbed_by is None:
                    calm.append(value.seconds)
        return found

    def all_values(self) -> dict[str, list[float]]:
        """Return the seconds of each benchmark, of the calm launches or of all if none was."""
        return {
            name: values or [value_of(windows).seconds for windows in self.windows(name)]
            for name, values in self.values().items()
        }

    def disturbed(self) -> dict[str, int]:
        """Return the number of disturbed launches of each benchmark."""
        return {
            name: len(self.windows(name)) - len(values) for name, values in self.values().items()
        }

    def windows(self, name: str) -> list[Windows]:
        """Return the windows of a benchmark in each launch."""
        each = (benchmarks_of(launch).get(name) for launch in self.launches)
        return [windows for windows in each if windows]


def new_baseline(
    name: str, suite: str, device: str, cases: Sequence[TimedCase],
    software: Mapping[str, Software], launches: Sequence[Launch],
) -> Baseline:  # fmt: skip
    """Return the baseline of launches that were done now."""
    commit = get_commit_info()
    targets = [case.task.file for case in cases if isinstance(case.task, OwnStepTask)]
    return Baseline(
        name=name,
        recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit["id"],
        has_changes=bool(commit["dirty"]),
        target_sha256=sha256_of_file(Path(targets[0])) if targets else None,
        thawbench_commit=_own_commit(),
        suite=suite,
        device=device,
        software=dict(software),
        shapes={case.name: case.shape for case in cases},
        launches=tuple(launches),
    )


def _own_commit() -> str | None:
    """Return the commit of the checkout that Thawbench runs from; None if it is none."""
    command = ["git", "-C", str(project_root()), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def baseline_path(folder: Path, name: str) -> Path:
    """Return the file of a baseline.

    Raises:
        UserError: The name cannot be that of a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"'{name}' cannot be the name of a baseline.",
            "Use letters, digits, dots, hyphens and underscores.",
        )
    return folder / f"{name}.json"


def check_unused(folder: Path, name: str, *, force: bool) -> None:
    """Raise UserError if a baseline exists that must not be replaced."""
    path = baseline_path(folder, name)
    if path.exists() and not force:
        raise UserError(
            f"There is a baseline '{name}' already ('{path}').",
            "Use another name, or --force to replace it.",
        )


def save_baseline(baseline: Baseline, folder: Path, *, force: bool) -> Path:
    """Write a baseline and return its file.

    Raises:
        UserError: There is one of that name, and ``force`` is False.
    """
    check_unused(folder, baseline.name, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    path = baseline_path(folder, baseline.name)
    replace_text(path, json_text(document(baseline)))
    return path


def document(baseline: Baseline) -> dict[str, Any]:
    """Return a baseline in pytest-benchmark's format."""
    benchmarks = []
    for name, values in sorted(baseline.all_values().items()):
        measure, _, case = name.partition(" ")
        stats = Stats()
        for seconds in values:
            stats.update(seconds)
        benchmarks.append(
            {
                "group": measure,
                "name": name,
                "fullname": f"{baseline.suite}::{name}",
                "params": None,
                "param": None,
                "extra_info": {
                    **baseline.shapes[case],
                    "unit": "one value for each launch: the median of its windows",
                    "other": _beside(baseline, case),
                },
                "options": OPTIONS,
                "stats": {**stats.as_dict(), "data": values, "iterations": 1},
            }
        )
    return {
        "machine_info": pytest_benchmark_generate_machine_info(),
        "commit_info": get_commit_info(),
        "benchmarks": benchmarks,
        "datetime": baseline.recorded_at,
        "version": version("pytest-benchmark"),
        KEY: baseline.model_dump(mode="json"),
    }


def _beside(baseline: Baseline, case: str) -> dict[str, list[Any]]:
    """Return what no window shows of a case, one value for each launch."""
    answers = [launch.cases[case] for launch in baseline.launches if case in launch.cases]
    fields = ("setup_s", "compile_s", "peak_host_bytes", "peak_device_bytes")
    return {field: [getattr(answer, field) for answer in answers] for field in fields}


def load_baseline(folder: Path, name: str) -> Baseline:
    """Read a baseline by its name, or a file by its path.

    Raises:
        UserError: It is missing, damaged, of a newer version, or not by Thawbench.
    """
    path = Path(name) if name.endswith(".json") else baseline_path(folder, name)
    if not path.is_file():
        names = [file.stem for file in sorted(folder.glob("*.json"))]
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        known = f"Known: {', '.join(names)}." if names else "There are none yet."
        raise UserError(
            f"There is no baseline '{name}' in '{folder}'.{guess}",
            f"{known} Make one: run_bench.py speed --save-baseline {name}",
        )
    return read_baseline(path)


def read_baseline(path: Path) -> Baseline:
    """Read the file of a baseline.

    Raises:
        UserError: It is damaged, of a newer version, or not by Thawbench.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"'{path}' is no baseline: {first_line(error)}. Perhaps it was cut short."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get(KEY), dict):
        raise UserError(
            f"'{path}' is not by `speed --save-baseline`: it has no key '{KEY}'.",
            "Files of pytest-benchmark alone lack the launches that a comparison needs.",
        )
    schema = found[KEY].get("schema_version")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise UserError(
            f"'{path}' is of a newer version of Thawbench (schema {schema}, here "
            f"{SCHEMA_VERSION}).",
            "Update Thawbench.",
        )
    try:
        return Baseline.model_validate(found[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:6])
        raise UserError(f"'{path}' is damaged at '{place}': {first['msg']}.") from error
