"""Tensors moved by their last bit, for floors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bench.blueprint import Array
from bench.catalog.tolerances import SEED


class Nudged(Mapping[str, Array]):
    """Every number moved by one last bit, up or down by a seeded coin; made when asked for."""

    def __init__(self, tensors: Mapping[str, Array], number: int) -> None:
        """
        Args:
            tensors: To be moved; they are not changed.
            number: Of the nudge; each is another.
        """
        self._tensors = tensors
        self._number = number
        self._places = {name: place for place, name in enumerate(sorted(tensors))}

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        random = np.random.default_rng([SEED, self._number, self._places[name]])
        up = random.integers(0, 2, tensor.shape, dtype=np.bool_)
        direction = np.where(up, tensor.dtype.type(np.inf), tensor.dtype.type(-np.inf))
        moved: Array = np.nextafter(tensor, direction)
        return moved

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
