"""Virtual environments that are built for a comparison: of a baseline's lock, of a release."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.spec.base import short_hash
from bench.workers.tasks import Software

COMPLETE = ".complete"
"""File in an environment whose installation has ended well."""
NOT_INSTALLED = ("thawbench", "pip", "setuptools")
"""Distributions of a lock that are left out: the code comes from a folder."""
INSTALL_TIMEOUT_S = 3600.0


def python_of(version: str) -> Path:
    """Return an interpreter of the same minor version as 3.11.7.

    Raises:
        UserError: There is none.
    """
    minor = ".".join(version.split(".")[:2])
    if minor == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    found = shutil.which(f"python{minor}")
    if found is None:
        raise UserError(
            f"The environment cannot be rebuilt: it needs Python {minor}, which is not here.",
            f"Install Python {minor}.",
        )
    return Path(found)


def rebuilt(software: Software, cache: Path, say: Callable[[str], None]) -> Path:
    """Return the interpreter of an environment with the distributions of a lock.

    Raises:
        UserError: A distribution cannot be installed.
    """
    pins = [
        f"{name}=={version}"
        for name, version in software.distributions.items()
        if name not in NOT_INSTALLED
    ]
    return environment(python_of(software.python), ["--no-deps", *pins], cache, say)


def environment_folder(python: Path, packages: Sequence[str], cache: Path) -> Path:
    """Return the folder of an environment in the cache, whether it was built or not."""
    key = short_hash({"python": str(python), "packages": list(packages)})
    return cache / "environments" / key


def environment(
    python: Path, packages: Sequence[str], cache: Path, say: Callable[[str], None]
) -> Path:
    """Return the interpreter of an environment with packages, built once.

    Args:
        packages: Arguments of ``pip install``.
        cache: Root of the cache.
        say: Takes a sentence for the user.

    Raises:
        UserError: The packages cannot be installed.
    """
    folder = environment_folder(python, packages, cache)
    interpreter = folder / "bin" / "python"
    if (folder / COMPLETE).is_file():
        return interpreter
    say(f"building the environment {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([str(python), "-m", "venv", str(folder)])
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([*pip, *packages])
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / COMPLETE).touch()
    return interpreter


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"'{command[0]}' took longer than {INSTALL_TIMEOUT_S:g} s.") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        last = (lines or done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(
            f"The environment of '{command[0]}' cannot be built: {last[:300]}",
            f"See the whole output: {shlex.join(command)}",
        )
