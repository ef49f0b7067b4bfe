"""The compared programs, each run in its own process and timed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.catalog.backbones import BACKBONES
from bench.catalog.policies import POLICIES, default_rate
from bench.data import SplitSizes, open_dataset, pack
from bench.errors import Unavailable, UserError
from bench.network.weights import pretrained_weights
from bench.runner.suite import Grid
from bench.spec.run import Recipe
from bench.storage.cache import cache_root
from bench.storage.results import Store
from bench.system import project_root
from tests.peers.answer import in_path_order

NONE: Mapping[str, str] = MappingProxyType({})
LOG_LINES = 15
"""Number of log lines of a failed program in the message."""


@dataclass(frozen=True)
class Peer:
    """A program of ``tests.peers``."""

    name: str
    """Name in tables."""
    environment: str
    """Name of its folder in ``.venv-peers`` and its file in ``environments``."""
    module: str
    """Module in ``tests.peers``."""
    arguments: tuple[str, ...] = ()
    """Arguments besides those of all peers."""
    takes_packaged_weights: bool = False
    """True if it reads EfficientNet-Lite0's packaged file."""
    is_variant: bool = False
    """True if it is only run in the first round, to compare accuracy with pretrained weights."""


PEERS = (
    Peer("keras", "keras", "keras_flow"),
    Peer("torch", "torch", "torch_tutorial", takes_packaged_weights=True),
    Peer("fastai", "fastai", "fastai_learner", takes_packaged_weights=True),
    Peer(
        "torch, frozen statistics",
        "torch",
        "torch_tutorial",
        ("--frozen-statistics",),
        takes_packaged_weights=True,
        is_variant=True,
    ),
    Peer(
        "fastai, frozen statistics",
        "fastai",
        "fastai_learner",
        ("--frozen-statistics",),
        takes_packaged_weights=True,
        is_variant=True,
    ),
)
BACKENDS = ("torch", "keras-tensorflow")
"""Backends of Thawbench."""


@dataclass(frozen=True)
class Experiment:
    """The data and recipe of every program."""

    folder: Path
    """Folder that holds {train,val,test}/CLASS/*.jpg."""
    px: int
    """Height and width of the input, in pixels."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step."""
    whole: bool
    """True: train the whole network and measure images/s. False: measure the fit of a frozen
    one."""
    timeout_s: float
    """Time limit of one program."""
    device: str = "cpu"
    """cpu or cuda:0; without a name, every peer takes the first GPU that it sees."""


def interpreter(environment: str, chosen: dict[str, Path]) -> Path:
    """Return the interpreter of a peer's environment.

    Raises:
        UserError: The environment is missing or incomplete.
    """
    made = Path(".venv-peers") / environment / ".installed"
    if environment in chosen:
        if not chosen[environment].is_file():
            raise UserError(
                f"--python {environment}: '{chosen[environment]}' is no interpreter.",
                f"Leave it out, and run: make {made}.",
            )
        return chosen[environment]
    if not (project_root() / made).is_file():
        raise UserError(
            f"The environment of the peer {environment} is missing or incomplete.",
            f"Run: make {made} (`make peers` makes all of them).",
        )
    return project_root() / made.parent / "bin" / "python"


def weights_of(backbone: str) -> Path | None:
    """Return the packaged ImageNet weights that peers can read; None: use random ones and compare
    times only."""
    if backbone != "efficientnet_lite0":
        return None
    try:
        return pretrained_weights(backbone, BACKBONES[backbone], download=False).path
    except Unavailable as error:
        raise UserError(str(error)) from error


def run_peer(peer: Peer, backbone: str, experiment: Experiment, python: Path) -> dict[str, Any]:
    """Run a peer; return its answer and ``whole_s``, the wall clock of the process."""
    weights = weights_of(backbone) if peer.takes_packaged_weights and not experiment.whole else None
    recipe = recipe_of(experiment)
    arguments = [
        str(experiment.folder), "--backbone", backbone, "--weights", str(weights or "random"),
        "--px", str(experiment.px), "--epochs", str(experiment.epochs),
        "--batch-size", str(experiment.batch_size), "--learning-rate", str(recipe["learning_rate"]),
        "--weight-decay", str(recipe["weight_decay"]),
        "--warmup-fraction", str(recipe["warmup_fraction"]),
        *(["--whole"] if experiment.whole else []), *peer.arguments,
    ]  # fmt: skip
    command = [str(python), "-m", f"tests.peers.{peer.module}", *arguments]
    began = time.perf_counter()
    output = _run(command, experiment.timeout_s, device=experiment.device)
    whole_s = time.perf_counter() - began
    return {**json.loads(output.splitlines()[-1]), "whole_s": whole_s}


def recipe_of(experiment: Experiment) -> dict[str, Any]:
    """Return Thawbench's default recipe, which the peers use too."""
    grid = Grid(dataset="photos")
    policy = POLICIES["fine_tune_all" if experiment.whole else "freeze_all"]
    return {
        "optimizer": "adamw",
        "learning_rate": default_rate(policy.name, "adamw"),
        "weight_decay": grid.weight_decay,
        "schedule": "cosine",
        "warmup_fraction": grid.warmup_fraction,
        "augmentation": "none",
        "head": "linear",
        "px": experiment.px,
        "epochs": experiment.epochs,
        "batch_size": experiment.batch_size,
        "precision": "fp32",
    }


def run_thawbench(
    backend: str, backbone: str, experiment: Experiment, scratch: Path
) -> dict[str, Any]:
    """Run Thawbench with an empty cache and, for a frozen network, once more with a filled one.

    Args:
        backend: Backend of Thawbench.
        backbone: Backbone; with packaged weights if there are any and ``whole`` is False.
        experiment: Data and recipe.
        scratch: An empty folder for cache and results.

    Returns:
        ``whole_s``: wall clock of the command with an empty cache, including process start and
        imports (also of the worker), packing, export of the network, test and report.
        ``packing_s``: time to decode the same images into another empty cache, just before.
        ``setup_s``, ``fit_s``, ``prefix_s``, ``start_s``: from ``result.json``.
        ``fit_and_packing_s``: packing, setup and fit, which a peer's ``fit_s`` covers.
        ``warm_whole_s``: wall clock of the same command again, with images, network and values of
        the frozen part in the cache.
    """
    found: dict[str, Any] = {}
    name = f"folder:{experiment.folder}"
    if not experiment.whole:
        began = time.perf_counter()
        pack(
            open_dataset(name, SplitSizes(), cache_dir=scratch), experiment.px, scratch / "packing"
        )
        found["packing_s"] = time.perf_counter() - began
    pretrained = not experiment.whole and weights_of(backbone) is not None
    command = [
        sys.executable, str(project_root() / "run_bench.py"), "run",
        "--datasets", name.replace(",", "\\,"), "--backbones", backbone, "--backends", backend,
        "--policies", "fine_tune_all" if experiment.whole else "freeze_all",
        "--px", str(experiment.px), "--epochs", str(experiment.epochs),
        "--batch-size", str(experiment.batch_size), "--fresh", "--device", experiment.device,
        "--weights", "pretrained" if pretrained else "random", "--out", str(scratch / "out"),
    ]  # fmt: skip
    cache = {"THAWBENCH_CACHE": str(scratch / "cache")}
    for key in ("whole_s",) if experiment.whole else ("whole_s", "warm_whole_s"):
        began = time.perf_counter()
        _run(command, experiment.timeout_s, cache, experiment.device)
        found[key] = time.perf_counter() - began
        if key == "whole_s":
            found.update(_stored(scratch / "out", experiment))
    if not experiment.whole:
        found["fit_and_packing_s"] = found["packing_s"] + found["setup_s"] + found["fit_s"]
    return found


def _stored(out: Path, experiment: Experiment) -> dict[str, Any]:
    """Return the results of the only run in a folder, with test images in the order of the peers.

    Raises:
        UserError: The run cannot be read, or its recipe is not that of the peers.
    """
    runs, problems = Store(out).load()
    if len(runs) != 1:
        raise UserError(f"{out} holds {len(runs)} runs, not one. {' '.join(problems)}".strip())
    (run,) = runs
    _check_recipe(run.spec.recipe, experiment)
    keys = ("fit_s", "setup_s", "prefix_s", "start_s", "test_top1", "prefix_values", "prefix_form",
            "train_images_per_s", "train_images_per_s_windows", "notes", "knobs")  # fmt: skip
    result = run.result.model_dump(mode="json")
    found = {key: result[key] for key in keys}
    if not experiment.whole:
        dataset = open_dataset(f"folder:{experiment.folder}", SplitSizes(), cache_dir=cache_root())
        labels = dataset.source.labels("test")
        with np.load(run.folder / "predictions.npz") as stored:
            if not np.array_equal(stored["labels"], labels):
                raise UserError(
                    f"{run.folder}: the test labels do not match the images in the folder."
                )
            correct = stored["logits"].argmax(1) == labels
        files = [dataset.source.where("test", index) for index in range(len(labels))]
        found.update(in_path_order(files, correct))
    environment = run.environment
    versions = {"python": environment.python, **environment.packages}
    return {**found, "versions": {**versions, "thawbench": environment.thawbench}}


def _check_recipe(recipe: Recipe, experiment: Experiment) -> None:
    expected = recipe_of(experiment)
    differing = [key for key, value in expected.items() if getattr(recipe, key) != value]
    if differing:
        raise UserError(
            f"Thawbench's recipe differs from that of the peers: {', '.join(differing)}.",
            "Correct recipe_of in tests/peers/programs.py.",
        )


def _run(
    command: Sequence[str], timeout_s: float, variables: Mapping[str, str] = NONE,
    device: str = "cpu",
) -> str:  # fmt: skip
    """Run a program on a device and return its standard output; kill its processes in any case.

    Raises:
        UserError: The program took too long or failed.
    """
    shown = " ".join(command)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project_root(),
        env={
            **os.environ,
            **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
            **variables,
        },
        start_new_session=True,
    ) as process:
        try:
            output, log = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"No answer after {timeout_s:g} s: {shown}",
                f"Allow more time, --timeout {2 * timeout_s:g}, or use less: --images, --epochs.",
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        last = "\n".join(log.strip().splitlines()[-LOG_LINES:])
        raise UserError(f"Exit code {process.returncode} of: {shown}\n{last}")
    return output
