"""The cache: packed data, Blueprints and values of frozen prefixes, in folders named by content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs

from bench.errors import UNWRITABLE, UserError
from bench.storage.atomic import build_folder

CACHE_VARIABLE = "THAWBENCH_CACHE"
"""Environment variable that sets the root of the cache."""
LIMIT_VARIABLE = "THAWBENCH_CACHE_GB"
"""Environment variable with the size of the cache, in gigabytes."""
MOST_GB = 1e6
KINDS = ("blueprints", "packed", "features", "depths")
"""Folders of the cache whose content ``prune`` may remove."""


def cache_root() -> Path:
    """Return ``THAWBENCH_CACHE``, or else ``thawbench`` in the user's cache folder; raise UserError
    if that is a file."""
    given = os.environ.get(CACHE_VARIABLE)
    root = Path(os.path.expanduser(given)) if given else platformdirs.user_cache_path("thawbench")
    if root.exists() and not root.is_dir():
        raise UserError(
            f"The cache '{root}' is a file, not a folder.",
            f"Set {CACHE_VARIABLE} to a folder that can be written to.",
        )
    return root


def cached_folder(kind: str, key: str, cache: Path | None = None) -> Path:
    """Return the folder of a key, such as ``packed/KEY``, below ``cache`` or else ``cache_root()``;
    raise ValueError if the key is not a plain name."""
    if Path(key).name != key or key in ("", ".", ".."):
        raise ValueError(f"'{key}' is not a key of the cache")
    return (cache or cache_root()) / kind / key


def limit_bytes() -> int:
    """Return the most bytes that the cache may hold: ``THAWBENCH_CACHE_GB``, or else 20 GB; raise
    UserError if that is no number of gigabytes."""
    given = os.environ.get(LIMIT_VARIABLE, "").strip() or "20"
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not 0.0 <= gigabytes <= MOST_GB:
        raise UserError(
            f"{LIMIT_VARIABLE} is '{given[:40]}'; it must be a number of gigabytes, 0 or more.",
            f"Set it to a number such as 20, or unset it: unset {LIMIT_VARIABLE}",
        )
    return int(gigabytes * 1e9)


def unwritable(error: OSError, place: str = "to the disk") -> UserError | None:
    """Return the error that a user gets for a full or write-protected disk; None for other causes.
    It names ``place`` if the system's error names no file."""
    if error.errno not in UNWRITABLE:
        return None
    where = str(error.filename or place)
    verb = "read or write" if error.errno == errno.EACCES else "write"
    in_cache = False
    with contextlib.suppress(UserError):  # the cache is a file
        in_cache = where.startswith(str(cache_root().absolute()))
    return UserError(
        f"Cannot {verb} {where}: {error.strerror}.",
        "Make room, or set THAWBENCH_CACHE to a folder that can be written to; then give the same "
        "command again."
        if in_cache
        else "Finished runs are kept; make room and give the same command again.",
    )


def ensure_folder(
    final: Path, write: Callable[[Path], None], is_good: Callable[[Path], bool], what: str
) -> None:
    """Build a folder of the cache unless a good one is there; see ``build_folder``. Raise UserError
    if the cache cannot be written; the message calls the content ``what``."""
    if is_good(final):
        return
    try:
        build_folder(final, write, is_good)
    except OSError as error:
        raise UserError(
            f"Cannot write the {what} under {final.parents[1]}: {error.strerror or error}",
            "Set THAWBENCH_CACHE to a folder that can be written to.",
        ) from error


_leases: dict[Path, int] = {}
"""Folder that this process uses → descriptor that holds its lock until the process ends."""


def mark_used(folder: Path) -> bool:
    """Keep a cached folder from being removed by other processes on this machine while this one
    lives, and set its time of last use to now; return False if it is gone."""
    try:
        descriptor = _leases.get(folder)
        if descriptor is None:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is removing it
                os.close(descriptor)
                return False
            if not folder.exists() or os.stat(folder).st_ino != os.fstat(descriptor).st_ino:
                os.close(descriptor)  # it was removed before the lock was there
                return False
            _leases[folder] = descriptor
        os.utime(folder)
    except FileNotFoundError:
        return False
    except (
        OSError
    ):  # another user's cache, or a file system without locks, can be read all the same
        return folder.exists()
    return True


def _remove_unless_used(folder: Path) -> bool:
    """Remove a cached folder; return False if a process on this machine uses it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def prune(root: Path, keep: set[Path], limit: int) -> list[Path]:
    """Remove the least recently used folders of the cache, such as ``packed/KEY``, but none of
    ``keep`` and none that a process uses, until the rest takes at most ``limit`` bytes; return the
    removed ones."""
    found = [f for kind in KINDS for f in (root / kind).glob("[!.]*") if f.is_dir()]
    sizes = {f: _size_bytes(f) for f in sorted(found, key=_last_used)}
    total, removed = sum(sizes.values()), []
    for folder, size in sizes.items():
        if total <= limit:
            break
        if folder not in keep and folder not in _leases and _remove_unless_used(folder):
            total -= size
            removed.append(folder)
    return removed


def _last_used(path: Path) -> float:
    """Return a folder's time of last use in seconds; 0 if another process removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size_bytes(path: Path) -> int:
    """Return the size of a folder or file; 0 if another process removed it meanwhile."""
    try:
        return sum(_size_bytes(p) for p in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def make_room(root: Path, needed: int, limit: int) -> None:
    """Remove values of frozen prefixes, the least recently used first, until ``needed`` bytes fit
    into a cache of ``limit`` bytes; raise OSError if they do not fit even without any.

    Images and networks stay, because runs cannot begin without them.
    """
    keep = {f for kind in KINDS if kind != "features" for f in (root / kind).glob("[!.]*")}
    kept_bytes = sum(map(_size_bytes, keep))
    if kept_bytes + needed > limit:
        raise OSError(
            f"{needed / 1e6:,.1f} MB do not fit beside {kept_bytes / 1e6:,.1f} MB of images and "
            f"networks: the cache may hold {limit / 1e6:,.1f} MB ({LIMIT_VARIABLE})"
        )
    prune(root, keep, limit - needed)
