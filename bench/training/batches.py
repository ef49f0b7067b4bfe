"""Training batches: the same bytes in the same order for every framework."""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.data import Split
from bench.network.blueprint import Array, Operation, mask_shape
from bench.network.random_streams import Stream, generator
from bench.spec.run import Recipe
from bench.system import cores
from bench.training import augment
from bench.training.adapter import Batch

PREFETCH_BATCHES = 2
"""Batches kept ready, besides those that threads are making."""
MOST_THREADS = 8
HashedBatch = tuple[Batch, bytes]
"""A batch and the hash of all that decides it: order, augmentation and masks."""


def input_threads(device: str) -> int:
    """Return how many threads make batches: 1 for training on a CPU, half the cores for a GPU."""
    return 1 if device == "cpu" else max(1, min(MOST_THREADS, cores() // 2))


@dataclass(eq=False)
class TrainingBatches:
    """The batches of a run, epoch by epoch, made ahead in threads."""

    split: Split
    recipe: Recipe
    dropouts: Sequence[Operation]
    """Operations to draw masks for."""
    seed: int
    values: Array | None = None
    """(views * N, …) values of the frozen prefix, view by view, in place of the N images."""
    threads: int = 1
    joins_single: bool = False
    """True to join a single last image of an epoch to the batch before it."""

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    @property
    def images(self) -> int:
        """Number of images in an epoch."""
        return len(self.split.labels)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch; the last one may hold fewer images, or one more."""
        full, rest = divmod(self.images, self.recipe.batch_size)
        joined = self.joins_single and rest == 1 and full > 0
        return full if joined or rest == 0 else full + 1

    def sha256(self) -> str:
        """Hash the order, augmentation and masks of all batches given out so far (hex)."""
        return self._digest.hexdigest()

    def epoch(self, number: int) -> Generator[Batch]:
        """Yield the batches of epoch ``number`` (from 0), made ahead while earlier ones are used.

        A batch depends on its number alone, so the number of threads does not change it.
        """
        order = generator(self.seed, Stream.ORDER, number).permutation(self.images)
        size, steps = self.recipe.batch_size, self.steps_per_epoch
        pool = ThreadPoolExecutor(self.threads, "batches")
        made: deque[Future[HashedBatch]] = deque()
        try:
            for index in range(steps + self.threads + PREFETCH_BATCHES):
                if index < steps:
                    joins = self.joins_single and index == steps - 1
                    chosen = order[index * size : None if joins else (index + 1) * size]
                    step = number * steps + index
                    made.append(pool.submit(self._batch, chosen, number, step))
                if made and index >= self.threads + PREFETCH_BATCHES - 1:
                    batch, digest = made.popleft().result()
                    self._digest.update(digest)
                    yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, chosen: npt.NDArray[np.int64], epoch: int, step: int) -> HashedBatch:
        digest = hashlib.sha256()
        parameters = self._parameters(chosen, epoch, step)
        masks = self._masks(len(chosen), step)
        for array in (chosen, parameters, *(np.packbits(m) for m in masks)):
            digest.update(np.ascontiguousarray(array).data)
        if self.values is None:
            images: Array = augment.apply(self.split.images[chosen], parameters)
        else:
            images = self.values[chosen + self._view(epoch) * self.images]
        return Batch(images, self.split.labels[chosen], masks), digest.digest()

    def _view(self, epoch: int) -> int:
        return epoch % (self.recipe.views or 1)

    def _parameters(
        self, chosen: npt.NDArray[np.int64], epoch: int, step: int
    ) -> augment.Parameters:
        if self.recipe.views is not None:
            return view_parameters(self.recipe, self.seed, self._view(epoch), self.images)[chosen]
        random = generator(self.seed, Stream.AUGMENTATION, step)
        return augment.draw(self.recipe.augmentation, len(chosen), self.recipe.px, random)

    def _masks(self, images: int, step: int) -> tuple[npt.NDArray[np.bool_], ...]:
        random = generator(self.seed, Stream.DROPOUT, step)
        return tuple(
            random.random((images, *mask_shape(dropout)), np.float32) >= dropout.attributes["rate"]
            for dropout in self.dropouts
        )


@functools.lru_cache(maxsize=4)
def view_parameters(recipe: Recipe, seed: int, view: int, images: int) -> augment.Parameters:
    """Return the (N, 3) augmentation parameters of all images in view number ``view``."""
    random = generator(seed, Stream.VIEWS, view)
    return augment.draw(recipe.augmentation, images, recipe.px, random)


def view_batches(
    split: Split, recipe: Recipe, seed: int, augmented: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield all images in order, in every view if ``augmented``, as uint8 (N, px, px, 3)."""
    size, images = recipe.batch_size, len(split.labels)
    for view in range((recipe.views or 1) if augmented else 1):
        for first in range(0, images, size):
            batch = np.array(split.images[first : first + size])  # copied off the read-only map
            if augmented and recipe.views is not None:
                drawn = view_parameters(recipe, seed, view, images)
                batch = augment.apply(batch, drawn[first : first + size])
            yield batch
