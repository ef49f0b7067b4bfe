"""Blueprints of backbones, exported once by a torch worker and cached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.catalog.backends import EXPORTER
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import backbones, folder_name, public_name, worker_failure
from bench.network.blueprint import Blueprint
from bench.network.weights import Weights
from bench.spec.backbone import BackboneEntry
from bench.spec.base import canonical_hash
from bench.storage.atomic import build_folder
from bench.storage.cache import mark_used
from bench.storage.checksums import checksum
from bench.system import project_root
from bench.workers.environment import digest_of, environment_of
from bench.workers.process import Interpreters, run_job

EXPORT_REVISION = 3
"""Raise it when the exporter or the form of a Blueprint changes."""
FILES = ("blueprint.json", "tensors.safetensors")
CHECKSUMS = "checksums.json"
"""Beside them: name → CRC-32."""


def blueprint_folder(
    backbone: str,
    px: int,
    weights: Weights,
    seed: int,
    cache: Path,
    interpreters: Interpreters,
    settled: bool = False,
) -> Path:
    """The cached Blueprint of a backbone with given weights; exported if it is not there.

    Args:
        backbone: Its name, of any kind.
        px: Height and width of the input.
        weights: What it starts from.
        seed: Of random weights; not used for others.
        cache: Root of the cache.
        interpreters: Which Python exports.
        settled: For proofs: random weights with BatchNorm values of their own, see
            ``bench.parity.inputs``.

    Raises:
        Unavailable: The exporter's packages are not installed.
        UserError: The weights file or the input size does not fit.
    """
    entry = entry_of(backbone, interpreters, cache)
    name = public_name(backbone)
    random = weights.ref.kind == "random"
    key = _key(
        name,
        entry,
        px,
        interpreters,
        weights=weights.ref.sha256,
        preprocessing=weights.preprocessing.model_dump(mode="json"),
        seed=seed if random else None,
        **(
            {"settled": digest_of([project_root() / "bench" / "parity" / "inputs.py"])}
            if settled
            else {}
        ),
    )
    folder = cache / "blueprints" / f"{folder_name(backbone)}-{px}-{key}"
    if not is_whole(folder):
        job = {
            "task": "export",
            "backbone": name,
            "entry": entry.model_dump(mode="json"),
            "px": px,
            "path": None if weights.path is None else str(weights.path.resolve()),
            "reader": weights.reader,
            "preprocessing": weights.preprocessing.model_dump(mode="json"),
            "seed": seed if random else None,
            "settled": settled,
        }

        def write(content: Path) -> None:
            _export({**job, "folder": str(content)}, folder_name(backbone), cache, interpreters)
            write_checksums(content)

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
    entries = backbones(sizes, interpreters, cache)
    keys = {n: _key(public_name(n), entries[n], px, interpreters) for n, px in sizes.items()}
    folders = {
        name: cache / "architectures" / f"{folder_name(name)}-{px}-{keys[name]}"
        for name, px in sizes.items()
    }
    absent = [name for name, folder in folders.items() if not is_readable(folder)]
    if absent:
        items = [
            {
                "backbone": public_name(name),
                "entry": entries[name].model_dump(mode="json"),
                "px": sizes[name],
                "folder": str(folders[name]),
            }
            for name in absent
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


def _key(
    name: str, entry: BackboneEntry, px: int, interpreters: Interpreters, **more: object
) -> str:
    """Of everything that a Blueprint depends on."""
    environment = environment_of(EXPORTER, "cpu", interpreters.of(EXPORTER))
    what = {
        "backbone": name,
        "entry": entry.model_dump(mode="json", exclude={"code": {"file"}}),
        "px": px,
        "packages": environment.packages,
        "code": environment.thawbench,
        **more,
    }
    return canonical_hash({"revision": EXPORT_REVISION, **what})[:24]


def _export(job: dict[str, Any], name: str, cache: Path, interpreters: Interpreters) -> None:
    log = cache / "logs" / f"export-{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    finished = run_job(EXPORTER, job, log, interpreters)
    if finished.answer is None:
        raise worker_failure(finished, f"exporting {name}", log)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a Blueprint and tensors, every byte as it was written."""
    try:
        Blueprint.load(folder)
        written = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return set(written) == set(FILES) and all(
            checksum(folder / name) == written[name] for name in FILES
        )
    except (OSError, ValueError, TypeError):
        return False


def write_checksums(folder: Path) -> None:
    """Note what the files of a Blueprint are now, for ``is_whole``."""
    written = {name: checksum(folder / name) for name in FILES}
    (folder / CHECKSUMS).write_text(json.dumps(written) + "\n", encoding="utf-8")
