"""Opening files that somebody else may have prepared: regular ones of bounded size.

A pipe, a socket, a device or a link to one among images, labels, weights or results would hang a
command or fill the memory.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
from pathlib import Path

TEXT_BYTES = 2**26
"""Largest size of a text file that is read: a suite, a list of labels, a result."""
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
         (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
"""Byte order mark → encoding, as Windows editors write them."""


def open_regular(
    path: Path | str, most_bytes: int | None = None, *, follow_links: bool = True
) -> io.BufferedReader:
    """Open a file for reading, without waiting for a writer.

    Args:
        most_bytes: Largest allowed size; None: any.
        follow_links: False for files of a stranger's folder, whose links may lead out of it.

    Raises:
        OSError: It cannot be opened, is no regular file, is too large, or is a link.
    """
    no_link = 0 if follow_links else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_link)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from None
        raise
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if most_bytes is not None and facts.st_size > most_bytes:
            limit = f"larger than {most_bytes / 1e6:,.0f} MB"
            raise OSError(errno.EFBIG, limit, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_regular(path: Path) -> bool:
    """Return True for a regular file, or a link to one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def read_regular(
    path: Path | str, most_bytes: int = TEXT_BYTES, *, follow_links: bool = True
) -> bytes:
    """Read a file whole; see ``open_regular``."""
    with open_regular(path, most_bytes, follow_links=follow_links) as file:
        # No more than it holds now: a buffer of the largest size would take time to allocate.
        return file.read(min(most_bytes, os.fstat(file.fileno()).st_size + 1))


def read_tail(path: Path, most_bytes: int) -> bytes:
    """Read the last bytes of a file that is no link; see ``open_regular``."""
    with open_regular(path, follow_links=False) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - most_bytes, 0))
        return file.read(most_bytes)


def decoded(data: bytes) -> str:
    """Decode text in UTF-8, or in the encoding that its byte order mark says; raise
    UnicodeDecodeError if it is neither."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8")
