"""Folders that appear whole or not at all, even with several writers or an interruption."""

from __future__ import annotations

import contextlib
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
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(final.parent)
    # Beside ``final``, so that a rename stays on one file system.
    prefix = f"{_PREFIX}{_host()}-{os.getpid()}-"
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    try:
        # A folder inside, because mkdtemp makes its own private and a cache may be shared.
        content = temporary / "content"
        content.mkdir()
        write(content)
        _move_into_place(content, final, is_good)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(content: Path, final: Path, is_good: Callable[[Path], bool]) -> None:
    broken = content.with_name("broken")
    while True:
        try:
            content.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
        if is_good(final):
            return
        # Renamed before it is deleted, so that no other process sees it half deleted.
        with contextlib.suppress(FileNotFoundError):  # another writer did it
            final.rename(broken)
            if broken.is_dir():
                shutil.rmtree(broken)
            else:
                broken.unlink()


def _host() -> str:
    """Return a name of this machine without hyphens; machines may share a cache."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of killed processes: at once if the process was on this machine,
    else after a day without a change."""
    for path in folder.glob(f"{_PREFIX}*"):
        host, pid, *_ = [*path.name.removeprefix(_PREFIX).split("-"), ""]
        abandoned = host == _host() and not is_alive(pid)
        if not abandoned:
            try:
                changed_s = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
            except OSError:  # its owner is moving it right now
                continue
            abandoned = time.time() - changed_s > _ABANDONED_S
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)
