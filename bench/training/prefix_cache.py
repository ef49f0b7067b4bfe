"""Values of a frozen prefix, computed once: which variant of the network computes them fastest, and
how they are kept in memory and in a folder for later runs."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data import Packed
from bench.network.blueprint import Array, Blueprint, Network, channels_last
from bench.network.cost import multiply_adds
from bench.network.fold_batch_norm import inference_form
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import Boundary, boundary_of, prefix_key, why_not_cached
from bench.spec.run import Recipe, RunSpec
from bench.storage.arrays import mapped_array
from bench.storage.atomic import build_folder
from bench.storage.cache import cache_root, limit_bytes, make_room, mark_used
from bench.storage.checksums import crc32_of_file
from bench.system import cores, machine_bytes
from bench.training.adapter import Adapter, MatchedTrainer, Prefix
from bench.training.batches import Allocate, input_threads, view_batches
from bench.training.clocks import FirstCalls
from bench.workers.events import OnEvent, PrefixShare

FOLDER = "features"
"""Folder of the values in the cache."""
MEMORY_SHARE = 8
"""Values up to 1/8 of the machine's memory are kept in it; larger ones are mapped from the file."""
QUEUED_BATCHES, QUEUED_BYTES = 8, 2**30
"""Most batches of images whose values are on their way from the device, and most memory of them."""
META = "meta.json"
Parts = dict[str, Array]
"""'train' and 'val' → (N, …) values, channels last."""
OnShare = Callable[[float], None]
"""Takes the share of the work that is done, from 0 to 1."""
Form = Literal["plain", "folded", "compiled"]
"""plain: the network that is trained, as far as it is frozen; folded: a copy of that part whose
BatchNorm is inside its convolutions, as constants where the framework can use it; compiled: that
copy, through the framework's compiler."""


class Threshold(NamedTuple):
    """Multiply-adds of the pass over all images, on a CPU for each core, from which on building a
    form pays off."""

    form: Form
    multiply_adds: float


FORMS: dict[tuple[str, str], tuple[Threshold, ...]] = {
    ("torch", "cpu"): (Threshold("folded", 0.0), Threshold("compiled", 1e13)),
    ("torch", "cuda"): (Threshold("folded", 0.0),),
    **{
        (f"keras-{engine}", kind): (Threshold("plain", 0.0), Threshold("folded", folded))
        for engine in ("torch", "tensorflow", "jax")
        for kind, folded in (("cpu", 3e11), ("cuda", 3e13))
    },
}
"""Backend and kind of device → forms in ascending order of work. A table, not a measurement in each
run, so that the same run always takes the same form. Thresholds were measured on 2 cores of an AMD
EPYC (results/benchmarks); those of GPUs are guesses that rather build nothing."""


@dataclass(frozen=True)
class CachedPrefix:
    """The values of the frozen prefix for a run's images, in place of the images."""

    train: Array
    """(K N, …): the N training images in each of K views, one view after the other."""
    val: Array
    """(N, …)."""
    seconds: float
    """Time to compute and write them, in this run or the one that did it: figures must not depend
    on the content of a cache."""
    spent_s: float
    """Time that this run spent on them."""
    is_reused: bool
    """True if an earlier run computed them."""
    form: str
    """Form that computed them (``Form``), with the reason if it is a fallback."""
    note: str | None = None
    """Reason why they were not kept in the cache."""
    compile_s: float = 0.0
    """Part of ``seconds`` that compilation and the choice of kernels took."""


Queued = deque[tuple[int, int, Any]]
"""First image, number of images, and handle, of values that are on their way."""
MakeBatches = Callable[[int, Allocate], Iterator[npt.NDArray[np.uint8]]]
"""(threads, allocate) → batches of images."""


@dataclass(frozen=True)
class PrefixRequest:
    """The values to compute: their images, shapes and dtype."""

    images: dict[str, MakeBatches]
    """'train' and 'val' → batches of uint8 images (N, px, px, 3), in order."""
    shapes: dict[str, tuple[int, ...]]
    """'train' and 'val' → shape of the values, images first."""
    dtype: str
    """float32 or float64."""

    @property
    def size_bytes(self) -> int:
        """Size of all values."""
        item = np.dtype(self.dtype).itemsize
        return sum(int(np.prod(shape)) * item for shape in self.shapes.values())


class NoRoom(Exception):
    """The values fit neither into the cache nor into memory; the message says why."""


def cached_prefix_of_run(
    spec: RunSpec, network: Network, plan: TrainingPlan, tensors_sha256: str, packed: Packed,
    adapter: Adapter, trainer: MatchedTrainer, environment_id: str,
    report: OnEvent,
) -> tuple[CachedPrefix | None, str | None]:  # fmt: skip
    """Load or compute the values of a run's frozen prefix, where that saves work.

    Args:
        network: With its head; its numbers are not read, those of ``trainer`` are.
        tensors_sha256: Hash of the frozen tensors.

    Returns:
        The values, or None; and why there are none, where a reader would expect them.
    """
    recipe, blueprint = spec.recipe, network.blueprint
    boundary = boundary_of(blueprint, plan)
    if plan.first_trained == 0 or recipe.prefix_cache == "off":
        return None, None
    reason = why_not_cached(recipe)
    if boundary is None:
        reason = "it has no place that a single value crosses"
    elif reason is None:
        key = prefix_key(
            blueprint, boundary, tensors_sha256, packed.path.name, spec, environment_id
        )
        request = _request(recipe, spec.seed, boundary, packed)
        images = sum(shape[0] for shape in request.shapes.values())
        threads = input_threads(spec.device)
        form = choose_form(blueprint, boundary, images, spec.backend, spec.device)
        build = partial(build_prefix, form, adapter, trainer, blueprint, boundary, recipe,
                        spec.device)  # fmt: skip
        try:
            return load_or_compute(
                build,
                request,
                cache_root(),
                key,
                lambda share: report(PrefixShare(share=share)),
                threads,
            ), None
        except NoRoom as error:
            reason = str(error)
    return None, f"the frozen part was computed in every step: {reason}"


def _request(recipe: Recipe, seed: int, boundary: Boundary, packed: Packed) -> PrefixRequest:
    value = channels_last(boundary.shape)
    images: dict[str, MakeBatches] = {
        "train": partial(view_batches, packed.train, recipe, seed, True),
        "val": partial(view_batches, packed.val, recipe, seed, False),
    }
    shapes = {
        "train": ((recipe.views or 1) * len(packed.train.labels), *value),
        "val": (len(packed.val.labels), *value),
    }
    return PrefixRequest(images, shapes, "float64" if recipe.precision == "fp64" else "float32")


def choose_form(
    blueprint: Blueprint, boundary: Boundary, images: int, backend: str, device: str
) -> Form:
    """Return the form for a pass of ``images`` images through the operations before ``boundary``.

    A prefix without BatchNorm has nothing to fold and stays plain.
    """
    kind = device.partition(":")[0]
    before = blueprint.operations[: boundary.index]
    work = images * sum(multiply_adds(o, blueprint) for o in before)
    scale = cores() if kind == "cpu" else 1
    form = [t.form for t in FORMS[backend, kind] if t.multiply_adds * scale <= work][-1]
    has_norms = any(o.kind == "batch_norm" for o in before)
    return "plain" if form == "folded" and not has_norms else form


def build_prefix(
    form: Form, adapter: Adapter, trainer: MatchedTrainer, blueprint: Blueprint,
    boundary: Boundary, recipe: Recipe, device: str,
) -> Prefix:  # fmt: skip
    """Build the network that computes the values at a boundary, with the numbers of ``trainer``."""
    if form == "plain":
        return trainer
    network = inference_form(blueprint, trainer.tensors(), boundary)
    return adapter.build_prefix(network, recipe, device, compiled=form == "compiled")


def load_or_compute(
    build: Callable[[], Prefix], request: PrefixRequest, root: Path, key: str,
    on_share: OnShare = lambda share: None, threads: int = 1,
) -> CachedPrefix:  # fmt: skip
    """Load the values from the cache if they are there and whole, else compute and keep them.

    Args:
        build: Builds the network that computes them; called only where they are not in the cache.
        key: From ``prefix_key``.
        threads: Number of threads that make batches.

    Raises:
        NoRoom: They fit neither into the cache nor into memory.
    """
    began = time.perf_counter()
    folder = root / FOLDER / key
    in_memory = request.size_bytes <= machine_bytes() // MEMORY_SHARE
    stored = _load(folder, request, in_memory)
    if stored is not None:
        mark_used(folder)
        return replace(stored, spent_s=time.perf_counter() - began)
    prefix, parts, compile_s = build(), dict[str, Array](), list[float]()
    note: str | None = None

    def write(into: Path) -> None:
        filled = _arrays(request, None if in_memory else into)
        calls = _compute(prefix, request, filled, on_share, threads)
        compile_s.append(calls.compile_s() or 0.0)
        if in_memory:
            parts.update(filled)  # they count even if writing fails
            for name, array in filled.items():
                np.save(into / f"{name}.npy", array)
        meta = {
            "checksums": {name: crc32_of_file(into / f"{name}.npy") for name in filled},
            "seconds": time.perf_counter() - began,
            "compile_s": compile_s[-1],
            "form": prefix.prefix_form(),
        }
        (into / META).write_text(json.dumps(meta), encoding="utf-8")

    try:
        make_room(root, request.size_bytes, limit_bytes())
        build_folder(folder, write, lambda path: _load(path, request, False) is not None)
        if not in_memory:
            stored = _load(folder, request, in_memory)
            if stored is None:
                raise OSError("what was written cannot be read back")
            parts = {"train": stored.train, "val": stored.val}
    except OSError as error:
        reason = f"{root / FOLDER}: {error.strerror or error}"
        if not in_memory:
            raise NoRoom(reason) from error
        note = f"the values of the frozen part were not kept for later runs: {reason}"
        if not parts:
            parts = _arrays(request)
            calls = _compute(prefix, request, parts, on_share, threads)
            compile_s.append(calls.compile_s() or 0.0)
    spent_s, form = time.perf_counter() - began, prefix.prefix_form()
    seconds = _stored_seconds(folder) or spent_s  # the same figure for this run and for later ones
    compiling_s = min(compile_s[-1], seconds) if compile_s else 0.0
    return CachedPrefix(
        parts["train"], parts["val"], seconds, spent_s, False, form, note, compiling_s
    )


def _load(folder: Path, request: PrefixRequest, in_memory: bool) -> CachedPrefix | None:
    """Read stored values; return None if they are absent, damaged or do not fit the request."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        checksums, seconds, form = meta["checksums"], float(meta["seconds"]), str(meta["form"])
        compile_s = float(meta["compile_s"])
        parts: Parts = {}
        for name, shape in request.shapes.items():
            path = folder / f"{name}.npy"
            array = np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False)
            if array.shape != shape or array.dtype != request.dtype:
                return None
            if crc32_of_file(path) != checksums[name]:
                return None
            parts[name] = array
    except Exception:  # a damaged header raises anything that Python's parser can raise
        return None
    return CachedPrefix(
        parts["train"], parts["val"], seconds, 0.0, is_reused=True, form=form, compile_s=compile_s
    )


def _stored_seconds(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / META).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def _arrays(request: PrefixRequest, folder: Path | None = None) -> Parts:
    """Return arrays to fill, in memory or in files of ``folder``."""
    return {
        name: np.empty(shape, request.dtype) if folder is None
        else mapped_array(folder / f"{name}.npy", request.dtype, shape)
        for name, shape in request.shapes.items()
    }  # fmt: skip


def _compute(
    prefix: Prefix, request: PrefixRequest, parts: Parts, on_share: OnShare, threads: int
) -> FirstCalls:
    """Compute the values of all requested images and write them into ``parts``, a few batches
    behind those that are queued, so that a GPU computes while values are copied; return the clock
    of the first batches of each size."""
    total, done = sum(len(part) for part in parts.values()), 0
    calls = FirstCalls(prefix.synchronise)
    for name, part in parts.items():
        queued: Queued = deque()
        first = 0

        def write_oldest(part: Array = part, queued: Queued = queued) -> int:
            at, count, handle = queued.popleft()
            values = prefix.values([handle])
            if values.shape != (count, *part.shape[1:]):  # NumPy would broadcast it
                raise ValueError(f"a value of shape {values.shape} for {count} images")
            part[at : at + count] = values
            return count

        for images in request.images[name](threads, prefix.host_array):
            handle = calls.time("values", len(images), partial(prefix.prefix, images))
            queued.append((first, len(images), handle))
            first += len(images)
            batch_bytes = part[:1].nbytes * len(images)
            if len(queued) >= min(QUEUED_BATCHES, 1 + QUEUED_BYTES // max(batch_bytes, 1)):
                done += write_oldest()
                on_share(done / total)
        while queued:
            done += write_oldest()
            on_share(done / total)
        prefix.synchronise()
    return calls
