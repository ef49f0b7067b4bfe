"""Content-keyed folders that runs share: packed data, Blueprints, values of frozen prefixes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from bench.errors import UNWRITABLE, UserError

CACHE_VARIABLE = "THAWBENCH_CACHE"
"""Environment variable that names the root of the cache."""
DEFAULT_LIMIT_GB = 20.0
KINDS = ("blueprints", "packed", "features")
"""Folders of the cache whose folders are pruned."""


def cache_root() -> Path:
    """``THAWBENCH_CACHE``, else ``thawbench`` in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thawbench"


def cached_folder(kind: str, key: str, cache: Path | None = None) -> Path:
    """Return the folder of the cache that a key names.

    Args:
        kind: Such as 'packed' or 'blueprints'.
        key: Name of the folder, as it travels between machines.
        cache: Root of the cache; None: the user's.

    Raises:
        ValueError: The key is no plain name.
    """
    if Path(key).name != key or key in ("", ".", ".."):
        raise ValueError(f"'{key}' is not a key of the cache")
    return (cache or cache_root()) / kind / key


def limit_bytes() -> int:
    """``THAWBENCH_CACHE_GB`` in bytes, else 20 GB."""
    try:
        return int(float(os.environ["THAWBENCH_CACHE_GB"]) * 1e9)
    except (KeyError, ValueError):
        return int(DEFAULT_LIMIT_GB * 1e9)


def unwritable(error: OSError, place: str = "to the disk") -> UserError | None:
    """What to tell a user of a disk that is full or must not be written; None of other errors.

    Args:
        error: What the system said.
        place: That was written to, where the error does not name it.
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
    """Note that a cached folder was used now; ``prune`` takes the oldest first."""
    try:
        os.utime(folder)
    except OSError:
        pass  # a cache that belongs to somebody else is read all the same


def prune(root: Path, keep: set[Path], limit: int) -> list[Path]:
    """Remove the cached folders used longest ago until the rest fits.

    Args:
        root: The cache; its folders lie two levels down, ``packed/KEY`` and so on.
        keep: Folders that this call needs.
        limit: Most bytes that may stay.

    Returns:
        What was removed.
    """
    folders = [f for kind in KINDS for f in (root / kind).glob("[!.]*")]
    ages = {f: _age(f) for f in folders if f.is_dir()}
    aged = sorted(ages, key=lambda f: ages[f])
    sizes = {f: _size_bytes(f) for f in aged}
    total, removed = sum(sizes.values()), []
    for folder in aged:
        if total <= limit:
            break
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
            removed.append(folder)
    return removed


def _age(path: Path) -> float:
    """When it was used last; 0 if another call removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size_bytes(path: Path) -> int:
    """Of a folder or file; nothing if another call removed it meanwhile."""
    try:
        return sum(_size_bytes(p) for p in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def make_room(root: Path, needed: int, limit: int) -> None:
    """Remove values of frozen prefixes, those used longest ago first, until ``needed`` bytes more
    fit into ``limit``; what runs need to begin stays.

    Raises:
        OSError: That does not make room enough.
    """
    kept = {f for kind in KINDS if kind != "features" for f in (root / kind).glob("[!.]*")}
    held = sum(map(_size_bytes, kept))
    if held + needed > limit:
        raise OSError(
            f"{needed / 1e9:.1f} GB do not fit beside {held / 1e9:.1f} GB of images and networks: "
            f"the cache may hold {limit / 1e9:.1f} GB (THAWBENCH_CACHE_GB)"
        )
    prune(root, kept, limit - needed)
