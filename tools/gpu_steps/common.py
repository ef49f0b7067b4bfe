"""The options, findings and network that all steps of the check share."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalog.policies import POLICIES
from bench.network.backbones import backbone as entry_of
from bench.network.blueprint import Network
from bench.network.export import blueprint_folder
from bench.network.freezing import TrainingPlan, plan_training
from bench.network.head import attach_head
from bench.network.weights import random_weights
from bench.spec.plain import plain_recipe
from bench.spec.run import CompileMode, Precision, Recipe
from bench.storage.cache import cache_root
from bench.workers.process import Interpreters

CLASSES = 100
LEARNING_RATE = 1e-4
"""Small, as training on noise at a usual rate may diverge."""
DEADLINE_VARIABLE = "GPU_CHECK_DEADLINE"
"""Environment variable of a step: the time, in seconds since the epoch, at which it is ended."""
FAILED = "FAILED"
"""First word of a finding that is an exception."""
MOST_WORDS = 600
"""Characters of an exception that are kept."""
Findings = dict[str, Any]
"""The findings of a step, as JSON."""


@dataclass(frozen=True)
class StepOptions:
    """The options of a step."""

    device: str
    """cpu or cuda:N."""
    small: bool
    """True for a dry run: small networks, few repetitions."""
    work: Path
    """Folder for scratch, and for the findings of each step."""
    backend: str = "torch"
    cases: tuple[str, ...] = ()
    """Cases as 'PRECISION:BATCH' or 'PRECISION:BATCH:compiled'."""
    profiled: str = ""
    """The case whose kernels are listed."""

    @property
    def on_gpu(self) -> bool:
        """True on a GPU."""
        return self.device != "cpu"

    @property
    def px(self) -> int:
        """Height and width of the images."""
        return 64 if self.small else 224


@dataclass(frozen=True)
class StepCase:
    """A case of training: precision, batch size and rung."""

    precision: Precision
    batch_size: int
    compile: CompileMode

    @classmethod
    def parse(cls, text: str, small: bool) -> StepCase:
        """Read 'PRECISION:BATCH' or 'PRECISION:BATCH:compiled'; a dry run has batches of 4."""
        precision, batch_size, *rung = text.split(":")
        compile_mode: CompileMode = "compiled" if rung == ["compiled"] else "plain"
        size = 4 if small else int(batch_size)
        return cls(precision, size, compile_mode)  # type: ignore[arg-type]

    def recipe(self, px: int) -> Recipe:
        """Return the recipe of a step of SGD with momentum."""
        changes = {"precision": self.precision, "compile": self.compile, "momentum": 0.9,
                   "learning_rate": LEARNING_RATE}  # fmt: skip
        return plain_recipe("linear", px, self.batch_size).model_copy(update=changes)


@contextlib.contextmanager
def noted(found: Findings, key: str) -> Iterator[None]:
    """Put an exception inside into ``found`` as text, so that the rest of a step goes on; and the
    seconds that it took."""
    began = time.perf_counter()
    try:
        yield
    except Exception as error:  # everything is a finding
        traceback.print_exc()
        found[key] = f"{FAILED} {type(error).__name__}: {str(error)[:MOST_WORDS]}"
    finally:
        found.setdefault("seconds", {})[key] = round(time.perf_counter() - began, 2)


def say(*words: object) -> None:
    """Print at once."""
    print(*words, flush=True)


def findings_file(work: Path, name: str) -> Path:
    """Return the file of a step's findings."""
    return work / "parts" / f"{name}.json"


def save(options: StepOptions, name: str, found: Findings) -> None:
    """Write the findings of a step; called often, so that a kill loses little."""
    path = findings_file(options.work, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, default=str))


def left_s() -> float:
    """Return the seconds until this step is ended."""
    return float(os.environ.get(DEADLINE_VARIABLE, "inf")) - time.time()


def median(values: list[float]) -> float:
    """Return the median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def synchroniser(device: str) -> Callable[[], None]:
    """Return the function by which PyTorch waits for a device."""
    import torch

    return torch.cuda.synchronize if device != "cpu" else lambda: None


def network(options: StepOptions) -> tuple[Network, TrainingPlan]:
    """Return ResNet50 (in a dry run SqueezeNet) with a linear head, and the plan of training all of
    it; the project's own exporter makes it, once."""
    name, here = ("squeezenet1_1" if options.small else "resnet50"), Interpreters({})
    entry = entry_of(name, here, cache_root())
    folder = blueprint_folder(name, options.px, random_weights(entry), 0, cache_root(), here)
    found = attach_head(Network.load(folder, trunk_only=True), "linear", CLASSES, seed=0)
    return found, plan_training(found.blueprint, POLICIES["fine_tune_all"])
