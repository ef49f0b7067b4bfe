"""The speed suites: which cases they have, and the task of a worker that times one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import get_args

from bench.catalog.backends import BACKENDS, OWN_STEP
from bench.catalog.policies import POLICIES
from bench.network.backbones import backbone as entry_of
from bench.network.export import blueprint_folder
from bench.network.weights import random_weights
from bench.spec.plain import plain_recipe
from bench.spec.run import CompileMode, Precision
from bench.system.gpu import gpus
from bench.workers.process import Interpreters
from bench.workers.tasks import OwnStepTask, SpeedMeasure, SpeedTask

MEASURES: tuple[SpeedMeasure, ...] = get_args(SpeedMeasure)
CLASSES = 100
LEARNING_RATE = 1e-4
"""Small, as training on noise at a usual rate may diverge."""
OWN_ROUNDS, OWN_STRETCHES = 5, 12
"""Steps in a window of a user's own step, and number of windows."""


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
    """Number of steps, and of batches of inference, in a window."""
    epochs: int
    epoch_steps: int
    stretches: int
    """Number of windows of steps, and of inference."""
    launches: int
    """Number of launches, where none is given. On a GPU a worker keeps the kernels that its first
    step chose, so that its steps are alike and those of another worker need not be."""
    measures: tuple[SpeedMeasure, ...] = MEASURES
    """Measures that are timed."""


POLICIES_TIMED = ("freeze_all", "fine_tune_last", "fine_tune_all")
SMALLEST = SuiteSize(
    ("squeezenet1_1",), ("freeze_all", "fine_tune_all"), ("fp32",),
    px=32, batch_sizes=(2,), rounds=2, epochs=1, epoch_steps=2, stretches=2, launches=1,
)  # fmt: skip
"""Just enough to check that the suite runs."""
USUAL_CPU = SuiteSize(
    ("efficientnet_lite0", "resnet50"), POLICIES_TIMED, ("fp32",),
    px=96, batch_sizes=(16,), rounds=10, epochs=3, epoch_steps=8, stretches=5, launches=1,
)  # fmt: skip
USUAL_GPU = SuiteSize(
    ("efficientnet_lite0", "resnet50", "vgg16"), POLICIES_TIMED, ("tf32", "bf16"),
    px=224, batch_sizes=(64, 256), rounds=50, epochs=3, epoch_steps=50, stretches=5, launches=3,
)  # fmt: skip
"""Precisions in which people train. IEEE float32 is for proofs."""


TRAINING: tuple[SpeedMeasure, ...] = ("train_step", "train_epoch")
SMALL_CPU = SuiteSize(
    ("squeezenet1_1",), ("fine_tune_last", "fine_tune_all"), ("fp32",),
    px=64, batch_sizes=(16,), rounds=5, epochs=6, epoch_steps=3, stretches=8, launches=6,
    measures=TRAINING,
)  # fmt: skip
"""Quick launches for the gate, whose unit is the launch: many short ones say more than few long.
Without inference, whose few milliseconds differ by 5 % between launches on 2 cores; training steps
by 1.5 to 2 %."""
SMALL_GPU = SuiteSize(
    ("resnet50",), ("fine_tune_all",), ("bf16",),
    px=224, batch_sizes=(64,), rounds=10, epochs=3, epoch_steps=10, stretches=6, launches=6,
    measures=TRAINING,
)  # fmt: skip
"""One case of some seconds: on an H200's host a launch takes 10 s before its first window."""
CALIBRATION_CPU = SuiteSize(
    ("squeezenet1_1",), ("fine_tune_last", "fine_tune_all"), ("fp32",),
    px=32, batch_sizes=(8,), rounds=5, epochs=6, epoch_steps=3, stretches=8, launches=6,
    measures=TRAINING,
)  # fmt: skip
"""The cases of the published calibration, which needs thousands of launches."""
SUITES = {
    "smallest": (SMALLEST, SMALLEST),
    "small": (SMALL_CPU, SMALL_GPU),
    "calibration": (CALIBRATION_CPU, SMALL_GPU),
    "usual": (USUAL_CPU, USUAL_GPU),
}
"""Name → sizes on a CPU and on a GPU."""


def suite_size(name: str, device: str) -> SuiteSize:
    """Return the size that a suite's name stands for on a device (cpu or cuda:N)."""
    on_cpu, on_gpu = SUITES[name]
    return on_cpu if device == "cpu" else on_gpu


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
class TimedCase:
    """A case with the task of the worker that times it."""

    name: str
    backend: str
    precision: Precision
    device: str
    task: SpeedTask | OwnStepTask
    shape: dict[str, object]
    """Properties that must agree where two measurements are compared: network, input, batch …"""

    @property
    def measures(self) -> tuple[SpeedMeasure, ...]:
        """Measures that are timed."""
        return self.task.measures if isinstance(self.task, SpeedTask) else ("train_step",)


def prepare(
    cases: Sequence[SpeedCase], size: SuiteSize, device: str, interpreters: Interpreters,
    cache: Path, *, details: bool = True,
) -> list[TimedCase]:  # fmt: skip
    """Export the networks of cases, each once, and return the cases with their tasks.

    Args:
        details: True to time single steps and their parts, too.

    Raises:
        Unavailable: The exporter is not available, or failed.
        UserError: The network cannot take this size.
    """
    folders = {}
    for backbone in dict.fromkeys(case.backbone for case in cases):
        weights = random_weights(entry_of(backbone, interpreters, cache))
        folders[backbone] = blueprint_folder(backbone, size.px, weights, 0, cache, interpreters)
    found = []
    for case in cases:
        recipe = plain_recipe("linear", size.px, case.batch_size)
        changes = {"precision": case.precision, "compile": case.compile, "momentum": 0.9,
                   "learning_rate": LEARNING_RATE}  # fmt: skip
        task = SpeedTask(
            blueprint=folders[case.backbone].name, policy=POLICIES[case.policy], device=device,
            classes=CLASSES, recipe=recipe.model_copy(update=changes), rounds=size.rounds,
            epochs=size.epochs, epoch_steps=size.epoch_steps, details=details,
            gpu_uuid=_uuid(device), measures=size.measures, stretches=size.stretches,
        )  # fmt: skip
        shape = {"backbone": case.backbone, "policy": case.policy, "px": size.px,
                 "batch_size": case.batch_size, "precision": case.precision,
                 "compile": case.compile, "rounds": size.rounds, "epoch_steps": size.epoch_steps,
                 "device": device}  # fmt: skip
        found.append(TimedCase(str(case), case.backend, case.precision, device, task, shape))
    return found


def own_step(file: Path, function: str, device: str) -> TimedCase:
    """Return the case of a user's own training step, see ``bench.speed.own_step``."""
    task = OwnStepTask(
        file=str(file),
        function=function,
        device=device,
        rounds=OWN_ROUNDS,
        stretches=OWN_STRETCHES,
        gpu_uuid=_uuid(device),
    )
    name = f"{file.name}:{function}"
    return TimedCase(name, OWN_STEP, "fp32", device, task, {"target": name, "device": device})


def _uuid(device: str) -> str | None:
    if device == "cpu":
        return None
    found, index = gpus(), int(device.removeprefix("cuda:"))
    return found[index].uuid if index < len(found) else None
