"""Workers for tests that need a framework: one process per backend, apart from pytest's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS as BACKEND_ENTRIES
from bench.network.blueprint import Network
from bench.network.blueprint_files import write_checksums
from bench.network.export import blueprint_folder
from bench.network.weights import pretrained_weights, random_weights
from bench.spec.run import Precision
from bench.system import project_root
from bench.workers.process import Interpreters

HERE = Interpreters({})
BACKENDS = ("torch", "keras-tensorflow")


def run_module(
    backend: str,
    module: str,
    *arguments: str,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> list[Any]:
    """Run a module of the tests by a backend's interpreter; return the JSON lines that it prints.

    Args:
        backend: Backend whose interpreter runs it; also the module's first argument.
        module: Name such as 'tests.parity.forms_worker'.
        arguments: Further arguments.
        variables: Environment variables beside those of this process.
    """
    done = subprocess.run(
        [str(HERE.of(backend)), "-m", module, backend, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=project_root(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith(("{", "["))]


def packaged_blueprint(name: str, px: int, cache: Path) -> Path:
    """Return the Blueprint of a backbone with its packaged ImageNet weights."""
    weights = pretrained_weights(name, BACKBONES[name], download=False)
    return blueprint_folder(name, px, weights, 0, cache, HERE)


def random_blueprints(
    name: str, sizes: tuple[int, ...], architectures: dict[int, dict[str, Path]], cache: Path
) -> dict[int, Path]:
    """Return Blueprints of a backbone with the same random weights at every input size.

    Args:
        name: Name of the backbone.
        sizes: Input sizes, in pixels.
        architectures: Input size, except the first → backbone → folder of its architecture.
        cache: Root of the cache.
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
"""Backbone → range of BatchNorm's factors, if the usual range makes the signal vanish."""


def shake_batch_norms(folder: Path, gain: tuple[float, float]) -> None:
    """Give every BatchNorm its own values: fresh ones are 0 and 1, which hides a confusion."""
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
    """Return the logits (N, classes) of networks with their own classifiers, by one worker.

    Args:
        backend: Backend of the worker.
        items: Name → (Blueprint's folder, uint8 images (N, px, px, 3)).
        folder: Folder for images and logits.
        precision: Precision of the computation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blueprints = {name: str(blueprint) for name, (blueprint, _) in items.items()}
    (folder / "items.json").write_text(json.dumps(blueprints))
    for name, (_, images) in items.items():
        np.save(folder / f"{name}-images.npy", images)
    variables = BACKEND_ENTRIES[backend].variables
    run_module(backend, "tests.parity.logits_worker", precision, str(folder), variables=variables)
    return {name: np.load(folder / f"{name}-{backend}.npy") for name in items}
