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
_problems: dict[str, str] = {}
"""Host → why it cannot be reached, empty if it answered; each is asked once in a process."""


def download_file(address: str, target: Path, digest: str = "", algorithm: str = "sha256") -> Path:
    """Download a file, check it, move it into place and return ``target``.

    Args:
        address: URL of the file.
        target: Where it belongs; its folder is created if need be.
        digest: Known digest in hex, or its first digits; empty: the file is not checked.
        algorithm: Of the digest, as ``hashlib`` calls it.

    Raises:
        Unavailable: The host does not answer or lacks the file, or the file is damaged or cannot
            be saved. What was at ``target`` stays, and nothing else is left.
    """
    import pooch  # takes a tenth of a second with what it needs, and few commands download

    host = urllib.parse.urlparse(address).netloc
    if host not in _problems:
        _problems[host] = _problem(address)
    if _problems[host]:
        raise Unavailable(f"{host} cannot be reached ({_problems[host]})")
    print(f"downloading {address}", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".downloading-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            pooch.HTTPDownloader(chunk_size=2**20, timeout=PATIENCE_S)(address, part, None)
            if damage := _damage(part, digest, algorithm):
                raise Unavailable(f"the file from {address} is damaged: {damage}")
            os.replace(part, target)
    except OSError as error:  # as are all errors of requests, which pooch uses
        why = first_line(error)
        raise Unavailable(f"{address} could not be saved as {target}: {why}") from error
    return target


def checked_file(path: Path, digest: str, algorithm: str = "sha256") -> Path:
    """Return ``path``; raise Unavailable if the file is damaged, see ``download_file``."""
    if damage := _damage(path, digest, algorithm):
        raise Unavailable(f"{path} is damaged: {damage}; delete it")
    return path


def _damage(path: Path, digest: str, algorithm: str) -> str:
    """Return how a file differs from its known digest; empty if it does not."""
    if not digest or digest_of_file(path, algorithm).startswith(digest):
        return ""
    name = "SHA-256" if algorithm == "sha256" else algorithm.upper()
    return f"its {name} is not {digest[:8]}…"


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
            cause: BaseException = error
            while cause.__context__ is not None:  # go back to, for example, 'Connection refused'
                cause = cause.__context__
            found.append(first_line(cause))

    # In a thread, because the timeout does not cover a name server that never answers.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[-1]
