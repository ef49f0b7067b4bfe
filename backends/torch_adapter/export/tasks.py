"""The tasks of exporting, from their models to files in the cache."""

from __future__ import annotations

from pathlib import Path

from backends.torch_adapter.export.blueprint_export import export_architecture, export_backbone
from bench.network.blueprint_files import save_architecture, save_blueprint
from bench.training.adapter import Adapter
from bench.workers.tasks import ArchitecturesTask, ExportTask


def export_to_cache(task: ExportTask, adapter: Adapter) -> None:
    """Export a backbone as a Blueprint with tensors; ``adapter`` calibrates random weights."""
    network = export_backbone(
        task.backbone, task.entry, task.px, task.preprocessing,
        path=Path(task.path) if task.path else None, reader=task.reader, seed=task.seed,
    )  # fmt: skip
    if task.calibrated:  # of proofs only
        from bench.parity.random_network import calibrate_random_network

        network = calibrate_random_network(network, adapter)
    save_blueprint(network, task.key)


def export_architectures_to_cache(task: ArchitecturesTask) -> None:
    """Export backbones without tensors."""
    for item in task.items:
        save_architecture(export_architecture(item.backbone, item.entry, item.px), item.key)
