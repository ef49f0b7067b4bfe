"""Every random number of a run comes from one of these NumPy streams, the same on both sides."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for; the numbers are part of the definition of a run."""

    HEAD = 1
    ORDER = 2
    AUGMENTATION = 3
    DROPOUT = 4
    VIEWS = 5


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """A generator that depends on nothing but its arguments.

    Args:
        seed: Of the run.
        stream: What it is for.
        index: Step or epoch, from 0.
    """
    return np.random.default_rng([seed, int(stream), index])
