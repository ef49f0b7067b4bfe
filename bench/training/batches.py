"""Training batches: the same bytes in the same order for every framework."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, Generic, TypeVar

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
MOST_AHEAD_BYTES = 2 * 2**30
"""Most memory of batches that are made ahead. Batches of 256 values of VGG16's last stage take 0.4
GB each."""
MOST_THREADS = 16
CORE_SHARE = 3 / 4
"""Share of the cores that make batches for a GPU; the others run the framework."""
HashedBatch = tuple[Batch, bytes]
"""A batch and the hash of all that decides it: order, augmentation and masks."""
Allocate = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]
"""Returns an uninitialised array of this shape and dtype, such as ``Trainer.host_array``."""
T = TypeVar("T")


def input_threads(device: str) -> int:
    """Return how many threads make batches: 1 for training on a CPU, 3/4 of the cores for a GPU."""
    return 1 if device == "cpu" else max(1, min(MOST_THREADS, int(cores() * CORE_SHARE)))


class Ahead(Generic[T]):
    """Items that threads make ahead of their use, in order."""

    def __init__(self, jobs: Iterable[Callable[[], T]], threads: int, item_bytes: int = 0) -> None:
        """Take the jobs that make the items, one each; they are started as items are taken.

        Args:
            jobs: In the order of the items.
            threads: Number of threads.
            item_bytes: Size of an item: no more are made ahead than ``MOST_AHEAD_BYTES`` hold.
        """
        fitting = MOST_AHEAD_BYTES // max(item_bytes, 1)
        self._jobs, self._most = iter(jobs), max(1, min(threads + PREFETCH_BATCHES, fitting))
        self._pool = ThreadPoolExecutor(threads, "batches")
        self._made: deque[Future[T]] = deque()

    def take(self) -> T:
        """Return the next item, and let the threads make those after it; raise what its job
        raised."""
        self.fill()
        item = self._made.popleft().result()
        self.fill()
        return item

    def fill(self) -> None:
        """Start jobs until enough items are made or on their way."""
        while len(self._made) < self._most and (job := next(self._jobs, None)) is not None:
            self._made.append(self._pool.submit(job))

    @property
    def is_empty(self) -> bool:
        """True if every item was taken."""
        self.fill()
        return not self._made

    def close(self) -> None:
        """End the threads; items that were not taken are lost."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def each_ahead(jobs: Iterable[Callable[[], T]], threads: int, item_bytes: int = 0) -> Generator[T]:
    """Yield what the jobs return, in order, made ahead in threads as by ``Ahead``."""
    ahead = Ahead(jobs, threads, item_bytes)
    try:
        while not ahead.is_empty:
            yield ahead.take()
    finally:
        ahead.close()


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
    epochs: range = range(0)
    """Epochs that will be asked for one after the other: the first batches of each are made while
    the one before it is validated. Others end their threads."""
    allocate: Allocate = np.empty
    """Makes the arrays of the batches, so that a device can copy them fast."""

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._ahead: Ahead[HashedBatch] | None = None
        self._next_epoch: int | None = None
        """The epoch that ``_ahead`` makes next."""

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
        if self._ahead is None or self._next_epoch != number:
            self.close()
            last = self.epochs[-1] if number in self.epochs else number
            jobs = self._jobs(range(number, last + 1))
            self._ahead = Ahead(jobs, self.threads, self._batch_bytes())
        is_whole = False
        try:
            for index in range(self.steps_per_epoch):
                batch, digest = self._ahead.take()
                self._digest.update(digest)
                # A consumer that counts its steps closes the generator at the last one.
                is_whole = index == self.steps_per_epoch - 1
                yield batch
        finally:
            self._next_epoch = number + 1
            if not is_whole or self._ahead.is_empty:
                self.close()

    def _batch_bytes(self) -> int:
        source: Any = self.split.images if self.values is None else self.values
        item = np.dtype(getattr(source, "dtype", np.uint8)).itemsize
        return int(math.prod(source.shape[1:]) * item * self.recipe.batch_size)

    def close(self) -> None:
        """End the threads, and forget the batches that they made ahead."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _jobs(self, epochs: Iterable[int]) -> Iterator[Callable[[], HashedBatch]]:
        """Yield the jobs that make the batches of epochs, in order."""
        size, steps = self.recipe.batch_size, self.steps_per_epoch
        for number in epochs:
            order = generator(self.seed, Stream.ORDER, number).permutation(self.images)
            for index in range(steps):
                joins = self.joins_single and index == steps - 1
                chosen = order[index * size : None if joins else (index + 1) * size]
                yield functools.partial(self._batch, chosen, number, number * steps + index)

    def _batch(self, chosen: npt.NDArray[np.int64], epoch: int, step: int) -> HashedBatch:
        digest = hashlib.sha256()
        parameters = self._parameters(chosen, epoch, step)
        masks = self._masks(len(chosen), step)
        for array in (chosen, parameters, *(np.packbits(m) for m in masks)):
            digest.update(np.ascontiguousarray(array).data)
        if self.values is None:
            source: Any = self.split.images
            images: Array = self.allocate((len(chosen), *source.shape[1:]), np.uint8)
            augment.gather(source, chosen.tolist(), parameters, images)
        else:
            images = self.allocate((len(chosen), *self.values.shape[1:]), self.values.dtype)
            for position, index in enumerate(chosen + self._view(epoch) * self.images):
                images[position] = self.values[index]
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
        masks = []
        for dropout in self.dropouts:
            drawn = random.random((images, *mask_shape(dropout)), np.float32)
            mask = self.allocate(drawn.shape, np.bool_)
            masks.append(np.greater_equal(drawn, dropout.attributes["rate"], out=mask))
        return tuple(masks)


@functools.lru_cache(maxsize=4)
def view_parameters(recipe: Recipe, seed: int, view: int, images: int) -> augment.Parameters:
    """Return the (N, 3) augmentation parameters of all images in view number ``view``."""
    random = generator(seed, Stream.VIEWS, view)
    return augment.draw(recipe.augmentation, images, recipe.px, random)


def view_batches(
    split: Split, recipe: Recipe, seed: int, augmented: bool, threads: int = 1,
    allocate: Allocate = np.empty,
) -> Generator[npt.NDArray[np.uint8]]:  # fmt: skip
    """Yield all images in order, in every view if ``augmented``, as uint8 (N, px, px, 3), made
    ahead in threads."""
    size, images = recipe.batch_size, len(split.labels)

    def make(view: int, first: int) -> npt.NDArray[np.uint8]:
        numbers = range(first, min(first + size, images))
        out: npt.NDArray[np.uint8] = allocate((len(numbers), *split.images.shape[1:]), np.uint8)
        if augmented and recipe.views is not None:
            drawn = view_parameters(recipe, seed, view, images)[first : first + size]
            augment.gather(split.images, numbers, drawn, out)
        else:
            out[:] = split.images[first : first + size]
        return out

    views = range((recipe.views or 1) if augmented else 1)
    starts = product(views, range(0, images, size))
    jobs = (functools.partial(make, *start) for start in starts)
    yield from each_ahead(jobs, threads, size * math.prod(split.images.shape[1:]))
