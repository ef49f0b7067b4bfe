"""Folders that appear whole or not at all, whoever else writes them and whatever interrupts."""

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
# A temporary folder untouched for so long, in seconds, has no owner any more.
_ABANDONED_S = 24 * 3600


def build_folder(
    final: Path, write: Callable[[Path], None], is_good: Callable[[Path], bool]
) -> None:
    """Fill a temporary folder beside ``final`` and rename it into place.

    Args:
        final: Where the folder belongs. One that is there and good is left as it is, since
            another writer was first; a broken one is replaced.
        write: Fills the folder it is given.
        is_good: Tells whether a folder at ``final`` is complete.

    Raises:
        OSError: If the folder cannot be written.
    """
    temporary = _temporary_folder(final)
    try:
        # Inside, because mkdtemp makes its folder private and a cache may be shared.
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
        _set_aside(final, content.with_name("broken"))


def _set_aside(broken: Path, grave: Path) -> None:
    # Renamed before it is deleted, so that nobody sees it half deleted.
    try:
        broken.rename(grave)
    except FileNotFoundError:  # another writer did it
        return
    if grave.is_dir():
        shutil.rmtree(grave)
    else:
        grave.unlink()


def _temporary_folder(final: Path) -> Path:
    """Make an empty folder beside ``final``, from which a rename stays on one file system."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    owner = f"{_host()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=_PREFIX + owner, dir=final.parent))


def _host() -> str:
    """This machine, in a word without hyphens: a cache may be shared by several."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _sweep(folder: Path) -> None:
    """Delete what killed processes left behind: at once those of this machine, whose numbers tell
    that they are gone; of others, folders that nobody wrote to for a day."""
    for path in folder.glob(f"{_PREFIX}*"):
        host, _, rest = path.name.removeprefix(_PREFIX).partition("-")
        pid = rest.partition("-")[0]
        if host == _host() and not is_alive(pid):
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            touched_s = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
        except OSError:  # its owner is moving it right now
            continue
        if time.time() - touched_s > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)
