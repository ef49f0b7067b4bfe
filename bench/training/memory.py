"""Whose memory a worker's peak is: a run's own, or what earlier runs left."""

from __future__ import annotations

import math

from bench.training.clocks import forget_peak, held_bytes

FOREIGN_SHARE = 0.1
"""Most of a run's peak of memory that may be what earlier runs left in the process."""
_fresh_bytes: list[int | None] = []
"""What the process held when its framework had just been imported."""


def note_fresh() -> None:
    """The framework has just been imported."""
    _fresh_bytes[:] = [held_bytes()]


class Peak:
    """The most memory of the process from here on."""

    def __init__(self, is_warm: bool) -> None:
        """
        Args:
            is_warm: Whether the process has done another job.
        """
        self._is_known = not is_warm or forget_peak()
        self._left_bytes = _left_bytes() if is_warm else 0.0

    def own_bytes(self, peak_bytes: int) -> int | None:
        """
        Args:
            peak_bytes: The process's peak (``peak_host_bytes`` of ``bench.training.clocks``) during
                the job.

        Returns:
            The same; None where more than a tenth of it may be of earlier jobs.
        """
        if not self._is_known or self._left_bytes > FOREIGN_SHARE * peak_bytes:
            return None
        return peak_bytes


def _left_bytes() -> float:
    """What the process holds more than when it was fresh; infinite where it is not known."""
    held = held_bytes()
    fresh = _fresh_bytes[0] if _fresh_bytes else None
    return math.inf if held is None or fresh is None else held - fresh
