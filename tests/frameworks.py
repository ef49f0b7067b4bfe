"""Workers for tests that need a framework: one process for each backend, never in pytest's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES
from bench.catalog.recipes import plain_recipe
from bench.network.blueprint import Network
from bench.network.blueprint_files import write_checksums
from bench.network.export import blueprint_folder
from bench.network.weights import pretrained_weights, random_weights
from bench.spec.run import Precision
from bench.workers.process import Interpreters, run_task
from bench.workers.tasks import Answer, LogitsItem, LogitsTask, Task

HERE = Interpreters({})
BACKENDS = ("torch", "keras-tensorflow")


def do(backend: str, task: Task[Answer], log: Path) -> Answer:
    """Return a worker's answer; its log is the assertion's message if there is none."""
    finished = run_task(backend, task, log, HERE)
    assert finished.answer is not None, f"{finished.message}\n{log.read_text()[-3000:]}"
    return finished.answer


def packaged_blueprint(name: str, px: int, cache: Path) -> Path:
    """The Blueprint of a backbone with its packaged ImageNet weights."""
    weights = pretrained_weights(name, BACKBONES[name], download=False)
    return blueprint_folder(name, px, weights, 0, cache, HERE)


def random_blueprints(
    name: str, sizes: tuple[int, ...], architectures: dict[int, dict[str, Path]], cache: Path
) -> dict[int, Path]:
    """Blueprints of a backbone with random weights, the same tensors at every input size.

    Args:
        name: Of the backbone.
        sizes: Input sizes.
        architectures: Input size but the first → backbone → folder of its architecture.
        cache: For the Blueprints.
    """
    weights = random_weights(BACKBONES[name])
    first = blueprint_folder(name, sizes[0], weights, 0, cache, HERE)
    shake_batch_norms(first, GAINS.get(name, (0.5, 1.5)))
    folders = {sizes[0]: first}
    for px in sizes[1:]:
        folder = cache / "resized" / f"{name}-{px}"
        folder.mkdir(parents=True)
        shutil.copy(architectures[px][name] / "blueprint.json", folder)
        os.link(first / "tensors.safetensors", folder / "tensors.safetensors")
        folders[px] = folder
    return folders


GAINS = {"mobilenet_v2": (2.0, 4.0)}
"""Backbone → range of BatchNorm's factors, where the usual one lets every image die away."""


def shake_batch_norms(folder: Path, gain: tuple[float, float]) -> None:
    """Give every BatchNorm values of its own: fresh ones are 0 and 1, and hide a confusion."""
    network = Network.load(folder)
    random = np.random.default_rng(0)
    norms = [o for o in network.blueprint.operations if o.kind == "batch_norm"]
    for operation in norms:
        for role, low, high in (
            ("weight", *gain),
            ("bias", -0.3, 0.3),
            ("running_mean", -0.3, 0.3),
            ("running_var", 0.5, 2.0),
        ):
            shape = network.tensors[operation.tensors[role]].shape
            values = random.uniform(low, high, shape).astype(np.float32)
            network.tensors[operation.tensors[role]] = values
    if norms:
        network.save(folder)
        write_checksums(folder)


def logits(
    backend: str,
    items: dict[str, tuple[Path, npt.NDArray[np.uint8]]],
    folder: Path,
    precision: Precision = "fp32",
) -> dict[str, npt.NDArray[Any]]:
    """Logits of networks with their original classifiers, all in one worker.

    Args:
        backend: Whose worker.
        items: Name → (Blueprint's folder, uint8 images (N, px, px, 3)).
        folder: For the files that are exchanged.
        precision: That they compute in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, (blueprint, images) in items.items():
        np.save(folder / f"{name}-images.npy", images)
        listed.append(
            LogitsItem(
                blueprint=str(blueprint),
                images=str(folder / f"{name}-images.npy"),
                out=str(folder / f"{name}-{backend}.npy"),
            )
        )
    task = LogitsTask(
        items=tuple(listed),
        recipe=plain_recipe("original").model_copy(update={"precision": precision}),
        policy=POLICIES["freeze_all"],
        device="cpu",
    )
    do(backend, task, folder / f"{backend}.txt")
    return {name: np.load(folder / f"{name}-{backend}.npy") for name in items}
