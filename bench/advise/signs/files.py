"""Names of the files that show a sign."""

from __future__ import annotations

from bench.advise.images import Development
from bench.data.resplit import Indices

NAMED = 3
"""Files named for each sign."""


def files_of(data: Development, positions: Indices) -> tuple[str, ...]:
    """Return the names of the first few images among ``positions``."""
    return tuple(data.pool.names[i] for i in positions[:NAMED])
