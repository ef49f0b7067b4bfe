"""Compare the scripts that ``advise --eject`` writes with the harness: accuracy and speed.

``python -m tools.ejected_speed`` trains each policy in both frameworks by turns, by the harness and
by its script, and prints the speed of the script over that of the harness.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

from bench.advise.advice import Strategy
from bench.advise.candidate import OPTIMIZER
from bench.advise.eject.write import Project, write_project
from bench.advise.wishes import POLICIES
from bench.catalog.policies import default_rate
from bench.data import SplitSizes, open_dataset
from bench.network.backbones import backbone as entry_of
from bench.network.blueprint import Network
from bench.network.export import blueprint_folder
from bench.network.weights import pretrained_weights
from bench.runner.planner import PlannedRun, Planner
from bench.runner.runner import Runner, SilentDisplay
from bench.runner.suite import Grid, Suite
from bench.spec.result import RunResult
from bench.storage.results import Store
from bench.workers.process import Interpreters

BACKBONES = {"torch": "squeezenet1_1", "keras-tensorflow": "efficientnet_lite0"}
"""Backend → network."""
BATCH, VAL = 16, 18
SCRIPT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Case:
    """A training of photographs by the harness and by an ejected script."""

    backend: str
    policy: str
    px: int = 64
    epochs: int = 4
    train: int = 180
    test: int = 540
    rate_factor: float = 1.0
    """Learning rate over the policy's default."""

    @property
    def backbone(self) -> str:
        """Network."""
        return BACKBONES[self.backend]

    @property
    def learning_rate(self) -> float:
        """Learning rate."""
        return default_rate(self.policy, OPTIMIZER) * self.rate_factor


def by_harness(cases: Sequence[Case], planner: Planner, folder: Path) -> dict[Case, RunResult]:
    """Train cases by the harness, those of a backend in one worker."""
    store = Store(folder)
    store.prepare()
    planned: dict[Case, PlannedRun] = {}
    for case in cases:
        recipe: dict[str, Any] = {
            "px": case.px, "epochs": case.epochs, "batch_size": BATCH, "optimizer": OPTIMIZER,
            "learning_rate": (case.learning_rate,),
        }  # fmt: skip
        grid = Grid(
            dataset="photos", train_images=case.train, val_images=VAL, test_images=case.test,
            backbones=(case.backbone,), policies=(case.policy,), **recipe,
        )  # fmt: skip
        suite = Suite(name="ejected", backends=(case.backend,), grid=(grid,))
        (planned[case],) = planner.plan(suite)
    runner = Runner(store, planner.cache, planner.interpreters)
    runner.run_all(list(planned.values()), SilentDisplay())
    return {case: store.read(*run.key).result for case, run in planned.items()}


def write_script(case: Case, planner: Planner, folder: Path) -> None:
    """Write the project of a case, as ``advise --eject`` does."""
    entry = entry_of(case.backbone, planner.interpreters, planner.cache)
    weights = pretrained_weights(case.backbone, entry)
    blueprint = blueprint_folder(
        case.backbone, case.px, weights, 0, planner.cache, planner.interpreters
    )
    sizes = SplitSizes(train=case.train, val=VAL, test=case.test)
    dataset = open_dataset("photos", sizes, cache_dir=planner.cache)
    strategy = Strategy(
        policy=case.policy, backbone=case.backbone, backend=case.backend, head="linear",
        learning_rate=case.learning_rate, epochs=case.epochs,
    )  # fmt: skip
    project = Project(strategy, dataset, entry, Network.load(blueprint), case.px, BATCH)
    write_project(folder, project, planner.cache)


@dataclass(frozen=True)
class ScriptRun:
    """The outcome of an ejected script."""

    result: dict[str, Any]
    """Content of its result.json."""
    images_per_s: list[float]
    """Rate of each epoch."""


def by_script(folder: Path) -> ScriptRun:
    """Run an ejected script; raise RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=False,
        timeout=SCRIPT_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    rates = re.findall(r"^epoch \d+: .* (\d+) images/s$", done.stdout, re.MULTILINE)
    result = json.loads((folder / "result.json").read_text())
    return ScriptRun(result, list(map(float, rates)))


def main(
    rounds: Annotated[int, typer.Option(help="Trainings of each case by each side.")] = 3,
    train_images: Annotated[int, typer.Option(help="Training images.")] = 360,
    epochs: Annotated[int, typer.Option(help="Epochs.")] = 6,
    px: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 96,
    backends: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(BACKBONES),
) -> None:
    """Print the speed of each script over that of the harness.

    Rates are those of the later epochs, where the network trains whole; times are of the whole
    training, which includes tracing a graph and computing a frozen part.
    """
    planner, rows = Planner(Interpreters({}), device="cpu"), []
    with tempfile.TemporaryDirectory(prefix="thawbench-") as name:
        for backend in backends.split(","):
            for policy in POLICIES:
                case = Case(backend, policy, px, epochs, train_images, test=36)
                project = Path(name) / f"{backend}-{policy}"
                write_script(case, planner, project)
                times: list[tuple[float, float]] = []
                rates: list[tuple[float, float]] = []
                for number in range(rounds):
                    own = by_harness([case], planner, project / f"harness-{number}")[case]
                    script = by_script(project)
                    times.append((own.fit_s or 0.0, script.result["fit_s"]))
                    if own.train_images_per_s:
                        later = script.images_per_s[1:]
                        rates.append((own.train_images_per_s, statistics.median(later)))
                rows.append([
                    backend, policy,
                    f"{statistics.median(a for a, _ in times):.1f}",
                    f"{statistics.median(b for _, b in times):.1f}",
                    f"{statistics.median(a / b for a, b in times):.2f}",
                    f"{statistics.median(b / a for a, b in rates):.2f}" if rates else "–",
                ])  # fmt: skip
                print(*rows[-1], flush=True)
    headings = ["framework", "policy", "harness, s", "script, s", "speed by time",
                "speed by rate"]  # fmt: skip
    print(tabulate(rows, headings, "pipe", disable_numparse=True))


if __name__ == "__main__":
    typer.run(main)
