"""The NumPy streams of all random numbers of a run, the same for every backend."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The use of a stream; its number is part of the definition of a run."""

    HEAD = 1
    ORDER = 2
    AUGMENTATION = 3
    DROPOUT = 4
    VIEWS = 5


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """Return a generator that depends only on a run's seed, its use, and a step or epoch number."""
    return np.random.default_rng([seed, int(stream), index])
