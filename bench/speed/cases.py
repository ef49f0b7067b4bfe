"""The speed suite: its cases, and timing one in a worker. ``tests/speed`` runs it with
pytest-benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.backbones import backbone as entry_of
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.spec.plain import plain_recipe
from bench.spec.run import CompileMode, Precision
from bench.system import OtherWork, core_times
from bench.system.gpu import GpuState, state
from bench.workers.pool import WorkerKind, WorkerPool
from bench.workers.process import Interpreters, fresh_log
from bench.workers.tasks import SpeedAnswer, SpeedTask

SpeedMeasure = Literal["train_step", "train_epoch", "inference"]
MEASURES: tuple[SpeedMeasure, ...] = ("train_step", "train_epoch", "inference")
SizeName = Literal["smallest", "usual"]
CLASSES = 100
LEARNING_RATE = 1e-4
"""Small, as training on noise at a usual rate may diverge."""


@dataclass(frozen=True)
class SuiteSize:
    """The extent of a speed suite."""

    backbones: tuple[str, ...]
    """Names in the catalogue; weights are random, as speed does not depend on them."""
    policies: tuple[str, ...]
    """Policies, trained in whole steps: no values of a frozen prefix are cached."""
    precisions: tuple[Precision, ...]
    px: int
    batch_sizes: tuple[int, ...]
    rounds: int
    """Number of steps, and of inferences, to time in a worker."""
    epochs: int
    epoch_steps: int
    workers: int
    """Number of workers that time each case. On a GPU a worker keeps the kernels that its first
    step chose, so that its steps are alike and those of another worker need not be."""


POLICIES_TIMED = ("freeze_all", "fine_tune_last", "fine_tune_all")
SMALLEST = SuiteSize(
    ("squeezenet1_1",), ("freeze_all", "fine_tune_all"), ("fp32",),
    px=32, batch_sizes=(2,), rounds=2, epochs=1, epoch_steps=2, workers=1,
)  # fmt: skip
"""Just enough to check that the suite runs."""
USUAL_CPU = SuiteSize(
    ("efficientnet_lite0", "resnet50"), POLICIES_TIMED, ("fp32",),
    px=96, batch_sizes=(16,), rounds=10, epochs=3, epoch_steps=8, workers=1,
)  # fmt: skip
USUAL_GPU = SuiteSize(
    ("efficientnet_lite0", "resnet50", "vgg16"), POLICIES_TIMED, ("tf32", "bf16"),
    px=224, batch_sizes=(64, 256), rounds=50, epochs=3, epoch_steps=50, workers=3,
)  # fmt: skip
"""Precisions in which people train. IEEE float32 is for proofs."""


def suite_size(name: SizeName, device: str) -> SuiteSize:
    """Return the size that a name stands for on a device (cpu or cuda:N)."""
    if name == "smallest":
        return SMALLEST
    return USUAL_CPU if device == "cpu" else USUAL_GPU


@dataclass(frozen=True)
class SpeedCase:
    """One network, trained by one policy in one precision by one backend."""

    backbone: str
    policy: str
    precision: Precision
    batch_size: int
    compile: CompileMode
    backend: str

    def __str__(self) -> str:
        words = (self.backbone, self.policy, self.precision, f"batch{self.batch_size}")
        compiled = ("compiled",) if self.compile == "compiled" else ()
        return "-".join((*words, *compiled, self.backend))


def cases(
    size: SuiteSize, backends: Sequence[str], compiles: Sequence[CompileMode] = ("plain",)
) -> list[SpeedCase]:
    """Return all cases of a size, backends innermost: those to compare are timed in sequence. A
    backend that always compiles has cases of that kind alone."""
    axes = size.backbones, size.policies, size.precisions, size.batch_sizes, compiles, backends
    found = []
    for case in (SpeedCase(*each) for each in product(*axes)):
        if BACKENDS[case.backend].always_compiled:
            case = replace(case, compile="compiled")
        found.append(case)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class SpeedMeasurement:
    """A case as one worker timed it, with the state of the machine around it."""

    answer: SpeedAnswer
    gpu_before: GpuState | None
    """State of the GPU before the case; None on a CPU, or if it is not told."""
    gpu_after: GpuState | None
    other_work: OtherWork | None
    """Use of the machine's cores meanwhile; None if it is not told."""


def time_case(
    case: SpeedCase, size: SuiteSize, device: str, workers: WorkerPool, interpreters: Interpreters,
    cache: Path,
) -> SpeedMeasurement:  # fmt: skip
    """Time a case in a worker of the pool; the durations are measured there.

    Raises:
        Unavailable: The backend, device or precision is not available, or the worker failed.
        UserError: The network cannot take this size.
    """
    entry = entry_of(case.backbone, interpreters, cache)
    weights = random_weights(entry)
    folder = blueprint_folder(case.backbone, size.px, weights, 0, cache, interpreters)
    recipe = plain_recipe("linear", size.px, case.batch_size)
    changes = {"precision": case.precision, "compile": case.compile, "momentum": 0.9,
               "learning_rate": LEARNING_RATE}  # fmt: skip
    task = SpeedTask(
        blueprint=folder.name, policy=POLICIES[case.policy], device=device, classes=CLASSES,
        recipe=recipe.model_copy(update=changes), rounds=size.rounds, epochs=size.epochs,
        epoch_steps=size.epoch_steps,
    )  # fmt: skip
    kind = WorkerKind(case.backend, device, "matched", case.precision)
    log = fresh_log(cache, f"speed-{case}")
    gpu_before, before = _gpu_state(device, workers.pids), core_times()
    answer = workers.do(kind, task, log).require(f"timing {case}", log)
    after = core_times()
    work = None if before is None or after is None else before.others(after)
    return SpeedMeasurement(answer, gpu_before, _gpu_state(device, workers.pids), work)


def _gpu_state(device: str, ours: Sequence[int] = ()) -> GpuState | None:
    return None if device == "cpu" else state(int(device.removeprefix("cuda:")), ours)
