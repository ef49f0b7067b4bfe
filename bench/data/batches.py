"""Training batches: the same bytes in the same order for every framework."""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bench.backend import Batch
from bench.blueprint import Array, Operation, channels_last
from bench.data import Split, augment
from bench.spec import Recipe
from bench.streams import Stream, generator

PREFETCH_BATCHES = 2
Made = tuple[Batch, bytes]
"""A batch and the hash of what decides it."""


class TrainingBatches:
    """The batches of a run, epoch by epoch, prepared ahead in a thread."""

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        dropouts: Sequence[Operation],
        seed: int,
        features: Array | None = None,
    ) -> None:
        """
        Args:
            split: Training images, N of them.
            recipe: Batch size and augmentation.
            dropouts: Operations to draw masks for.
            seed: Of the run.
            features: (views * N, …) values that stand for the images, view by view; batches hold
                them instead of pixels.
        """
        self._split = split
        self._features = features
        self._recipe = recipe
        self._dropouts = dropouts
        self._seed = seed
        self._digest = hashlib.sha256()

    @property
    def images(self) -> int:
        """Images in an epoch."""
        return len(self._split.labels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; the last one may hold fewer images."""
        return -(-self.images // self._recipe.batch_size)

    def sha256(self) -> str:
        """Hash (hex) of order, augmentation and masks of all batches given out so far."""
        return self._digest.hexdigest()

    def epoch(self, number: int) -> Generator[Batch]:
        """The batches of epoch ``number`` (from 0), each made while the one before is used."""
        ready: queue.Queue[Made | BaseException | None] = queue.Queue(PREFETCH_BATCHES)
        stopped = threading.Event()

        def put(item: Made | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return

        def produce() -> None:
            try:
                for made in self._make(number):
                    put(made)
                    if stopped.is_set():
                        return
                put(None)
            except Exception as error:  # raised again where the batch is wanted
                put(error)

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._digest.update(item[1])
                yield item[0]
        finally:
            stopped.set()
            thread.join()

    def _make(self, number: int) -> Iterator[Made]:
        order = generator(self._seed, Stream.ORDER, number).permutation(self.images)
        size = self._recipe.batch_size
        for index in range(self.steps_per_epoch):
            chosen = order[index * size : (index + 1) * size]
            step = number * self.steps_per_epoch + index
            yield self._batch(chosen, number, step)

    def _batch(self, chosen: npt.NDArray[np.int64], epoch: int, step: int) -> Made:
        """The batch, and the hash of what decides it."""
        digest = hashlib.sha256()
        parameters = self._parameters(chosen, epoch, step)
        masks = self._masks(len(chosen), step)
        for array in (chosen, parameters, *(np.packbits(m) for m in masks)):
            digest.update(np.ascontiguousarray(array).data)
        if self._features is None:
            images: Array = augment.apply(self._split.images[chosen], parameters)
        else:
            images = self._features[chosen + self._view(epoch) * self.images]
        return Batch(images, self._split.labels[chosen], masks), digest.digest()

    def _view(self, epoch: int) -> int:
        return epoch % (self._recipe.views or 1)

    def _parameters(
        self, chosen: npt.NDArray[np.int64], epoch: int, step: int
    ) -> augment.Parameters:
        name, px = self._recipe.augmentation, self._recipe.px
        if self._recipe.views is not None:
            return view_parameters(self._recipe, self._seed, self._view(epoch), self.images)[chosen]
        random = generator(self._seed, Stream.AUGMENTATION, step)
        return augment.draw(name, len(chosen), px, random)

    def _masks(self, images: int, step: int) -> tuple[npt.NDArray[np.bool_], ...]:
        random = generator(self._seed, Stream.DROPOUT, step)
        masks = []
        for dropout in self._dropouts:
            shape = (images, *channels_last(dropout.shape))
            masks.append(random.random(shape, np.float32) >= dropout.attributes["rate"])
        return tuple(masks)


@functools.lru_cache(maxsize=4)
def view_parameters(recipe: Recipe, seed: int, view: int, images: int) -> augment.Parameters:
    """(N, 3) parameters of the augmentation of all images in one of a recipe's views."""
    random = generator(seed, Stream.VIEWS, view)
    return augment.draw(recipe.augmentation, images, recipe.px, random)


def view_batches(
    split: Split, recipe: Recipe, seed: int, augmented: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """All images in order, in every view if ``augmented``, in batches of uint8 (N, px, px, 3)."""
    size, images = recipe.batch_size, len(split.labels)
    for view in range((recipe.views or 1) if augmented else 1):
        for first in range(0, images, size):
            batch = np.array(split.images[first : first + size])  # off the read-only map
            if augmented and recipe.views is not None:
                drawn = view_parameters(recipe, seed, view, images)
                batch = augment.apply(batch, drawn[first : first + size])
            yield batch
