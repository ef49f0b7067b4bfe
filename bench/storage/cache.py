"""The cache: packed data, Blueprints and values of frozen prefixes, in folders named by content."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import platformdirs

from bench.errors import UNWRITABLE, UserError

CACHE_VARIABLE = "THAWBENCH_CACHE"
"""Environment variable that sets the root of the cache."""
DEFAULT_LIMIT_GB = 20.0
KINDS = ("blueprints", "packed", "features")
"""Folders of the cache whose content ``prune`` may remove."""


def cache_root() -> Path:
    """Return ``THAWBENCH_CACHE``, or else ``thawbench`` in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return platformdirs.user_cache_path("thawbench")


def cached_folder(kind: str, key: str, cache: Path | None = None) -> Path:
    """Return the folder of a key in the cache.

    Args:
        kind: Folder in which it lies, such as 'packed' or 'blueprints'.
        key: Name of the folder, the same on every machine.
        cache: Root of the cache; None: ``cache_root()``.

    Raises:
        ValueError: The key is not a plain name.
    """
    if Path(key).name != key or key in ("", ".", ".."):
        raise ValueError(f"'{key}' is not a key of the cache")
    return (cache or cache_root()) / kind / key


def limit_bytes() -> int:
    """Return the most bytes that the cache may hold: ``THAWBENCH_CACHE_GB``, or else 20 GB."""
    try:
        return int(float(os.environ["THAWBENCH_CACHE_GB"]) * 1e9)
    except (KeyError, ValueError):
        return int(DEFAULT_LIMIT_GB * 1e9)


def unwritable(error: OSError, place: str = "to the disk") -> UserError | None:
    """Return the error that a user gets for a full or write-protected disk; None for other causes.

    Args:
        error: The system's error.
        place: Name of the place that was written to, for an error without a file name.
    """
    if error.errno not in UNWRITABLE:
        return None
    where = str(error.filename or place)
    verb = "read or write" if error.errno == errno.EACCES else "write"
    in_cache = where.startswith(str(cache_root().absolute()))
    return UserError(
        f"Cannot {verb} {where}: {error.strerror}.",
        "Make room, or set THAWBENCH_CACHE to a folder that can be written to; then give the same "
        "command again."
        if in_cache
        else "Finished runs are kept; make room and give the same command again.",
    )


def mark_used(folder: Path) -> None:
    """Set a cached folder's time of last use to now; ``prune`` removes the oldest first."""
    try:
        os.utime(folder)
    except OSError:
        pass  # a cache that belongs to another user can be read all the same


def prune(root: Path, keep: set[Path], limit: int) -> list[Path]:
    """Remove the least recently used folders of the cache until the rest fits into ``limit``.

    Args:
        root: The cache, with folders such as ``packed/KEY``.
        keep: Folders that must stay.
        limit: Most bytes that may stay.

    Returns:
        The folders that were removed.
    """
    folders = [f for kind in KINDS for f in (root / kind).glob("[!.]*")]
    last_used = {f: _last_used(f) for f in folders if f.is_dir()}
    sizes = {f: _size_bytes(f) for f in sorted(last_used, key=lambda f: last_used[f])}
    total, removed = sum(sizes.values()), []
    for folder in sizes:
        if total <= limit:
            break
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
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
    """Remove values of frozen prefixes, the least recently used first, until ``needed`` bytes fit.

    Images and networks stay, because runs cannot begin without them.

    Args:
        root: The cache.
        needed: Bytes that will be written.
        limit: Most bytes that the cache may hold.

    Raises:
        OSError: They do not fit even without any values of frozen prefixes.
    """
    keep = {f for kind in KINDS if kind != "features" for f in (root / kind).glob("[!.]*")}
    kept_bytes = sum(map(_size_bytes, keep))
    if kept_bytes + needed > limit:
        raise OSError(
            f"{needed / 1e9:.1f} GB do not fit beside {kept_bytes / 1e9:.1f} GB of images and "
            f"networks: the cache may hold {limit / 1e9:.1f} GB (THAWBENCH_CACHE_GB)"
        )
    prune(root, keep, limit - needed)
