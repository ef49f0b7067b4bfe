"""Results on disk: one folder per run and environment, written whole or not at all."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.errors import UserError, nearest
from bench.spec.base import SCHEMA_VERSION, Frozen
from bench.spec.result import RunResult
from bench.spec.run import UNFINISHED, Environment, RunSpec
from bench.storage.atomic import is_abandoned, owner
from bench.storage.regular_files import read_regular
from bench.storage.text_files import replace_text


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector while loading thousands of results (saves about 20 %)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # Both together move the new objects to the oldest generation, so that the collector
            # does not look at millions of them at once.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


@dataclass(frozen=True)
class StoredRun:
    """A run on disk."""

    spec: RunSpec
    environment: Environment
    result: RunResult
    folder: Path

    @property
    def key(self) -> tuple[str, str]:
        """Run id and environment id, which no two runs of a folder share."""
        return self.result.run_id, self.result.environment_id


class Store:
    """A results folder: ``runs/<run_id>/<environment_id>/`` below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create the folder; raise UserError if it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(
                f"Cannot write results to '{self.root}': {error.strerror or error}.",
                "Name another folder: --out DIR.",
            ) from error

    def folder(self, run_id: str, environment_id: str) -> Path:
        """Return the folder of a run's files."""
        return self.root / "runs" / run_id / environment_id

    def is_missing(self, run_id: str, environment_id: str) -> bool:
        """Return True if there is no result, or one whose status calls for another try; raise
        UserError if a newer Thawbench wrote it, so that it must not be replaced."""
        folder = self.folder(run_id, environment_id)
        try:
            return _read_run(folder).result.status in UNFINISHED
        except UserError as error:
            raise UserError(f"{folder}: {error}.", "Name another folder: --out DIR.") from error
        except (OSError, ValueError, RecursionError):
            return True

    def read(self, run_id: str, environment_id: str) -> StoredRun:
        """Return a run; raise OSError, ValueError or UserError if it cannot be read."""
        return _read_run(self.folder(run_id, environment_id))

    def has_other_environment(self, run_id: str) -> bool:
        """Return True if a run that is missing here has finished in another environment."""
        for folder in _folders_in(self.root / "runs" / run_id):
            with suppress(OSError, ValueError, RecursionError, UserError):
                if _read_result(Path(folder)).status not in UNFINISHED:
                    return True
        return False

    def partial_folder(self) -> Path:
        """Create an empty folder on the same disk, for a run in progress."""
        folder = self.root / ".partial" / f"{owner()}-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def save(
        self, spec: RunSpec, environment: Environment, result: RunResult, partial: Path
    ) -> Path:
        """Complete a partial folder, move it into place and return its path; raise OSError if that
        fails, for example on a full disk: what was there before stays."""
        write_json(partial / "spec.json", spec.model_dump(mode="json"))
        write_json(partial / "environment.json", environment.model_dump(mode="json"))
        write_json(partial / "result.json", result.model_dump(mode="json"))
        final = self.folder(result.run_id, result.environment_id)
        final.parent.mkdir(parents=True, exist_ok=True)
        if not final.exists():
            os.replace(partial, final)
            return final
        old = self.partial_folder() / "old"
        os.replace(final, old)
        try:
            os.replace(partial, final)
        except OSError:
            os.replace(old, final)
            raise
        shutil.rmtree(old.parent, ignore_errors=True)
        return final

    def discard_partials(self) -> None:
        """Remove partial folders of this process and of dead ones, not those of other live ones; a
        result that a process was replacing when it died is put back."""
        partial = self.root / ".partial"
        for folder in () if partial.is_symlink() else partial.glob("*"):
            if folder.is_symlink():
                continue
            if folder.name.startswith(f"{owner()}-") or is_abandoned(folder, folder.name):
                self._put_back(folder / "old")
                shutil.rmtree(folder, ignore_errors=True)

    def _put_back(self, old: Path) -> None:
        """Move a result that ``save`` took away back to its place, unless the new one is there."""
        with suppress(OSError, ValueError, RecursionError, UserError):
            result = _read_run(old).result
            final = self.folder(result.run_id, result.environment_id)
            if not final.exists():
                os.rename(old, final)

    def _meant(self) -> str:
        """Return in words which results folder beside this one was meant, or how to get one."""
        beside = [Path(path).name for path in _folders_in(self.root.parent)
                  if (Path(path) / "runs").is_dir()]  # fmt: skip
        name = nearest(self.root.name, beside)
        if name is not None:
            return f"Did you mean '{self.root.with_name(name)}'?"
        return "`run` writes such folders, each suite its own below results/runs."

    @collector_paused()
    def load(self) -> tuple[list[StoredRun], list[str]]:
        """Return all runs, and a sentence about each folder that could not be read; raise UserError
        if the results folder does not exist or is a file."""
        if not self.root.is_dir():
            why = "it is a file" if self.root.exists() else "it does not exist"
            raise UserError(f"'{self.root}' is not a results folder: {why}.", self._meant())
        if (self.root / "runs").is_symlink():
            raise UserError(f"'{self.root / 'runs'}' is a link, which may lead anywhere.")
        runs, problems = [], []
        for run in _folders_in(self.root / "runs"):
            for folder in _folders_in(run):
                try:
                    runs.append(_read_run(Path(folder)))
                except (OSError, ValueError, RecursionError, UserError) as error:
                    problems.append(f"{folder}: skipped: {_reason(error)}")
        return runs, problems


def _folders_in(folder: Path | str) -> list[str]:
    """Return the paths of the folders in a folder, sorted by name; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:  # twice as fast as glob, which matters for thousands
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _reason(error: Exception) -> str:
    """Return why a folder is left out."""
    match error:
        case FileNotFoundError():
            return f"not a run of Thawbench: {Path(error.filename).name} is missing"
        case OSError():
            return f"cannot be read: {error.strerror}"
        case json.JSONDecodeError() | UnicodeDecodeError() | RecursionError():
            return "not a run of Thawbench: a file is cut off or not JSON"
        case UserError():
            return str(error)
    return f"not a run of Thawbench: {error}"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    replace_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _read_run(folder: Path) -> StoredRun:
    result = _read_result(folder)
    spec = _parsed(RunSpec, "spec.json", _read(folder, "spec.json"))
    environment, environment_id = _environment(_read(folder, "environment.json"))
    for name, expected in (("run_id", spec.run_id), ("environment_id", environment_id)):
        if getattr(result, name) != expected:
            raise UserError(
                f"result.json is of another run: its {name} does not follow from spec.json and "
                "environment.json"
            )
    return StoredRun(spec, environment, result, folder)


@lru_cache(maxsize=64)
def _environment(text: bytes) -> tuple[Environment, str]:
    """Return an environment and its id; cached, because thousands of runs share one."""
    environment = _parsed(Environment, "environment.json", text)
    return environment, environment.environment_id


def _read(folder: Path, name: str) -> bytes:
    """Read a file of a run's folder, which may come from a stranger."""
    return read_regular(f"{folder}/{name}", follow_links=False)


def _read_result(folder: Path) -> RunResult:
    text = _read(folder, "result.json")
    if b"NaN" in text or b"Infinity" in text:
        json.loads(text, parse_constant=_refuse_constant)
    result = _parsed(RunResult, "result.json", text)
    _refuse_newer(result.schema_version)
    return result


Model = TypeVar("Model", bound=Frozen)


def _parsed(model: type[Model], name: str, text: bytes) -> Model:
    """Parse the content of the file called ``name``.

    Raises:
        ValueError: It holds something else; the message names the first wrong field.
        UserError: A newer Thawbench wrote it.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        data = json.loads(text)
    _refuse_newer(data.get("schema_version") if isinstance(data, dict) else None)
    try:
        # Python's parser takes what the faster one refuses: file names that are not UTF-8.
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join(filter(None, [name, ".".join(map(str, first["loc"]))]))
        raise ValueError(f"{place}: {first['msg']}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"result.json: {name} is not a number")


def _refuse_newer(version: Any) -> None:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"written by a newer Thawbench (schema {version}, this one reads {SCHEMA_VERSION})"
        )
