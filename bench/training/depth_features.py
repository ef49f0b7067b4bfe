"""Features of images at every depth of a network: computed in a worker, kept in the cache."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data import load_packed, packed_path
from bench.network.blueprint import Array, Network
from bench.network.blueprint_files import blueprint_path
from bench.network.depths import Depth, with_depths
from bench.spec.base import canonical_hash
from bench.spec.plain import plain_recipe
from bench.storage.atomic import build_folder
from bench.storage.cache import cached_folder
from bench.storage.checksums import crc32_of_file
from bench.training.adapter import Adapter
from bench.workers.tasks import DepthFeaturesTask

KIND = "depths"
"""Folder of the features in the cache."""
BATCH = 32
QUEUED = 2
"""Batches whose features are on their way from the device."""
VALUES, META = "values.npy", "meta.json"


class DepthFeatures(NamedTuple):
    """Features of the training images, then of the validation images, at every depth."""

    values: Array
    """(N, C) float32."""
    depths: tuple[Depth, ...]
    seconds: float
    """Time to compute them, without building the network."""


def features_key(blueprint: str, packed: str, environment_id: str) -> str:
    """Return the key of features in the cache.

    Args:
        blueprint, packed: Keys of the network and of the images.
        environment_id: Versions, machine, device and code of the worker.
    """
    return canonical_hash([blueprint, packed, environment_id])[:32]


def load_features(key: str, cache: Path | None = None) -> DepthFeatures | None:
    """Read features from the cache; return None if they are missing or damaged."""
    folder = cached_folder(KIND, key, cache)
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        if crc32_of_file(folder / VALUES) != meta["checksum"]:
            return None
        values = np.load(folder / VALUES, allow_pickle=False)
        depths = tuple(Depth(*depth) for depth in meta["depths"])
        if values.ndim != 2 or values.shape[1] != depths[-1].last:
            return None
        return DepthFeatures(values, depths, float(meta["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError):
        return None


def compute_features(task: DepthFeaturesTask, adapter: Adapter) -> None:
    """Compute the features of all training and validation images, and keep them in the cache."""
    network, depths = with_depths(Network.load(blueprint_path(task.blueprint), trunk_only=True))
    packed = load_packed(packed_path(task.packed))
    recipe = plain_recipe("linear", network.blueprint.px, BATCH)
    prefix = adapter.build_prefix(network, recipe, task.device, compiled=False)
    began = time.perf_counter()
    found: list[Array] = []
    queued: list[Any] = []
    laps_s: list[float] = []
    for split in (packed.train, packed.val):
        for first in range(0, len(split.labels), BATCH):
            lap = time.perf_counter()
            images = np.ascontiguousarray(split.images[first : first + BATCH])
            queued.append(prefix.prefix(images))
            if len(queued) > QUEUED:
                found.append(prefix.values([queued.pop(0)]))
            laps_s.append(time.perf_counter() - lap)
    found += [prefix.values([handle]) for handle in queued]
    values = np.concatenate(found).astype(np.float32)
    seconds = time.perf_counter() - began
    if task.device == "cpu":  # there a lap is a batch; a stall or a slow start is not its pace
        seconds = min(seconds, statistics.median(laps_s) * len(laps_s))

    def write(folder: Path) -> None:
        np.save(folder / VALUES, values)
        meta = {
            "checksum": crc32_of_file(folder / VALUES),
            "depths": depths,
            "seconds": seconds,
        }
        (folder / META).write_text(json.dumps(meta), encoding="utf-8")

    folder = cached_folder(KIND, task.key)
    build_folder(folder, write, lambda _: load_features(task.key) is not None)
