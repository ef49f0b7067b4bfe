"""Values of a frozen prefix, computed once and kept: in memory, and in a folder for later runs."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.backend import ResumingTrainer
from bench.blueprint import Array, Network, channels_last
from bench.cache import limit_bytes, make_room, mark_used
from bench.data import Packed
from bench.data.atomic import build_folder
from bench.data.batches import view_batches
from bench.environment import machine_bytes
from bench.plan import TrainingPlan
from bench.prefix import Boundary, boundary_of, prefix_key, why_not_cached
from bench.spec import Recipe, RunSpec

KIND = "features"
"""Name of their folder in the cache."""
MEMORY_SHARE = 8
"""Up to 1/8 of the machine's memory they are read into it; more is mapped from the file."""
CHUNK_BYTES = 2**24
META = "meta.json"
Parts = dict[str, Array]
"""'train' and 'val' → (N, …) values, channels last."""


@dataclass(frozen=True)
class Features:
    """The values of a run's images."""

    train: Array
    """(K N, …): the N training images in each of K views, one view after the other."""
    val: Array
    """(N, …)."""
    seconds: float
    """That it took to compute and write them, in this run or the one that did it: figures must not
    depend on what a cache happened to hold."""
    spent_s: float
    """That this run spent on them."""
    is_reused: bool
    """Whether another run had computed them."""
    note: str | None = None
    """What kept them from being kept."""


@dataclass(frozen=True)
class Wanted:
    """What is to be computed, and how large it will be."""

    images: dict[str, Callable[[], Iterator[npt.NDArray[np.uint8]]]]
    """'train' and 'val' → its batches of uint8 images (N, px, px, 3), in order."""
    shapes: dict[str, tuple[int, ...]]
    """'train' and 'val' → shape of its values, the images first."""
    dtype: str
    """float32 or float64."""

    @property
    def size_bytes(self) -> int:
        """Of all values."""
        item = np.dtype(self.dtype).itemsize
        return sum(int(np.prod(shape)) * item for shape in self.shapes.values())


class NoRoom(Exception):
    """The values fit nowhere; the message says why."""


def features_of(
    trainer: ResumingTrainer,
    wanted: Wanted,
    root: Path,
    key: str,
    on_share: Callable[[float], None] = lambda share: None,
) -> Features:
    """The values, from the cache if they are there and whole, else computed and kept.

    Args:
        trainer: Computes them.
        wanted: Of which images.
        root: The cache.
        key: From ``prefix_key``.
        on_share: Told how much is done, from 0 to 1.

    Raises:
        NoRoom: They fit neither into the cache nor into memory.
    """
    began = time.perf_counter()
    folder = root / KIND / key
    in_memory = wanted.size_bytes <= machine_bytes() // MEMORY_SHARE

    kept = load(folder, wanted, in_memory)
    if kept is not None:
        mark_used(folder)
        parts, seconds = kept
        spent_s = time.perf_counter() - began
        return Features(parts["train"], parts["val"], seconds, spent_s, is_reused=True)
    note, parts = None, {}
    try:
        make_room(root, wanted.size_bytes, limit_bytes())
        _compute_into(folder, trainer, wanted, parts if in_memory else None, on_share)
        if not in_memory:
            parts, _ = _read_back(folder, wanted)
    except OSError as error:
        reason = f"{root / KIND}: {error.strerror or error}"
        if not in_memory:
            raise NoRoom(reason) from error
        note = f"the values of the frozen part were not kept for later runs: {reason}"
        if not parts:
            parts = _compute(trainer, wanted, _in_memory(wanted), on_share)
    seconds = time.perf_counter() - began
    return Features(parts["train"], parts["val"], seconds, seconds, is_reused=False, note=note)


def _compute_into(
    folder: Path,
    trainer: ResumingTrainer,
    wanted: Wanted,
    found: Parts | None,
    on_share: Callable[[float], None],
) -> None:
    """Compute the values and leave them in ``folder``.

    Args:
        found: Takes them as soon as they are there, whatever comes of the folder; None: they do not
            fit into memory.

    Raises:
        OSError: It cannot be written.
    """
    began = time.perf_counter()

    def write(into: Path) -> None:
        if found is None:
            parts = _compute(trainer, wanted, _mapped(wanted, into), on_share)
        else:
            parts = _compute(trainer, wanted, _in_memory(wanted), on_share)
            found.update(parts)
            for name, array in parts.items():
                np.save(into / f"{name}.npy", array)
        meta = {
            "checksums": {name: _checksum(array) for name, array in parts.items()},
            "seconds": time.perf_counter() - began,
        }
        (into / META).write_text(json.dumps(meta), encoding="utf-8")

    build_folder(folder, write, lambda path: load(path, wanted, False) is not None)


def _read_back(folder: Path, wanted: Wanted) -> tuple[Parts, float]:
    kept = load(folder, wanted, False)
    if kept is None:
        raise OSError("what was written cannot be read back")
    return kept


def _in_memory(wanted: Wanted) -> Parts:
    return {name: np.empty(shape, wanted.dtype) for name, shape in wanted.shapes.items()}


def _mapped(wanted: Wanted, folder: Path) -> Parts:
    """Files in place of memory; their space is taken at once, for a full disk met later, through a
    map, would end the process."""
    parts: Parts = {}
    for name, shape in wanted.shapes.items():
        path = folder / f"{name}.npy"
        parts[name] = np.lib.format.open_memmap(path, "w+", wanted.dtype, shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return parts


def _compute(
    trainer: ResumingTrainer, wanted: Wanted, parts: Parts, on_share: Callable[[float], None]
) -> Parts:
    """Fill ``parts``, and return them."""
    total, done = sum(len(part) for part in parts.values()), 0
    for name, part in parts.items():
        at = 0
        for images in wanted.images[name]():
            values = trainer.values([trainer.prefix(images)])
            trainer.synchronise()  # JAX's engine keeps what was not waited for
            if values.shape != (len(images), *part.shape[1:]):  # NumPy would spread it
                raise ValueError(f"a value of shape {values.shape} for {len(images)} images")
            part[at : at + len(images)] = values
            at, done = at + len(images), done + len(images)
            on_share(done / total)
    return parts


def load(folder: Path, wanted: Wanted, in_memory: bool) -> tuple[Parts, float] | None:
    """Values that were kept, and the seconds that it took to compute them; None if they are absent,
    damaged or others than wanted."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        checksums, seconds = meta["checksums"], float(meta["seconds"])
        parts: Parts = {}
        for name, shape in wanted.shapes.items():
            array = np.load(
                folder / f"{name}.npy", mmap_mode=None if in_memory else "r", allow_pickle=False
            )
            if array.shape != shape or array.dtype != wanted.dtype:
                return None
            if _checksum(array) != checksums[name]:
                return None
            parts[name] = array
    except Exception:  # a damaged header is whatever Python's parser calls it
        return None
    return parts, seconds


def _checksum(array: Array) -> int:
    """CRC-32 of the bytes, piece by piece: a mapped file need not fit into memory."""
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    found = 0
    for first in range(0, len(array), rows):
        found = zlib.crc32(np.ascontiguousarray(array[first : first + rows]).data, found)
    return found


def features_of_run(
    spec: RunSpec,
    network: Network,
    plan: TrainingPlan,
    tensors_sha256: str,
    packed: Packed,
    trainer: ResumingTrainer,
    root: Path,
    environment_id: str,
    report: Callable[[dict[str, Any]], None],
) -> tuple[Features | None, str | None]:
    """What stands for a run's images, where that saves work.

    Args:
        spec: The run.
        network: With its head; its numbers are not read.
        plan: Of the policy.
        tensors_sha256: Of the frozen tensors.
        packed: Its images.
        trainer: Computes the values.
        root: The cache.
        environment_id: Where it runs.
        report: Takes progress events.

    Returns:
        The values, or None; and why there are none, where a reader would expect them.
    """
    recipe = spec.recipe
    boundary = boundary_of(network.blueprint, plan)
    if plan.first_trained == 0 or recipe.prefix_cache == "off":
        return None, None
    reason = why_not_cached(recipe)
    if boundary is None:
        reason = "it has no place that a single value crosses"
    elif reason is None:
        key = prefix_key(
            network.blueprint, boundary, tensors_sha256, packed.path.name, spec, environment_id
        )
        wanted = _wanted(recipe, spec.seed, boundary, packed)
        try:
            return features_of(
                trainer,
                wanted,
                root,
                key,
                lambda share: report({"event": "prefix", "share": share}),
            ), None
        except NoRoom as error:
            reason = str(error)
    return None, f"the frozen part was computed in every step: {reason}"


def _wanted(recipe: Recipe, seed: int, boundary: Boundary, packed: Packed) -> Wanted:
    value = channels_last(boundary.shape)
    views = recipe.views or 1
    return Wanted(
        {
            "train": lambda: view_batches(packed.train, recipe, seed, augmented=True),
            "val": lambda: view_batches(packed.val, recipe, seed, augmented=False),
        },
        {
            "train": (views * len(packed.train.labels), *value),
            "val": (len(packed.val.labels), *value),
        },
        "float64" if recipe.precision == "fp64" else "float32",
    )
