"""Downloads of single files: checked, placed whole or not at all, quick to fail without network."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

from bench.errors import Unavailable, first_line
from bench.storage.checksums import digest_of_file

PATIENCE_S = 4.0
"""Seconds to wait for a host's answer: a run that finds two hosts away must say so within 10 s."""
CHUNK_BYTES = 2**20
_problems: dict[str, str] = {}
"""Host → why it cannot be reached, empty if it answered; each is asked once in a process."""


def download_file(address: str, target: Path, digest: str = "", algorithm: str = "sha256") -> Path:
    """Download a file, check it and move it into place.

    Args:
        address: URL of the file.
        target: Where it belongs; its folder is created if need be.
        digest: Known digest in hex, or its first digits; empty: the file is not checked.
        algorithm: Of the digest, as ``hashlib`` calls it.

    Returns:
        ``target``.

    Raises:
        Unavailable: The host does not answer or lacks the file, or the file is damaged or cannot
            be saved. What was at ``target`` stays, and nothing else is left.
    """
    import pooch  # takes a tenth of a second with what it needs, and few commands download

    _check_host(address)
    print(f"downloading {address}", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".downloading-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            get = pooch.HTTPDownloader(chunk_size=CHUNK_BYTES, timeout=PATIENCE_S)
            get(address, part, None)
            if not _has_digest(part, digest, algorithm):
                damage = _damage(digest, algorithm)
                raise Unavailable(f"the file from {address} is damaged: {damage}")
            os.replace(part, target)
    except OSError as error:  # as are all errors of requests, which pooch uses
        why = first_line(error)
        raise Unavailable(f"{address} could not be saved as {target}: {why}") from error
    return target


def checked_file(path: Path, digest: str, algorithm: str = "sha256") -> Path:
    """Return ``path`` if the file's digest begins with ``digest``, see ``download_file``.

    Raises:
        Unavailable: The file is damaged.
    """
    if not _has_digest(path, digest, algorithm):
        raise Unavailable(f"{path} is damaged: {_damage(digest, algorithm)}; delete it")
    return path


def _has_digest(path: Path, digest: str, algorithm: str) -> bool:
    return not digest or digest_of_file(path, algorithm).startswith(digest)


def _damage(digest: str, algorithm: str) -> str:
    name = "SHA-256" if algorithm == "sha256" else algorithm.upper()
    return f"its {name} is not {digest[:8]}…"


def _check_host(address: str) -> None:
    """Raise Unavailable if the host of a URL does not answer."""
    host = urllib.parse.urlparse(address).netloc
    if host not in _problems:
        _problems[host] = _problem(address)
    if _problems[host]:
        raise Unavailable(f"{host} cannot be reached ({_problems[host]})")


def _problem(address: str) -> str:
    """Return why the host of a URL cannot be reached; empty if it answers, whatever it says."""
    import pooch

    found = [f"no answer within {PATIENCE_S:.0f} s"]

    def ask() -> None:
        try:
            head = pooch.HTTPDownloader(timeout=PATIENCE_S)
            head(address, io.BytesIO(), None, check_only=True)
            found.append("")
        except Exception as error:  # reported by the thread that waits
            found.append(first_line(_origin(error)))

    # In a thread, because the timeout does not cover a name server that never answers.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[-1]


def _origin(error: BaseException) -> BaseException:
    """Return the exception that an exception goes back to, such as 'Connection refused'."""
    while error.__context__ is not None:
        error = error.__context__
    return error
