"""A run's own peak of host memory, in a worker process that may have done other runs before."""

from __future__ import annotations

import math

from bench.training.clocks import held_bytes, reset_peak

FOREIGN_SHARE = 0.1
"""Largest share of a reported peak that earlier runs may have left in the process."""
_fresh_bytes: list[int | None] = []
"""Memory that the process held when its framework had just been imported."""


def note_fresh() -> None:
    """Remember the memory held now, when the framework has just been imported."""
    _fresh_bytes[:] = [held_bytes()]


class Peak:
    """The most memory that the process holds from the creation of this object on."""

    def __init__(self, is_warm: bool) -> None:
        """
        Args:
            is_warm: True if the process has done another job before.
        """
        self._is_known = not is_warm or reset_peak()
        self._left_bytes = _left_bytes() if is_warm else 0.0

    def own_bytes(self, peak_bytes: int | None) -> int | None:
        """Return the process's peak, None where over a tenth of it may belong to earlier jobs.

        Args:
            peak_bytes: Peak during the job, from ``bench.training.clocks.peak_host_bytes``.
        """
        if peak_bytes is None or not self._is_known:
            return None
        return peak_bytes if self._left_bytes <= FOREIGN_SHARE * peak_bytes else None


def _left_bytes() -> float:
    """Return the memory held above that of a fresh process, infinity where it is not known."""
    held = held_bytes()
    fresh = _fresh_bytes[0] if _fresh_bytes else None
    return math.inf if held is None or fresh is None else held - fresh
