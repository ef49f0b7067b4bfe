"""Finding files inside installed packages without importing them, and hashing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bench.errors import Unavailable

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def package_file(package: str, distribution: str, relative: str) -> Path:
    """Return the path of a file that an installed package carries, without importing the package.

    Args:
        package: Top-level import name, as in "skimage".
        distribution: What pip calls it, as in "scikit-image".
        relative: Path below the package, with forward slashes.

    Raises:
        Unavailable: If the package, or the file in it, is not there.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"The package {distribution} is not installed: pip install {distribution}"
        )
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise Unavailable(
            f"The installed {distribution} has no {relative}: "
            f"pip install --upgrade --force-reinstall {distribution}"
        )
    return path


def mapped_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Return a new ``.npy`` file as a writable map whose space on the disk is taken already.

    Without that, a disk that is full would be met through the map, and end the process.

    Raises:
        OSError: There is no room, for one.
    """
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def hash_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_parts(parts: Iterable[str]) -> str:
    """Return the hex SHA-256 of a list of strings; different lists never give the same text.

    File names that are not valid UTF-8 are hashed by their bytes.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return ``function`` of each item, in order, computed by a few threads.

    Pillow's decoders and hashlib release the interpreter's lock, so threads are enough.
    """
    with ThreadPoolExecutor(thread_count()) as pool:
        return list(pool.map(function, items))


def thread_count() -> int:
    """Return how many threads decode and hash: one per core, 16 at most."""
    return min(16, os.cpu_count() or 1)
