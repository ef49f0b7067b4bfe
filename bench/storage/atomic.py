"""Folders that appear whole or not at all, even with several writers or an interruption."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.system import is_alive

_PREFIX = ".writing-"
_ABANDONED_S = 24 * 3600
"""Seconds without a change after which a temporary folder of another machine has no owner."""


def build_folder(
    final: Path, write: Callable[[Path], None], is_good: Callable[[Path], bool]
) -> None:
    """Fill a temporary folder beside ``final`` and rename it into place.

    Args:
        final: Where the folder belongs. If a good one is there, another writer was first and it
            stays; a broken one is replaced.
        write: Fills the folder that it is given.
        is_good: Returns True if a folder is complete.

    Raises:
        OSError: The folder cannot be written.
    """
    temporary = _temporary_folder(final)
    try:
        # A folder inside, because mkdtemp makes its own private and a cache may be shared.
        content = temporary / "content"
        content.mkdir()
        write(content)
        _move_into_place(content, final, is_good)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(content: Path, final: Path, is_good: Callable[[Path], bool]) -> None:
    while True:
        try:
            content.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
        if is_good(final):
            return
        _remove_at_once(final, content.with_name("broken"))


def _remove_at_once(broken: Path, aside: Path) -> None:
    # Renamed before it is deleted, so that no other process sees it half deleted.
    try:
        broken.rename(aside)
    except FileNotFoundError:  # another writer did it
        return
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def _temporary_folder(final: Path) -> Path:
    """Create an empty folder beside ``final``, so that a rename stays on one file system."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(final.parent)
    owner = f"{_host()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=_PREFIX + owner, dir=final.parent))


def _host() -> str:
    """Return a name of this machine without hyphens; machines may share a cache."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of killed processes: at once if the process was on this machine,
    else after a day without a change."""
    for path in folder.glob(f"{_PREFIX}*"):
        host, _, rest = path.name.removeprefix(_PREFIX).partition("-")
        pid = rest.partition("-")[0]
        if host == _host() and not is_alive(pid):
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            changed_s = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
        except OSError:  # its owner is moving it right now
            continue
        if time.time() - changed_s > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)
