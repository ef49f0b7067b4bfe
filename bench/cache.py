"""Content-keyed folders that runs share: packed data, Blueprints, values of frozen prefixes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DEFAULT_LIMIT_GB = 20.0
KINDS = ("blueprints", "packed", "features")
"""Folders of the cache whose folders are pruned."""


def cache_root() -> Path:
    """``THAWBENCH_CACHE``, else ``thawbench`` in the user's cache folder."""
    if "THAWBENCH_CACHE" in os.environ:
        return Path(os.environ["THAWBENCH_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thawbench"


def limit_bytes() -> int:
    """``THAWBENCH_CACHE_GB`` in bytes, else 20 GB."""
    try:
        return int(float(os.environ["THAWBENCH_CACHE_GB"]) * 1e9)
    except (KeyError, ValueError):
        return int(DEFAULT_LIMIT_GB * 1e9)


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
    aged = sorted((f for f in folders if f.is_dir()), key=lambda f: f.stat().st_mtime)
    sizes = {f: sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in aged}
    total, removed = sum(sizes.values()), []
    for folder in aged:
        if total <= limit:
            break
        if folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
            removed.append(folder)
    return removed


def make_room(root: Path, needed: int, limit: int) -> None:
    """Remove values of frozen prefixes, those used longest ago first, until ``needed`` bytes more
    fit into ``limit``; what runs need to begin stays."""
    kept = {f for kind in KINDS if kind != "features" for f in (root / kind).glob("[!.]*")}
    prune(root, kept, limit - needed)
