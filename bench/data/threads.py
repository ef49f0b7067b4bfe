"""Threads for decoding and hashing: Pillow and hashlib release Python's global lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.system import cores

MOST_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def thread_pool() -> ThreadPoolExecutor:
    """Return a pool with one thread per core that this process may use, but at most 16."""
    return ThreadPoolExecutor(min(MOST_THREADS, cores()))


def in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return ``function`` of each item, in order, computed in a pool of threads."""
    with thread_pool() as pool:
        return list(pool.map(function, items))
