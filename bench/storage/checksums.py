"""Whether files of the cache still hold what was written: a disk or a copy may change a bit."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path

CHUNK_BYTES = 2**22


def checksum(path: Path) -> int:
    """CRC-32 of a file.

    A file that this process has read before is not read again while its size and the time of its
    last change stay.

    Raises:
        OSError: It cannot be read.
    """
    facts = path.stat()
    return _checksum(path, facts.st_size, facts.st_mtime_ns)


@functools.cache
def _checksum(path: Path, size: int, changed_ns: int) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found
