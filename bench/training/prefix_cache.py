"""Values of a frozen prefix, computed once: which variant of the network computes them fastest, and
how they are kept in memory and in a folder for later runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from bench.storage.cache import limit_bytes, make_room, mark_used
from bench.storage.checksums import crc32_of_file
from bench.system import cores, machine_bytes
from bench.training.adapter import Adapter, Prefix, ResumingTrainer
from bench.training.batches import view_batches

FOLDER = "features"
"""Folder of the values in the cache."""
MEMORY_SHARE = 8
"""Values up to 1/8 of the machine's memory are kept in it; larger ones are mapped from the file."""
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
    """Work from which on building a form pays off."""

    form: Form
    multiply_adds: float
    """Multiply-adds of the pass over all images; on a CPU, for each core."""


NEVER_COMPILED = (Threshold("folded", 0.0),)
PLAIN_OR_FOLDED_CPU = (Threshold("plain", 0.0), Threshold("folded", 3e11))
PLAIN_OR_FOLDED_GPU = (Threshold("plain", 0.0), Threshold("folded", 3e13))
FORMS: dict[tuple[str, str], tuple[Threshold, ...]] = {
    ("torch", "cpu"): (Threshold("folded", 0.0), Threshold("compiled", 1e13)),
    ("torch", "cuda"): NEVER_COMPILED,
    ("keras-torch", "cpu"): PLAIN_OR_FOLDED_CPU,
    ("keras-torch", "cuda"): PLAIN_OR_FOLDED_GPU,
    ("keras-tensorflow", "cpu"): PLAIN_OR_FOLDED_CPU,
    ("keras-tensorflow", "cuda"): PLAIN_OR_FOLDED_GPU,
    ("keras-jax", "cpu"): PLAIN_OR_FOLDED_CPU,
    ("keras-jax", "cuda"): PLAIN_OR_FOLDED_GPU,
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


@dataclass(frozen=True)
class PrefixRequest:
    """The values to compute: their images, shapes and dtype."""

    images: dict[str, Callable[[], Iterator[npt.NDArray[np.uint8]]]]
    """'train' and 'val' → batches of uint8 images (N, px, px, 3), in order."""
    shapes: dict[str, tuple[int, ...]]
    """'train' and 'val' → shape of the values, images first."""
    dtype: str
    """float32 or float64."""

    @property
    def total_images(self) -> int:
        """Images in all views and splits."""
        return sum(shape[0] for shape in self.shapes.values())

    @property
    def size_bytes(self) -> int:
        """Size of all values."""
        item = np.dtype(self.dtype).itemsize
        return sum(int(np.prod(shape)) * item for shape in self.shapes.values())


class NoRoom(Exception):
    """The values fit neither into the cache nor into memory; the message says why."""


def cached_prefix_of_run(
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
) -> tuple[CachedPrefix | None, str | None]:
    """Load or compute the values of a run's frozen prefix, where that saves work.

    Args:
        network: With its head; its numbers are not read.
        tensors_sha256: Hash of the frozen tensors.
        trainer: Holds the numbers of the frozen prefix.
        root: The cache.
        report: Takes progress events.

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
        form = choose_form(blueprint, boundary, request.total_images, spec.backend, spec.device)
        build = partial(
            build_prefix, form, adapter, trainer, blueprint, boundary, recipe, spec.device
        )

        def on_share(share: float) -> None:
            report({"event": "prefix", "share": share})

        try:
            return load_or_compute(build, request, root, key, on_share), None
        except NoRoom as error:
            reason = str(error)
    return None, f"the frozen part was computed in every step: {reason}"


def _request(recipe: Recipe, seed: int, boundary: Boundary, packed: Packed) -> PrefixRequest:
    value = channels_last(boundary.shape)
    views = recipe.views or 1
    return PrefixRequest(
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
    form: Form,
    adapter: Adapter,
    trainer: ResumingTrainer,
    blueprint: Blueprint,
    boundary: Boundary,
    recipe: Recipe,
    device: str,
) -> Prefix:
    """Build the network that computes the values at a boundary.

    Args:
        trainer: Of the whole network; the numbers come from it.
        blueprint: Of the whole network.
        device: cpu or cuda:N.
    """
    if form == "plain":
        return trainer
    network = inference_form(blueprint, trainer.tensors(), boundary)
    return adapter.build_prefix(network, recipe, device, compiled=form == "compiled")


def load_or_compute(
    build: Callable[[], Prefix],
    request: PrefixRequest,
    root: Path,
    key: str,
    on_share: OnShare = lambda share: None,
) -> CachedPrefix:
    """Load the values from the cache if they are there and whole, else compute and keep them.

    Args:
        build: Builds the network that computes them; called only where they are not in the cache.
        root: The cache.
        key: Name of their folder, from ``prefix_key``.

    Raises:
        NoRoom: They fit neither into the cache nor into memory.
    """
    began = time.perf_counter()
    folder = root / FOLDER / key
    in_memory = request.size_bytes <= machine_bytes() // MEMORY_SHARE

    stored = _load(folder, request, in_memory)
    if stored is not None:
        mark_used(folder)
        spent_s = time.perf_counter() - began
        return CachedPrefix(
            stored.parts["train"], stored.parts["val"], stored.seconds, spent_s, True, stored.form
        )
    note: str | None = None
    parts: Parts = {}
    prefix = build()
    try:
        make_room(root, request.size_bytes, limit_bytes())
        _compute_into(folder, prefix, request, parts if in_memory else None, began, on_share)
        if not in_memory:
            parts = _read_back(folder, request)
    except OSError as error:
        reason = f"{root / FOLDER}: {error.strerror or error}"
        if not in_memory:
            raise NoRoom(reason) from error
        note = f"the values of the frozen part were not kept for later runs: {reason}"
        if not parts:
            parts = _compute(prefix, request, _empty_arrays(request), on_share)
    spent_s, form = time.perf_counter() - began, prefix.prefix_form()
    seconds = _stored_seconds(folder) or spent_s  # the same figure for this run and for later ones
    return CachedPrefix(parts["train"], parts["val"], seconds, spent_s, False, form, note)


class _Stored(NamedTuple):
    """The content of a folder of values."""

    parts: Parts
    seconds: float
    """Time that it took to compute them."""
    form: str


def _load(folder: Path, request: PrefixRequest, in_memory: bool) -> _Stored | None:
    """Read stored values; return None if they are absent, damaged or do not fit the request."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        checksums, seconds, form = meta["checksums"], float(meta["seconds"]), str(meta["form"])
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
    return _Stored(parts, seconds, form)


def _read_back(folder: Path, request: PrefixRequest) -> Parts:
    stored = _load(folder, request, in_memory=False)
    if stored is None:
        raise OSError("what was written cannot be read back")
    return stored.parts


def _stored_seconds(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / META).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def _compute_into(
    folder: Path,
    prefix: Prefix,
    request: PrefixRequest,
    found: Parts | None,
    began: float,
    on_share: OnShare,
) -> None:
    """Compute the values and write them into ``folder``.

    Args:
        found: Is filled as soon as the values are computed, even if writing fails then; None: they
            do not fit into memory.
        began: ``time.perf_counter()`` when the work on them began.

    Raises:
        OSError: The folder cannot be written.
    """

    def write(into: Path) -> None:
        if found is None:
            parts = _compute(prefix, request, _mapped_arrays(request, into), on_share)
        else:
            parts = _compute(prefix, request, _empty_arrays(request), on_share)
            found.update(parts)
            for name, array in parts.items():
                np.save(into / f"{name}.npy", array)
        meta = {
            "checksums": {name: crc32_of_file(into / f"{name}.npy") for name in parts},
            "seconds": time.perf_counter() - began,
            "form": prefix.prefix_form(),
        }
        (into / META).write_text(json.dumps(meta), encoding="utf-8")

    build_folder(folder, write, lambda path: _load(path, request, False) is not None)


def _empty_arrays(request: PrefixRequest) -> Parts:
    return {name: np.empty(shape, request.dtype) for name, shape in request.shapes.items()}


def _mapped_arrays(request: PrefixRequest, folder: Path) -> Parts:
    return {
        name: mapped_array(folder / f"{name}.npy", request.dtype, shape)
        for name, shape in request.shapes.items()
    }


def _compute(prefix: Prefix, request: PrefixRequest, parts: Parts, on_share: OnShare) -> Parts:
    """Fill ``parts`` and return them."""
    total, done = sum(len(part) for part in parts.values()), 0
    for name, part in parts.items():
        at = 0
        for images in request.images[name]():
            values = prefix.values([prefix.prefix(images)])
            prefix.synchronise()  # JAX's engine keeps handles until it is waited for
            if values.shape != (len(images), *part.shape[1:]):  # NumPy would broadcast it
                raise ValueError(f"a value of shape {values.shape} for {len(images)} images")
            part[at : at + len(images)] = values
            at, done = at + len(images), done + len(images)
            on_share(done / total)
    return parts
