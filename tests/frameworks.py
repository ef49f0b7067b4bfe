"""Workers for tests that need a framework: one process per backend, apart from pytest's own."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS as BACKEND_ENTRIES
from bench.network.blueprint import Blueprint, Network
from bench.network.export import blueprint_folder
from bench.network.weights import pretrained_weights
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
    device: str = "cpu",
) -> list[Any]:
    """Run a module of the tests by a backend's interpreter; return the JSON lines that it prints.

    Args:
        backend: Backend whose interpreter runs it; also the module's first argument.
        module: Name such as 'tests.parity.forms_worker'.
        arguments: Further arguments.
        variables: Environment variables beside those of the backend's workers.
        device: Device that it runs on, as the backend's workers would.
    """
    done = subprocess.run(
        [str(HERE.of(backend)), "-m", module, backend, *arguments],
        env={**BACKEND_ENTRIES[backend].environment(os.environ, device), **variables},
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


def random_network(architecture: Path, folder: Path, seed: int = 0) -> Path:
    """Write a network with random tensors into ``folder``, and return the folder.

    Every BatchNorm gets values of its own: fresh ones are 0 and 1, which hides a confusion.

    Args:
        architecture: Folder of a Blueprint without tensors.
        folder: Folder to make.
        seed: Seed of the tensors; networks of one backbone at several input sizes share it.
    """
    blueprint = Blueprint.load(architecture)
    random = np.random.default_rng(seed)
    tensors = {}
    for operation, role, name in blueprint.named_tensors():
        shape = blueprint.shapes[name]
        if operation.kind == "batch_norm":
            values = random.uniform(*BATCH_NORM[role], shape)
        elif role == "weight":  # He et al. 2015, "Delving Deep into Rectifiers"
            values = random.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))
        else:
            values = random.uniform(-0.1, 0.1, shape)
        tensors[name] = values.astype(np.float32)
    folder.mkdir(parents=True)
    Network(blueprint, tensors).save(folder)
    return folder


BATCH_NORM = {
    "weight": (0.5, 1.5), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3),
    "running_var": (0.5, 2.0),
}  # fmt: skip
"""Role of a BatchNorm's tensor → range of its values."""


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
