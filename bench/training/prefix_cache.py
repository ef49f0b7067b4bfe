"""Values of a frozen prefix, computed once and kept: in memory, and in a folder for later runs.

In which form the values of a frozen prefix are computed: the quickest for so many images."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data import Packed
from bench.data.package_files import mapped_array
from bench.network.blueprint import Array, Blueprint, Network, channels_last
from bench.network.cost import multiply_adds
from bench.network.fold_batch_norm import inference_form
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import Boundary, boundary_of, prefix_key, why_not_cached
from bench.spec.run import Recipe, RunSpec
from bench.storage.atomic import build_folder
from bench.storage.cache import limit_bytes, make_room, mark_used
from bench.system import cores, machine_bytes
from bench.training.adapter import Adapter, Prefix, ResumingTrainer
from bench.training.batches import view_batches

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
    form: str
    """In which they were computed: plain, folded or compiled (``bench.training.prefix_cache``)."""
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
    def images_in_all(self) -> int:
        """Of all views and splits."""
        return sum(shape[0] for shape in self.shapes.values())

    @property
    def size_bytes(self) -> int:
        """Of all values."""
        item = np.dtype(self.dtype).itemsize
        return sum(int(np.prod(shape)) * item for shape in self.shapes.values())


class NoRoom(Exception):
    """The values fit nowhere; the message says why."""


def features_of(
    make: Callable[[], Prefix],
    wanted: Wanted,
    root: Path,
    key: str,
    on_share: Callable[[float], None] = lambda share: None,
) -> Features:
    """The values, from the cache if they are there and whole, else computed and kept.

    Args:
        make: Builds what computes them, if it must be.
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
        spent_s = time.perf_counter() - began
        return Features(
            kept.parts["train"], kept.parts["val"], kept.seconds, spent_s, True, kept.form
        )
    note: str | None = None
    parts: Parts = {}
    prefix = make()
    try:
        make_room(root, wanted.size_bytes, limit_bytes())
        _compute_into(folder, prefix, wanted, parts if in_memory else None, began, on_share)
        kept = None if in_memory else _read_back(folder, wanted)
        parts = parts if kept is None else kept.parts
    except OSError as error:
        reason = f"{root / KIND}: {error.strerror or error}"
        if not in_memory:
            raise NoRoom(reason) from error
        note = f"the values of the frozen part were not kept for later runs: {reason}"
        if not parts:
            parts = _compute(prefix, wanted, _in_memory(wanted), on_share)
    spent_s, form = time.perf_counter() - began, prefix.prefix_form()
    seconds = _told_seconds(folder) or spent_s  # the same figure for this run and for later ones
    return Features(parts["train"], parts["val"], seconds, spent_s, False, form, note)


def _told_seconds(folder: Path) -> float | None:
    """What a folder says that its values cost; None if it is not there."""
    try:
        return float(json.loads((folder / META).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def _compute_into(
    folder: Path,
    prefix: Prefix,
    wanted: Wanted,
    found: Parts | None,
    began: float,
    on_share: Callable[[float], None],
) -> None:
    """Compute the values and leave them in ``folder``.

    Args:
        found: Takes them as soon as they are there, whatever comes of the folder; None: they do not
            fit into memory.
        began: ``time.perf_counter()`` when the work on them began.

    Raises:
        OSError: It cannot be written.
    """

    def write(into: Path) -> None:
        if found is None:
            parts = _compute(prefix, wanted, _mapped(wanted, into), on_share)
        else:
            parts = _compute(prefix, wanted, _in_memory(wanted), on_share)
            found.update(parts)
            for name, array in parts.items():
                np.save(into / f"{name}.npy", array)
        meta = {
            "checksums": {name: _checksum(array) for name, array in parts.items()},
            "seconds": time.perf_counter() - began,
            "form": prefix.prefix_form(),
        }
        (into / META).write_text(json.dumps(meta), encoding="utf-8")

    build_folder(folder, write, lambda path: load(path, wanted, False) is not None)


def _read_back(folder: Path, wanted: Wanted) -> Kept:
    kept = load(folder, wanted, False)
    if kept is None:
        raise OSError("what was written cannot be read back")
    return kept


def _in_memory(wanted: Wanted) -> Parts:
    return {name: np.empty(shape, wanted.dtype) for name, shape in wanted.shapes.items()}


def _mapped(wanted: Wanted, folder: Path) -> Parts:
    """Files in place of memory."""
    return {
        name: mapped_array(folder / f"{name}.npy", wanted.dtype, shape)
        for name, shape in wanted.shapes.items()
    }


def _compute(
    prefix: Prefix, wanted: Wanted, parts: Parts, on_share: Callable[[float], None]
) -> Parts:
    """Fill ``parts``, and return them."""
    total, done = sum(len(part) for part in parts.values()), 0
    for name, part in parts.items():
        at = 0
        for images in wanted.images[name]():
            values = prefix.values([prefix.prefix(images)])
            prefix.synchronise()  # JAX's engine keeps what was not waited for
            if values.shape != (len(images), *part.shape[1:]):  # NumPy would spread it
                raise ValueError(f"a value of shape {values.shape} for {len(images)} images")
            part[at : at + len(images)] = values
            at, done = at + len(images), done + len(images)
            on_share(done / total)
    return parts


class Kept(NamedTuple):
    """What a folder holds."""

    parts: Parts
    seconds: float
    """That it took to compute them."""
    form: str
    """In which they were computed."""


def load(folder: Path, wanted: Wanted, in_memory: bool) -> Kept | None:
    """Values that were kept; None if they are absent, damaged or others than wanted."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        checksums, seconds, form = meta["checksums"], float(meta["seconds"]), str(meta["form"])
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
    return Kept(parts, seconds, form)


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
    adapter: Adapter,
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
        adapter: Of the framework.
        trainer: Has the frozen part, and its numbers.
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
        blueprint = network.blueprint
        form = form_for(blueprint, boundary, wanted.images_in_all, spec.backend, spec.device)
        make = partial(
            make_prefix, form, adapter, trainer, blueprint, boundary, recipe, spec.device
        )
        try:
            return features_of(
                make, wanted, root, key, lambda share: report({"event": "prefix", "share": share})
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


Form = Literal["plain", "folded", "compiled"]
"""plain: the network that is trained, as far as it is frozen; folded: a copy of that part whose
BatchNorm is inside its convolutions, as constants where the framework can use it; compiled: that
copy, through the framework's compiler."""


class From(NamedTuple):
    """From how much work on a form pays for being made."""

    form: Form
    multiply_adds: float
    """Of the whole pass; on a CPU, for each core."""


NEVER_COMPILED = (From("folded", 0.0),)
FORMS: dict[tuple[str, str], tuple[From, ...]] = {
    ("torch", "cpu"): (From("folded", 0.0), From("compiled", 1e13)),
    ("torch", "cuda"): NEVER_COMPILED,
    ("keras-torch", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-torch", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
    ("keras-tensorflow", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-tensorflow", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
    ("keras-jax", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-jax", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
}
"""Backend and kind of device → its forms, from the least work to the most. A table and not a
measurement in each run, so that the same run takes the same form again. The figures are of 2 cores
of an AMD EPYC (results/benchmarks); those of GPUs are guesses on the side of making nothing."""


def form_for(
    blueprint: Blueprint, boundary: Boundary, images: int, backend: str, device: str
) -> Form:
    """The form for a pass of ``images`` images through the operations before ``boundary``."""
    kind = device.partition(":")[0]
    before = blueprint.operations[: boundary.index]
    work = images * sum(multiply_adds(o, blueprint) for o in before)
    scale = cores() if kind == "cpu" else 1
    form = [f.form for f in FORMS[backend, kind] if f.multiply_adds * scale <= work][-1]
    has_norms = any(o.kind == "batch_norm" for o in before)
    return "plain" if form == "folded" and not has_norms else form


def make_prefix(
    form: Form,
    adapter: Adapter,
    trainer: ResumingTrainer,
    blueprint: Blueprint,
    boundary: Boundary,
    recipe: Recipe,
    device: str,
) -> Prefix:
    """What computes the values at a boundary, in a form.

    Args:
        form: Which.
        adapter: Builds it.
        trainer: Of the whole network; it has the numbers.
        blueprint: Of the whole network.
        boundary: Where the prefix ends.
        recipe: Of the run.
        device: cpu or cuda:N.
    """
    if form == "plain":
        return trainer
    network = inference_form(blueprint, trainer.tensors(), boundary)
    return adapter.build_prefix(network, recipe, device, compiled=form == "compiled")
