"""The programs that are compared, and how each is run: a process of its own, timed from outside."""

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
from bench.catalog.policies import BASE_LEARNING_RATE, POLICIES
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
"""Of a program that failed, in the message."""


@dataclass(frozen=True)
class Peer:
    """A program of ``tests.peers``."""

    name: str
    """In tables."""
    environment: str
    """Folder in ``.venv-peers``, and file in ``environments``."""
    module: str
    """In ``tests.peers``."""
    arguments: tuple[str, ...] = ()
    """Besides those that all get."""
    takes_packaged_weights: bool = False
    """Whether it reads EfficientNet-Lite0's packaged file."""
    is_variant: bool = False
    """Run in the first round alone, for accuracy, where there are pretrained weights."""


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
"""Of Thawbench."""


@dataclass(frozen=True)
class Question:
    """What every program is asked."""

    folder: Path
    """{train,val,test}/CLASS/*.jpg."""
    px: int
    """Height and width of the input."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images in a step."""
    whole: bool
    """Train all of the network, and measure images/s; else a frozen one, and the whole fit."""
    timeout_s: float
    """For one program."""


def interpreter(environment: str, chosen: dict[str, Path]) -> Path:
    """The Python of a peer's environment.

    Raises:
        UserError: It was not made, or not to the end.
    """
    made = Path(".venv-peers") / environment / ".installed"
    if environment in chosen:
        if not chosen[environment].is_file():
            raise UserError(
                f"--python {environment}: '{chosen[environment]}' is no interpreter.",
                f"Leave it out, and make {made} first.",
            )
        return chosen[environment]
    if not (project_root() / made).is_file():
        raise UserError(
            f"The environment of the peer {environment} is not there, or not whole.",
            f"Make it: make {made} (`make peers` makes them all).",
        )
    return project_root() / made.parent / "bin" / "python"


def weights_of(backbone: str) -> Path | None:
    """The packaged ImageNet weights that peers can read; None: random ones, time alone."""
    if backbone != "efficientnet_lite0":
        return None
    try:
        return pretrained_weights(backbone, BACKBONES[backbone], download=False).path
    except Unavailable as error:
        raise UserError(str(error)) from error


def run_peer(peer: Peer, backbone: str, question: Question, python: Path) -> dict[str, Any]:
    """A peer's answer, with ``whole_s``: the wall clock of the process."""
    weights = weights_of(backbone) if peer.takes_packaged_weights and not question.whole else None
    recipe = recipe_of(question)
    arguments = [
        str(question.folder), "--backbone", backbone, "--weights", str(weights or "random"),
        "--px", str(question.px), "--epochs", str(question.epochs),
        "--batch-size", str(question.batch_size), "--learning-rate", str(recipe["learning_rate"]),
        "--weight-decay", str(recipe["weight_decay"]),
        "--warmup-fraction", str(recipe["warmup_fraction"]),
        *(["--whole"] if question.whole else []), *peer.arguments,
    ]  # fmt: skip
    command = [str(python), "-m", f"tests.peers.{peer.module}", *arguments]
    began = time.perf_counter()
    output = _run(command, question.timeout_s)
    whole_s = time.perf_counter() - began
    return {**json.loads(output.splitlines()[-1]), "whole_s": whole_s}


def recipe_of(question: Question) -> dict[str, Any]:
    """The recipe that Thawbench has by default, which the peers are told."""
    grid = Grid(dataset="photos")
    policy = POLICIES["fine_tune_all" if question.whole else "freeze_all"]
    return {
        "optimizer": "adamw",
        "learning_rate": BASE_LEARNING_RATE["adamw"] * policy.learning_rate_scale,
        "weight_decay": grid.weight_decay,
        "schedule": "cosine",
        "warmup_fraction": grid.warmup_fraction,
        "augmentation": "none",
        "head": "linear",
        "px": question.px,
        "epochs": question.epochs,
        "batch_size": question.batch_size,
        "precision": "fp32",
    }


def run_thawbench(backend: str, backbone: str, question: Question, scratch: Path) -> dict[str, Any]:
    """Thawbench's answer: a cold command, then, of a frozen network, a warm one.

    Args:
        backend: Of Thawbench.
        backbone: With packaged weights, or random ones where there are none and with --whole.
        question: What is asked.
        scratch: An empty folder, for cache and results.

    Returns:
        ``whole_s``: wall clock of the command with an empty cache, process start and imports
        (also of the worker), packing, export of the network, test and report included.
        ``packing_s``: decoding the same images into another empty cache, just before. ``setup_s``,
        ``fit_s``, ``prefix_s``, ``start_s``: of ``result.json``. ``fit_and_packing_s``: packing,
        setup and fit, what a peer's ``fit_s`` covers. ``warm_whole_s``: wall clock of the same
        command again, where images, network and values of the frozen part are in the cache.
    """
    found: dict[str, Any] = {}
    name = f"folder:{question.folder}"
    if not question.whole:
        began = time.perf_counter()
        pack(open_dataset(name, SplitSizes(), cache_dir=scratch), question.px, scratch / "packing")
        found["packing_s"] = time.perf_counter() - began
    pretrained = not question.whole and weights_of(backbone) is not None
    command = [
        sys.executable, str(project_root() / "run_bench.py"), "run",
        "--datasets", name.replace(",", "\\,"), "--backbones", backbone, "--backends", backend,
        "--policies", "fine_tune_all" if question.whole else "freeze_all",
        "--px", str(question.px), "--epochs", str(question.epochs),
        "--batch-size", str(question.batch_size), "--fresh", "--device", "cpu",
        "--weights", "pretrained" if pretrained else "random", "--out", str(scratch / "out"),
    ]  # fmt: skip
    cache = {"THAWBENCH_CACHE": str(scratch / "cache")}
    for key in ("whole_s",) if question.whole else ("whole_s", "warm_whole_s"):
        began = time.perf_counter()
        _run(command, question.timeout_s, cache)
        found[key] = time.perf_counter() - began
        if key == "whole_s":
            found.update(_stored(scratch / "out", question))
    if not question.whole:
        found["fit_and_packing_s"] = found["packing_s"] + found["setup_s"] + found["fit_s"]
    return found


def _stored(out: Path, question: Question) -> dict[str, Any]:
    """What the only run in a results folder found, its test images in the order of peers.

    Raises:
        UserError: It cannot be read, or was no run of the recipe that the peers were told.
    """
    runs, problems = Store(out).load()
    if len(runs) != 1:
        raise UserError(f"{out} holds {len(runs)} runs, not one. {' '.join(problems)}".strip())
    (run,) = runs
    _check_recipe(run.spec.recipe, question)
    keys = ("fit_s", "setup_s", "prefix_s", "start_s", "test_top1", "prefix_values", "prefix_form",
            "train_images_per_s", "train_images_per_s_windows", "notes", "knobs")  # fmt: skip
    result = run.result.model_dump(mode="json")
    found = {key: result[key] for key in keys}
    if not question.whole:
        dataset = open_dataset(f"folder:{question.folder}", SplitSizes(), cache_dir=cache_root())
        labels = dataset.source.labels("test")
        with np.load(run.folder / "predictions.npz") as stored:
            if not np.array_equal(stored["labels"], labels):
                raise UserError(f"{run.folder}: its test labels are not those of the images.")
            correct = stored["logits"].argmax(1) == labels
        files = [dataset.source.where("test", index) for index in range(len(labels))]
        found.update(in_path_order(files, correct))
    environment = run.environment
    versions = {"python": environment.python, **environment.packages}
    return {**found, "versions": {**versions, "thawbench": environment.thawbench}}


def _check_recipe(recipe: Recipe, question: Question) -> None:
    told = recipe_of(question)
    differing = [key for key, value in told.items() if getattr(recipe, key) != value]
    if differing:
        raise UserError(
            f"Thawbench's recipe is not what the peers were told: {', '.join(differing)}.",
            "Mend recipe_of in tests/peers/programs.py.",
        )


def _run(command: Sequence[str], timeout_s: float, variables: Mapping[str, str] = NONE) -> str:
    """Standard output of a program; whatever ends this, its own processes end with it.

    All run on the CPU, where the end of a step is seen without asking a device.

    Raises:
        UserError: It took too long, or failed.
    """
    shown = " ".join(command)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project_root(),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables},
        start_new_session=True,
    ) as process:
        try:
            output, log = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"No answer after {timeout_s:g} s: {shown}",
                f"Give it more, --timeout {2 * timeout_s:g}, or ask for less: --images, --epochs.",
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        last = "\n".join(log.strip().splitlines()[-LOG_LINES:])
        raise UserError(f"It failed with exit code {process.returncode}: {shown}\n{last}")
    return output
