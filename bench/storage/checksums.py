"""Checksums: to identify content, and to find damage in the cache and in downloads."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from bench.storage.regular_files import open_regular

_CHUNK_BYTES = 2**22


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return digest_of_file(path, "sha256")


def digest_of_file(path: Path, algorithm: str) -> str:
    """Return a digest of a file in hex, by an algorithm known to ``hashlib``, such as 'md5'."""
    with open_regular(path) as file:
        new = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()


def sha256_of_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a list of strings in hex; different lists give different input. File
    names that are not valid UTF-8 are hashed by their bytes."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogateescape")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def crc32_of_file(path: Path) -> int:
    """Return the CRC-32 of a file.

    A file that this process has read before is not read again as long as its size and its
    modification time stay the same.
    """
    facts = path.stat()
    return _crc32(path, facts.st_size, facts.st_mtime_ns)


@functools.cache
def _crc32(path: Path, size_bytes: int, modified_ns: int) -> int:
    found = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found
