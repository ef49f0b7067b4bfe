"""Export backbones as Blueprints into the cache, by a torch worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.catalog.backends import EXPORTER
from bench.network.backbones import backbones, folder_name, is_own, public_name
from bench.network.blueprint_files import architecture_path, blueprint_path, is_readable, is_whole
from bench.network.weights import Weights
from bench.spec.backbone import BackboneEntry
from bench.spec.base import canonical_hash
from bench.storage.cache import mark_used
from bench.storage.code_digest import digest_of_rooms
from bench.workers.pool import WorkerKind, WorkerPool
from bench.workers.process import Interpreters, ask, environment_of, fresh_log
from bench.workers.tasks import ArchitectureItem, ArchitecturesTask, ExportTask


def blueprint_folder(
    backbone: str, px: int, weights: Weights, seed: int, cache: Path, interpreters: Interpreters,
    calibrated: bool = False, workers: WorkerPool | None = None, limit_s: float | None = None,
) -> Path:  # fmt: skip
    """Return the cached Blueprint of a backbone with given weights; export it if it is missing.

    Args:
        px: Height and width of the input, in pixels.
        seed: Seed of random weights; ignored for others.
        cache: Root of the cache.
        calibrated: True to give random weights the BatchNorm statistics of real activations, see
            ``bench.parity.random_network``.
        workers: Pool whose worker exports, so that no process has to start for it; None: a process
            of its own, as always for a user's own network, whose code may change any setting.
        limit_s: Time after which an export is ended; None: no limit but that of a user's own code.

    Raises:
        Unavailable: The exporter's packages are not installed, or the export failed.
        UserError: The weights file or the input size does not fit.
    """
    entry = backbones([backbone], interpreters, cache)[backbone]
    random_seed = seed if weights.ref.kind == "random" else None
    more: dict[str, object] = {
        "weights": weights.ref.sha256,
        "preprocessing": weights.preprocessing.model_dump(mode="json"),
        "seed": random_seed,
    }
    if calibrated:  # by a forward pass of the adapter, so all of the adapter's code counts
        exporter = environment_of(EXPORTER, "cpu", interpreters).thawbench
        more["settled"] = [digest_of_rooms("proof"), exporter]
    key = _key(backbone, entry, px, interpreters, **more)
    folder = blueprint_path(key, cache)
    if not is_whole(folder):
        task = ExportTask(
            key=key, backbone=backbone, entry=entry, px=px,
            path=None if weights.path is None else str(weights.path.resolve()),
            reader=weights.reader, preprocessing=weights.preprocessing,
            seed=random_seed, calibrated=calibrated,
        )  # fmt: skip
        what = f"exporting {public_name(backbone)}"
        if workers is None or is_own(backbone):
            limits = [limit_s, interpreters.own_code_s if is_own(backbone) else None]
            shortest_s = min((limit for limit in limits if limit is not None), default=None)
            ask(EXPORTER, task, interpreters, what, cache, shortest_s)
        else:
            log = fresh_log(cache, f"{what}-{EXPORTER}")
            done = workers.do(WorkerKind(EXPORTER, "cpu"), task, log, timeout_s=limit_s)
            done.require(what, log)
    mark_used(folder)
    return folder


def architecture_folders(
    sizes: Mapping[str, int], cache: Path, interpreters: Interpreters
) -> dict[str, Path]:
    """Return cached Blueprints without tensors; export those that are missing, and raise
    Unavailable if that fails. ``sizes`` maps backbones to the height and width of their inputs, in
    pixels."""
    entries = backbones(sizes, interpreters, cache)
    keys = {name: _key(name, entries[name], px, interpreters) for name, px in sizes.items()}
    folders = {name: architecture_path(key, cache) for name, key in keys.items()}
    absent = [name for name, folder in folders.items() if not is_readable(folder)]
    if absent:
        items = tuple(
            ArchitectureItem(key=keys[name], backbone=name, entry=entries[name], px=sizes[name])
            for name in absent
        )
        what = f"exporting {len(absent)} networks"
        ask(EXPORTER, ArchitecturesTask(items=items), interpreters, what, cache)
    return folders


def _key(
    backbone: str, entry: BackboneEntry, px: int, interpreters: Interpreters, **more: object
) -> str:
    """Return the key of a Blueprint: a readable name and a hash of all that it depends on."""
    dependencies = {
        "backbone": public_name(backbone),
        "entry": entry.model_dump(mode="json", exclude={"code": {"file"}}),
        "px": px,
        "packages": environment_of(EXPORTER, "cpu", interpreters).packages,
        "code": digest_of_rooms("blueprint"),
        **more,
    }
    return f"{folder_name(backbone)}-{px}-{canonical_hash(dependencies)[:24]}"
