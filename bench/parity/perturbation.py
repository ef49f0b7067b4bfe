"""Tensors moved by their last bit, to measure how far one backend's results move by rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bench.network.blueprint import Array
from bench.parity.tolerances import SEED


class Perturbed(Mapping[str, Array]):
    """Tensors with every number moved up or down by one last bit at random, computed on access."""

    def __init__(self, tensors: Mapping[str, Array], number: int) -> None:
        """
        Args:
            tensors: The tensors to perturb; they are not changed.
            number: Number of the perturbation, which seeds it.
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
