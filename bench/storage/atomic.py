"""Folders that appear whole or not at all, even with several writers or an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.system import is_alive

_PREFIX = ".writing-"
_ABANDONED_S = 24 * 3600
"""Seconds without a change after which a temporary folder of another machine has no owner."""


@contextlib.contextmanager
def temporary_folder(place: Path) -> Iterator[Path]:
    """Make a folder in ``place`` and remove it in the end; first remove those that killed processes
    left there."""
    place.mkdir(parents=True, exist_ok=True)
    for path in place.glob(f"{_PREFIX}*"):
        if is_abandoned(path, path.name.removeprefix(_PREFIX)):
            shutil.rmtree(path, ignore_errors=True)
    prefix = f"{_PREFIX}{owner()}-"
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def build_folder(
    final: Path, write: Callable[[Path], None], is_good: Callable[[Path], bool]
) -> None:
    """Fill a temporary folder beside ``final`` and rename it into place; raise OSError if it cannot
    be written.

    Args:
        final: Where the folder belongs. If a good one is there, another writer was first and it
            stays; a broken one is replaced.
        write: Fills the folder that it is given.
        is_good: Returns True if a folder is complete.
    """
    # Beside ``final``, so that a rename stays on one file system.
    with temporary_folder(final.parent) as temporary:
        # A folder inside, because a temporary folder is private and a cache may be shared.
        content = temporary / "content"
        content.mkdir()
        write(content)
        _move_into_place(content, final, is_good)


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
    """Return a name without hyphens of the place in which a process number means one process: this
    machine since it started, or a container on it. Such places may share a disk, and a host name.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def owner() -> str:
    """Return the beginning of the names of this process's temporary folders: machine and process.
    Containers and machines that share a disk have the same process numbers."""
    return f"{_host()}-{os.getpid()}"


def is_abandoned(folder: Path, name: str) -> bool:
    """Return True for the temporary folder of a process that ended, if it was on this machine, else
    for one without a change in a day. ``name`` begins with its ``owner``."""
    host, pid, *_ = [*name.split("-"), ""]
    if host == _host() and not is_alive(pid):
        return True
    try:
        changed_s = max(part.stat().st_mtime for part in (folder, *folder.rglob("*")))
    except OSError:  # its owner is moving it right now
        return False
    return time.time() - changed_s > _ABANDONED_S
