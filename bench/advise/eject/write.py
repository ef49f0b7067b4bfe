"""Write the project of a recommendation: a script, its settings, weights and list of images."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bench.advise.advice import Strategy
from bench.advise.candidate import OPTIMIZER
from bench.advise.wishes import Wishes
from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES
from bench.data import pack
from bench.data.decode import centre_square, image_headers
from bench.data.image_files import FileSource
from bench.data.model import SPLITS, Dataset
from bench.errors import UserError
from bench.network.blueprint import HEAD, Blueprint, Network, Operation, channels_last
from bench.network.head import attach_head, hidden_units, trunk_output
from bench.network.phases import phases_of
from bench.spec.backbone import BackboneEntry
from bench.spec.run import RECIPE_OPTIONS
from bench.storage.text_files import replace_text
from bench.system import package_version

PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Modes of Pillow with 8 bits or fewer for each value."""
SCRIPTS = {"torch": "train_torch.py.txt", "keras-tensorflow": "train_keras.py.txt"}
"""Backend → the script for it."""
LIBRARIES = {"torch": "PyTorch", "keras-tensorflow": "Keras"}
REQUIREMENTS = {
    "torch": ("torch", "numpy", "pillow", "safetensors", "onnx", "onnxscript"),
    "keras-tensorflow": (
        "keras",
        "tensorflow",
        "numpy",
        "pillow",
        "safetensors",
        "onnx",
        "tf2onnx",
    ),
}
KERAS_KINDS = frozenset(
    {"conv2d", "batch_norm", "relu", "relu6", "silu", "max_pool2d", "add", "cat", "dropout"}
)
"""Kinds of operation that the script for Keras knows."""
README = """# {title}

`train.py` trains {policy} of {backbone} in {library}, as `thawbench advise` recommended for
{dataset}. It needs no Thawbench; change what you like.

```sh
pip install -r requirements.txt
python train.py
```

Expected test accuracy: {expected}. The script tests once, at the end, and writes
the model and `result.json`.

| file | content |
|---|---|
| `train.py` | the whole training |
| `settings.json` | network, stages, phases, learning rates, preprocessing |
{network}| `weights.safetensors` | the pretrained weights that training starts from |
| `{images}` | the images, and what each is used for |
"""


@dataclass(frozen=True)
class Project:
    """A strategy with the data, network and settings from which its project is written."""

    strategy: Strategy
    dataset: Dataset
    """The data set with all its images."""
    entry: BackboneEntry
    network: Network
    """The backbone with its pretrained weights."""
    px: int
    batch_size: int
    images: str = ""
    """Folder of the images; empty where they are no files of the user's own."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Distribution → version, in the environment of the backend."""


def check_has_script(wishes: Wishes) -> None:
    """Raise UserError if there is no script for a framework, network or head that may be
    recommended."""
    for backend in wishes.backends:
        if backend not in SCRIPTS:
            raise UserError(
                f"--eject and --train: there is no script for {backend}.",
                f"There are scripts for {', '.join(SCRIPTS)}: name them with --frameworks.",
            )
    for name in wishes.backbones:
        if name not in BACKBONES:
            raise UserError(
                f"--eject and --train: there is no script for {name}.",
                "There are scripts for networks of the catalogue: run_bench.py list backbones.",
            )
    if wishes.head != "linear" and not wishes.head.startswith("dense:"):
        raise UserError(
            f"--eject and --train: there is no script for head {wishes.head}.",
            "Use linear or dense:512,256.",
        )


def write_project(folder: Path, project: Project, cache: Path) -> None:
    """Write a project into a new folder, which is removed again if that fails.

    Args:
        cache: Root of the cache, for decoded images.

    Raises:
        UserError: The folder is there already, or the script does not know the network.
    """
    check_new(folder)
    try:
        _write_files(folder, project, cache)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_files(folder: Path, project: Project, cache: Path) -> None:
    """Write the files of a project."""
    strategy, backend = project.strategy, project.strategy.backend
    settings = _settings(project)
    layers = _layers(project.network.blueprint) if backend == "keras-tensorflow" else None
    folder.mkdir(parents=True, exist_ok=True)
    blueprint = project.network.blueprint
    trunk = {t for o in blueprint.trunk() for t in o.tensors.values()}
    tensors = {name: project.network.tensors[name] for name in sorted(trunk)}
    # Not save_file: other users could not read what it writes.
    weights = save({n: np.ascontiguousarray(a) for n, a in tensors.items()})
    (folder / "weights.safetensors").write_bytes(weights)
    images = _write_images(folder, project, cache)
    template = resources.files("bench.advise.eject") / SCRIPTS[backend]
    replace_text(folder / "train.py", template.read_text(encoding="utf-8"))
    replace_text(folder / "settings.json", json.dumps(settings, indent=1) + "\n")
    names, network = list(REQUIREMENTS[backend]), ""
    if layers is None:
        names.append(settings["library"])
    else:
        network = "| `network.json` | the layers of the pretrained network |\n"
        replace_text(folder / "network.json", json.dumps(layers, indent=1) + "\n")
    versions = {name: project.packages.get(name) or package_version(name) for name in names}
    pins = [name if version is None else f"{name}=={version}" for name, version in versions.items()]
    replace_text(folder / "requirements.txt", "\n".join(pins) + "\n")
    expected = "not known"
    if strategy.expected_test_top1 is not None and strategy.interval is not None:
        low, high = (100 * end for end in strategy.interval)
        expected = f"{strategy.expected_test_top1:.1%} ({low:.1f} to {high:.1f} %)"
    text = README.format(
        title=f"{project.dataset.name}: {strategy.policy}", policy=strategy.policy,
        backbone=strategy.backbone, library=LIBRARIES[backend], dataset=project.dataset.label,
        expected=expected, images=images, network=network,
    )  # fmt: skip
    replace_text(folder / "README.md", text)


def check_new(folder: Path) -> None:
    """Raise UserError if a folder is not empty, is a file, or cannot be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--eject: '{folder}' is there already.", "Name a new folder.")
    parent = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--eject: '{parent}' cannot be written.", "Name another folder.")


def unused_folder(wanted: Path) -> Path:
    """Return a folder that is not there yet: the wanted one, or with a number behind its name."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _settings(project: Project) -> dict[str, Any]:
    """Return everything that the script reads."""
    strategy, entry, classes = project.strategy, project.entry, project.dataset.classes
    blueprint, policy = project.network.blueprint, POLICIES[strategy.policy]
    whole = attach_head(project.network, strategy.head, len(classes), seed=0).blueprint
    stages = {name: list(paths) for name, paths in entry.stages if name != HEAD}
    names = list(stages)
    recipe = {name: declared.option.default for name, declared in RECIPE_OPTIONS.items()}
    pre = blueprint.preprocessing
    return {
        "library": entry.library,
        "model": entry.model,
        "px": project.px,
        "classes": list(classes),
        "stages": stages,
        "features": trunk_output(blueprint).shape[0],
        "hidden": hidden_units(strategy.head),
        "channels": pre.channels,
        "mean": list(pre.mean),
        "scale": list(pre.scale),
        "optimizer": OPTIMIZER,
        "learning_rate": strategy.learning_rate,
        "rate_scales": {
            name: policy.backbone_scale * policy.stage_decay ** (len(names) - 1 - number)
            for number, name in enumerate(names)
        },
        "weight_decay": recipe["weight_decay"],
        "warmup_fraction": recipe["warmup_fraction"],
        "batch_size": project.batch_size,
        "phases": [
            [_first_stage(phase.policy.boundary, names), phase.epochs]
            for phase in phases_of(whole, policy, strategy.epochs)
        ],
        "data": project.images,
    }


def _layers(blueprint: Blueprint) -> list[dict[str, Any]]:
    """Return the layers of the trunk as the script for Keras reads them; raise UserError if it
    knows no such layer."""
    shapes = {o.name: o.shape for o in blueprint.operations}
    found = []
    for o in blueprint.trunk():
        is_grouped = o.kind == "conv2d" and o.attributes["groups"] not in (1, o.shape[0])
        if o.kind not in KERAS_KINDS or is_grouped:
            raise UserError(
                "--eject and --train: the script for Keras knows no "
                f"{'grouped ' if is_grouped else ''}{o.kind} of {blueprint.backbone}.",
                "Use --frameworks torch.",
            )
        source = shapes.get(o.inputs[0], (3, blueprint.px, blueprint.px))
        found.append(
            {
                "name": o.name, "kind": o.kind, "stage": o.stage, "inputs": list(o.inputs),
                "attributes": o.attributes, "tensors": o.tensors, "features": o.shape[0],
                "shape": list(channels_last(o.shape)), "padding": _padding(o, source),
            }
        )  # fmt: skip
    return found


def _padding(o: Operation, source: tuple[int, ...]) -> list[int]:
    """Return the padding above, below, left and right that an operation reads. The last window of
    a pooling may read more than is declared, in ceil mode, and less in floor mode."""
    top, bottom, left, right = o.attributes.get("padding", (0, 0, 0, 0))
    if o.kind != "max_pool2d":
        return [top, bottom, left, right]
    below, beside = (
        (o.shape[axis] - 1) * o.attributes["stride"][axis - 1]
        + o.attributes["kernel"][axis - 1] - source[axis] - before
        for axis, before in ((1, top), (2, left))
    )  # fmt: skip
    return [top, max(below, 0), left, max(beside, 0)]


def _first_stage(boundary: str, names: Sequence[str]) -> int:
    """Return the number of the first stage that trains; the number of stages for the head alone."""
    if boundary == "all":
        return 0
    if boundary == HEAD:
        return len(names)
    return len(names) - 1 if boundary == "last_stage" else list(names).index(boundary)


def _reads_alike(source: FileSource) -> bool:
    """Return True if the script, which converts to RGB by Pillow alone, reads the files as they
    were read here: no deep grey, whose range depends on the file, and no names that a list of
    files in UTF-8 cannot hold."""
    if source.fit is not centre_square:
        return False
    paths = [one.path for split in SPLITS for one in source.images[split]]
    if not all(str(path).isprintable() for path in paths):
        return False
    return all(header.mode in PLAIN_MODES for header in image_headers(paths))


def _write_images(folder: Path, project: Project, cache: Path) -> str:
    """Write which images are used for what; return the name of the file."""
    dataset, source = project.dataset, project.dataset.source
    if project.images and isinstance(source, FileSource) and _reads_alike(source):
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["split", "class", "file"])
        for split in SPLITS:
            for image in source.images[split]:
                table.writerow(
                    [split, image.class_name, os.path.relpath(image.path, project.images)]
                )
        replace_text(folder / "splits.csv", text.getvalue())
        return "splits.csv"
    packed = pack(dataset, project.px, cache)
    parts = {"train": packed.train, "val": packed.val, "test": packed.test}
    arrays: dict[str, Any] = {f"{name}_images": part.images for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels for name, part in parts.items()}
    np.savez(folder / "images.npz", **arrays)
    return "images.npz"
