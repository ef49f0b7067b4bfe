"""NumPy arrays on disk."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.storage.regular_files import open_regular

ARRAY_BYTES = 2**31
"""Largest array, and largest file of arrays, that is read from a results folder."""


def mapped_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create a ``.npy`` file, reserve its space on the disk and return it as a writable map; raise
    OSError if it cannot be written or the disk has no room for it.

    Without the reservation, writing through the map to a full disk would kill the process.
    """
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class BoundedArchive:
    """The arrays of an ``.npz`` file by name, which may come from a stranger: none is read that its
    archive or its header makes larger than ``ARRAY_BYTES``."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return an array; raise KeyError if there is none, and ValueError if it is too large or
        damaged."""
        member = self._members[name]
        if member.file_size > ARRAY_BYTES:
            raise ValueError(f"'{name}' is larger than {ARRAY_BYTES / 1e9:g} GB")
        with self._archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"'{name}' has another format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            count = math.prod(shape)
            if dtype.hasobject or not 0 <= count * dtype.itemsize <= member.file_size:
                raise ValueError(f"'{name}' is not as large as its header says")
            found = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
            return found.reshape(shape, order="F" if fortran else "C")


@contextmanager
def open_archive(path: Path) -> Iterator[BoundedArchive]:
    """Open the arrays of a regular ``.npz`` file; raise OSError or zipfile.BadZipFile."""
    with open_regular(path, ARRAY_BYTES, follow_links=False) as file, zipfile.ZipFile(file) as z:
        yield BoundedArchive(z)
