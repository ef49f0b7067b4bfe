"""Blueprints of the catalogue's backbones, exported once by a torch worker and cached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.blueprint import Blueprint
from bench.cache import mark_used
from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import EXPORTER
from bench.data.atomic import build_folder
from bench.environment import environment_of
from bench.errors import Unavailable, UserError
from bench.launch import Finished, Interpreters, run_job
from bench.spec import canonical_hash
from bench.weights import Weights

EXPORT_REVISION = 2
"""Raise it when the exporter or the form of a Blueprint changes."""


def blueprint_folder(
    backbone: str, px: int, weights: Weights, seed: int, cache: Path, interpreters: Interpreters
) -> Path:
    """The cached Blueprint of a backbone with given weights; exported if it is not there.

    Args:
        backbone: Name in the catalogue.
        px: Height and width of the input.
        weights: What it starts from.
        seed: Of random weights; not used for others.
        cache: Root of the cache.
        interpreters: Which Python exports.

    Raises:
        Unavailable: The exporter's packages are not installed.
        UserError: The weights file or the input size does not fit.
    """
    key = _key(
        backbone,
        px,
        interpreters,
        weights=weights.ref.sha256,
        preprocessing=weights.preprocessing.model_dump(mode="json"),
        seed=seed if weights.path is None else None,
    )
    folder = cache / "blueprints" / f"{backbone}-{px}-{key}"
    if not is_whole(folder):
        job = {
            "task": "export",
            "backbone": backbone,
            "px": px,
            "path": None if weights.path is None else str(weights.path.resolve()),
            "reader": weights.reader,
            "preprocessing": weights.preprocessing.model_dump(mode="json"),
            "seed": seed,
        }

        def write(content: Path) -> None:
            _export({**job, "folder": str(content)}, backbone, cache, interpreters)

        build_folder(folder, write, is_whole)
    mark_used(folder)
    return folder


def architecture_folders(
    sizes: dict[str, int], cache: Path, interpreters: Interpreters
) -> dict[str, Path]:
    """Cached Blueprints without tensors, for counting.

    Args:
        sizes: Backbone → height and width of its input.
        cache: Root of the cache.
        interpreters: Which Python exports.

    Raises:
        Unavailable: The exporter's packages are not installed.
    """
    folders = {
        name: cache / "architectures" / f"{name}-{px}-{_key(name, px, interpreters)}"
        for name, px in sizes.items()
    }
    absent = [name for name, folder in folders.items() if not is_readable(folder)]
    if absent:
        items = [
            {"backbone": name, "px": sizes[name], "folder": str(folders[name])} for name in absent
        ]
        job = {"task": "architectures", "items": items}
        _export(job, "architectures", cache, interpreters)
    return folders


def is_readable(folder: Path) -> bool:
    """Whether a folder holds a Blueprint."""
    try:
        Blueprint.load(folder)
    except (OSError, ValueError):
        return False
    return True


def _key(backbone: str, px: int, interpreters: Interpreters, **more: object) -> str:
    """Of everything that a Blueprint depends on."""
    environment = environment_of(EXPORTER, "cpu", interpreters.of(EXPORTER))
    what = {
        "backbone": backbone,
        "entry": repr(BACKBONES[backbone]),
        "px": px,
        "packages": environment.packages,
        **more,
    }
    return canonical_hash({"revision": EXPORT_REVISION, **what})[:24]


def _export(job: dict[str, Any], name: str, cache: Path, interpreters: Interpreters) -> None:
    log = cache / "logs" / f"export-{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    _raise_unless_done(run_job(EXPORTER, job, log, interpreters), name, log)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a Blueprint and tensors of the length that they claim."""
    try:
        Blueprint.load(folder)
        tensors = folder / "tensors.safetensors"
        with tensors.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > tensors.stat().st_size:
                return False
            header = json.loads(file.read(header_bytes))
        ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return tensors.stat().st_size == 8 + header_bytes + max(ends, default=0)


def _raise_unless_done(finished: Finished, backbone: str, log: Path) -> None:
    if finished.status == "unavailable":
        raise Unavailable(finished.message)
    if finished.status == "bad_input":
        raise UserError(finished.message, finished.hint)
    if finished.answer is None:
        where = f"{log.parent.name}/{log.name} in Thawbench's cache"
        raise Unavailable(f"exporting {backbone} failed: {finished.message}; see {where}")
