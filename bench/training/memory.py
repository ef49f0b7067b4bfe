"""A run's own peak of host memory, in a worker process that may have done other runs before."""

from __future__ import annotations

import functools
import math

from bench.training.clocks import held_bytes, reset_peak

FOREIGN_SHARE = 0.1
"""Largest share of a reported peak that earlier runs may have left in the process."""


@functools.cache
def fresh_bytes() -> int | None:
    """Return the memory held at the first call, when the framework has just been imported."""
    return held_bytes()


class Peak:
    """The most memory that the process holds from the creation of this object on."""

    def __init__(self, is_warm: bool) -> None:
        """Begin; ``is_warm`` is True if the process has done another job before."""
        self._is_known = not is_warm or reset_peak()
        self._left_bytes = 0.0
        """Memory held above that of a fresh process, infinity where it is not known."""
        if is_warm:
            held, fresh = held_bytes(), fresh_bytes()
            self._left_bytes = math.inf if held is None or fresh is None else held - fresh

    def own_bytes(self, peak_bytes: int | None) -> int | None:
        """Return the peak during a job, from ``bench.training.clocks.peak_host_bytes``, None where
        over a tenth of it may belong to earlier jobs."""
        if peak_bytes is None or not self._is_known:
            return None
        return peak_bytes if self._left_bytes <= FOREIGN_SHARE * peak_bytes else None
