"""Results folders of made-up runs: a usual grid, hostile names, two machines, an upgrade.

Each function makes results folders below an empty folder, and returns them in the order of
``report``'s arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalog.cases import CASES
from bench.catalog.policies import DEFAULT_POLICIES, POLICIES
from bench.parity.proofs import write_copy
from bench.spec.result import RunResult
from bench.spec.run import Environment, RunSpec
from bench.storage.results import Store
from bench.training.metrics import calibration_error, cross_entropy, top1
from bench.training.predictions import FILE, image_answers
from tests.conftest import ENVIRONMENT, SPEC, merged
from tests.unit.pairs import pair

Fields = dict[str, Any]

BACKENDS = ("torch", "keras-tensorflow")
BACKBONES = ("efficientnet_lite0", "squeezenet1_1")
CLASSES = tuple(f"class {letter}" for letter in "abcdefghijklmnopqr")
IMAGES, SMALL = 1_080, 38
"""Number of test images, and of those of ``small``."""
DATA: dict[int, tuple[str, int]] = {
    1: ("photos", 216), 2: ("photos", 1_980), 3: ("photos", 720), 4: ("mnist5k", 2_520),
}  # fmt: skip
"""Case → data set and training images."""
SKILL = {"freeze_all": 0.80, "fine_tune_last": 0.84, "fine_tune_all": 0.85, "retrain_all": 0.845,
         "discriminative_lr": 0.85, "from_scratch": 0.45}  # fmt: skip
"""Policy → about the fraction of test images that it gets right."""
SECONDS = {"freeze_all": 6.0, "fine_tune_last": 14.0, "from_scratch": 41.0}
"""Policy → about the seconds of its fit; 40 for all others."""
VERSIONS = {
    "torch": {"numpy": "2.4.6", "torch": "2.14.1", "torchvision": "0.29.1"},
    "keras-tensorflow": {"numpy": "2.4.6", "keras": "3.15.1", "tensorflow": "2.21.0"},
}
KNOBS: dict[str, Fields] = {
    "torch": {"layout": "channels_last", "threads": 2, "compilation": None, "tf32": False},
    "keras-tensorflow": {"layout": "NHWC", "threads": 2, "compilation": "XLA", "tf32": False},
}
LOG = "".join(f"epoch {n} of 12: train loss {2 / n:.4f}, val top-1 {1 - 1 / (n + 1):.4f}\n"
              for n in range(1, 13))  # fmt: skip
LOSSES: dict[str, Fields] = {
    "oom": {"kind": "SIGKILL", "message": "memory ran out"},
    "crashed": {"kind": "ValueError", "message": "no such layer"},
    "unavailable": {"kind": "weights", "message": "no weights here; get them: make weights"},
}

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"' onmouseover=alert(3) x='",
    "{{ 7 * 7 }} {% raw %}",
    "<!--<script>",
    "&lt;b&gt; & \u2028 \u2029",
    "javascript:alert(4)",
    "</textarea></style></title><h1>big</h1>",
    "__proto__",
    '<a href="javascript:alert(7)">x</a><b>bold</b>',
)
"""Names that a folder of images or a user's own network could have."""
HOSTILE_FOLDERS = ("<img src=x onerror=alert(5)>", "\"' onfocus=alert(6) autofocus='")
"""Names of results folders, without slashes."""
NOT_UTF_8 = "folder-\udcff"
"""A folder name that is not UTF-8, as Python reads it."""


def usual(folder: Path) -> list[Path]:
    """Make sixteen runs: four cases, two policies, two backends; one ran out of memory."""
    grid = product(CASES, BACKBONES[:1], ("freeze_all", "fine_tune_all"), [0], BACKENDS)
    _fill(folder, grid, {5: "oom"})
    return [folder]


def few(folder: Path) -> list[Path]:
    """Make the smallest report that has everything: two policies, two backends, three seeds, few
    classes, one failure, and a proof."""
    data = {"classes": ["a", "b", "c"]}
    grid = product([3], BACKBONES[:1], ("freeze_all", "fine_tune_all"), range(3), BACKENDS)
    found = _fill(folder, grid, {11: "crashed"}, dataset=data)
    about = {"backbone": BACKBONES[0], "network_digest": None, "policy": "freeze_all",
             "boundary": "head", "policy_digest": POLICIES["freeze_all"].digest}  # fmt: skip
    proved = pair(**about, environments=tuple(found))
    write_copy([proved], folder)
    return [folder]


def many(folder: Path, count: int) -> list[Path]:
    """Make four cases, two networks, six policies, three seeds and two backends, and a third
    network in one case. Three failed. Runs beyond these 300 have other numbers of epochs."""
    grid = list(product(CASES, BACKBONES, DEFAULT_POLICIES, range(3), BACKENDS))
    grid += product([1], ["vgg16"], DEFAULT_POLICIES, [0], BACKENDS)
    lost = {40: "oom", 77: "crashed", 130: "unavailable"}
    for start in range(0, count, len(grid)):
        part = grid[: count - start]
        _fill(folder, part, lost, recipe={"epochs": 12 + start // len(grid)}, first=start)
    return [folder]


def small(folder: Path) -> list[Path]:
    """Make three policies on a folder with 38 test images."""
    data = {"name": "folder:flowers", "label": "folder:flowers", "test_images": SMALL,
            "train_images": 174, "val_images": 38}  # fmt: skip
    policies = ("freeze_all", "fine_tune_last", "fine_tune_all")
    _fill(folder, product([1], BACKBONES[:1], policies, [0], BACKENDS), dataset=data)
    return [folder]


def networks(folder: Path) -> list[Path]:
    """Make four networks under two policies on a GPU, in one backend."""
    names = ("alexnet", "vgg16", "resnet50", "resnet152")
    gpu = {"device": "cuda:0", "device_model": "A GPU", "driver": "570.1"}
    grid = product([1], names, ("freeze_all", "fine_tune_all"), [0], BACKENDS[:1])
    _fill(folder, grid, device="cuda:0", environment=gpu, speed=20.0)
    return [folder]


def machines(folder: Path) -> list[Path]:
    """Make the same grid on a CPU and a GPU, with policies that tie."""
    gpu = {"device": "cuda:0", "device_model": "A GPU", "driver": "570.1"}
    grid = list(product([4], BACKBONES[:1], ("fine_tune_all", "retrain_all"), range(3), BACKENDS))
    _fill(folder, grid)
    _fill(folder, grid, device="cuda:0", environment=gpu, speed=20.0, first=len(grid))
    return [folder]


def sweep(folder: Path) -> list[Path]:
    """Make two policies in two backends, with six learning rates each."""
    grid = list(product([1], BACKBONES[:1], ("fine_tune_all", "retrain_all"), [0], BACKENDS))
    for number in range(6):
        recipe = {"learning_rate": 0.001 * 2**number}
        _fill(folder, grid, recipe=recipe, first=number * len(grid))
    return [folder]


def failed(folder: Path) -> list[Path]:
    """Make failed runs only."""
    grid = product([1], BACKBONES, ("freeze_all",), [0], BACKENDS)
    _fill(folder, grid, dict(enumerate(("oom", "crashed", "unavailable", "oom"))))
    return [folder]


def upgrade(folder: Path) -> list[Path]:
    """Make two folders: the second machine is twice as fast, equally accurate, and lost a run."""
    folders = [folder / name for name in HOSTILE_FOLDERS]
    policies = ("fine_tune_last", "fine_tune_all", "retrain_all")
    grid = list(product([1], BACKBONES[:1], policies, range(3), BACKENDS[:1]))
    _fill(folders[0], grid)
    newer = {"variables": {HOSTILE[1]: HOSTILE[0]}, "processor": HOSTILE[1]}
    _fill(folders[1], grid, {11: "crashed"}, environment=newer, speed=2.0, first=len(grid))
    return folders


def hostile(folder: Path) -> list[Path]:
    """Make four runs for each name of ``HOSTILE``, which is used for everything that has a name;
    one of the four failed."""
    store = Store(folder)
    for number, name in enumerate(HOSTILE):
        own = {"backbone": f"module:{name}.py:{name}", "code_sha256": "0f" * 32}
        grid = list(product(("freeze_all", "fine_tune_all"), BACKENDS))
        for place, (policy, backend) in enumerate(grid):
            changes: Fields = {
                "case": {"dataset": {"name": f"folder:{name}", "label": f"folder:{name}",
                                     "classes": [*HOSTILE, "b"], "content_hash": f"{number}" * 64}},
                "policy": {**POLICIES[policy].model_dump(), "boundary": name},
                "backend": backend, "weights": {"kind": "file", "source": name},
                **(own if number % 2 else {"backbone": name}),
            }  # fmt: skip
            made = _Run(changes, number=10 * number + place, skill=0.6 + 0.1 * place)
            made.environment = {"processor": name, "device_model": name, "variables": {name: name}}
            made.knobs, made.log = {name: name}, "\n".join(HOSTILE)
            if place == 3:
                made.failure = ("crashed", {"kind": name, "message": f"at {name} in {NOT_UTF_8}"})
            made.save(store)
        (folder / "runs" / name.replace("/", "")[:40] / NOT_UTF_8).mkdir(parents=True)
    return [folder]


class _Run:
    """A made-up run, random by its number."""

    def __init__(
        self, changes: Fields, number: int, skill: float = 0.8, fit_s: float = 20.0
    ) -> None:
        self.spec = RunSpec.model_validate(merged(SPEC, changes))
        self.environment: Fields = {}
        self.knobs = KNOBS[self.spec.backend]
        self.log = LOG
        self.failure: tuple[str, Fields] | None = None
        self._random = np.random.default_rng(number)
        self._skill = skill
        self._fit_s = fit_s

    def save(self, store: Store) -> str:
        """Save it into a results folder; return its environment id."""
        spec, folder = self.spec, store.partial_folder()
        where = {"backend": spec.backend, "packages": VERSIONS[spec.backend],
                 "variables": {"OMP_NUM_THREADS": "2"}}  # fmt: skip
        environment = Environment.model_validate(
            merged(merged(ENVIRONMENT, where), self.environment)
        )
        fields = {"run_id": spec.run_id, "environment_id": environment.environment_id}
        (folder / "log.txt").write_text(self.log, encoding="utf-8")
        if self.failure is not None:
            status, failure = self.failure
            fields |= {"status": status, "failure": failure}
        else:
            fields |= {"status": "ok", "knobs": self.knobs, **self._answered(folder)}
            fields |= self._measured()
        store.save(spec, environment, RunResult.model_validate(fields), folder)
        return environment.environment_id

    def _answered(self, folder: Path) -> Fields:
        """Write predictions, in which some images are hard for every run; return their scores."""
        classes = len(self.spec.case.dataset.classes)
        images = SMALL if self.spec.case.dataset.test_images == SMALL else IMAGES
        labels = np.arange(images) % classes
        hard = np.random.default_rng(0).random(images)
        right = hard + self._random.normal(0, 0.05, images) < self._skill
        said = np.where(right, labels, (labels + self._random.integers(1, 3, images)) % classes)
        logits = np.eye(classes, dtype=np.float32)[said] * self._random.normal(4, 1, (images, 1))
        np.savez(folder / FILE, logits=logits.astype(np.float32), labels=labels)
        accuracy = top1(logits, labels)
        # scikit-learn's metrics would take longer than everything else.
        return {"test_top1": accuracy, "test_loss": cross_entropy(logits, labels),
                "test_balanced_accuracy": accuracy, "test_macro_f1": accuracy - 0.002,
                "test_answers": image_answers(logits, labels),
                "test_calibration_error": calibration_error(logits, labels)}  # fmt: skip

    def _measured(self) -> Fields:
        """Return times and rates: of whole steps, or effective ones if only a head is trained."""
        epochs, fit_s = self.spec.recipe.epochs, self._fit_s * self._random.normal(1, 0.02)
        rate = epochs * self.spec.case.dataset.train_images / fit_s
        is_head = self.spec.policy.boundary == "head"
        windows = [] if is_head else (rate * self._random.normal(1, 0.03, 20)).tolist()
        peak = "peak_host_bytes" if self.spec.device == "cpu" else "peak_device_bytes"
        return {
            "val_top1_by_epoch": (self._skill * (1 - 0.5 ** np.arange(1, epochs + 1))).tolist(),
            "train_loss_by_epoch": (2 / np.arange(1, epochs + 1)).tolist(),
            "total_parameters": 3_394_082, "frozen_parameters": 3_371_024,
            "trainable_parameters": 23_058 if is_head else 3_394_082, "state_values": 42_016,
            "forward_multiply_adds": 31_000_000, "backward_multiply_adds": 62_000_000,
            "train_images_per_s": float(np.median(windows)) if windows else None,
            "train_images_per_s_windows": windows,
            "effective_images_per_s": rate if is_head else None,
            "prefix_values": "computed" if is_head else None,
            "prefix_s": fit_s / 2 if is_head else None,
            "infer_images_per_s": 4 * rate, "step_s_p50": 0.31, "step_s_p95": 0.35,
            "input_wait_fraction": 0.02, "setup_s": 1.5, "start_s": 4.0, "compile_s": 2.25,
            "fit_s": fit_s, "test_s": 3.25, peak: int(1e9 * self._random.normal(1, 0.02)),
            "initial_state_sha256": "ab" * 32, "batches_sha256": "cd" * 32,
            "blueprint_sha256": "ef" * 32,
        }  # fmt: skip


def _fill(
    folder: Path,
    grid: Iterable[tuple[int, str, str, int, str]],
    lost: dict[int, str] | None = None,
    *,
    first: int = 0,
    speed: float = 1.0,
    device: str = "cpu",
    environment: Fields | None = None,
    dataset: Fields | None = None,
    recipe: Fields | None = None,
) -> list[str]:
    """Save a run of each case, network, policy, seed and backend; returns their environments."""
    store, environments = Store(folder), {}
    for number, (case, backbone, policy, seed, backend) in enumerate(grid, first):
        size, similarity = CASES[case]
        name, images = DATA[case]
        changes: Fields = {
            "case": {"number": case, "size": size, "similarity": similarity,
                     "dataset": {"name": name, "label": f"{name} (stand-in)",
                                 "train_images": images, "classes": list(CLASSES),
                                 "content_hash": f"{case}" * 64, **(dataset or {})}},
            "backbone": backbone, "policy": POLICIES[policy].model_dump(), "seed": seed,
            "backend": backend, "device": device, "recipe": recipe or {},
        }  # fmt: skip
        if policy == "from_scratch":
            changes["weights"] = {"kind": "random", "source": "random", "sha256": None}
        fit_s = SECONDS.get(policy, 40.0) * (1.0 if backend == "torch" else 1.1) / speed
        run = _Run(changes, number, SKILL[policy] + 0.01 * (backbone == BACKBONES[1]), fit_s)
        run.environment = environment or {}
        if status := (lost or {}).get(number):
            run.failure = (status, LOSSES[status])
        environments[run.save(store)] = None
    return list(environments)
