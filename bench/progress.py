"""What is going on, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bench.result import RunResult
from bench.spec import RunSpec

BACKWARD_COST = 2.0
"""A backward pass costs about two forward passes; for the share of work that a run is."""


def label(spec: RunSpec) -> str:
    """A run in a few words."""
    case = f"case {spec.case.number} " if spec.case.number else ""
    images = f"{spec.case.dataset.name} ({spec.case.dataset.train_images})"
    native = "native " if spec.mode == "native" else ""
    code = f" (code {spec.code_sha256[:8]})" if spec.code_sha256 else ""
    what = f"{spec.backbone}{code} {spec.policy.name} {native}{spec.backend}"
    recipe = spec.recipe
    swept = f" rate {recipe.learning_rate:g} decay {recipe.weight_decay:g}" if recipe.sweep else ""
    return f"{case}{images} {what} seed {spec.seed}{swept}"


def work(spec: RunSpec) -> float:
    """Forward passes over one image that a run is worth, for the time left."""
    data = spec.case.dataset
    trained = 0.0 if spec.policy.boundary == "head" else BACKWARD_COST
    passes = spec.recipe.epochs * (data.train_images * (1 + trained) + data.val_images)
    return (passes + data.test_images) * spec.recipe.px**2


class Display(Protocol):
    """Where progress goes."""

    def note(self, text: str) -> None:
        """One line about the call as a whole."""

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Something that a worker says of its run."""

    def end(self, spec: RunSpec, result: RunResult) -> None:
        """A run has ended, well or badly."""

    def close(self) -> None:
        """All is done, or interrupted."""


@dataclass
class Clock:
    """Work done and time left, from the speed measured so far."""

    total: float
    done: float = 0.0
    current: float = 0.0
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    def left_s(self) -> float | None:
        finished = self.done + self.current
        if finished <= 0:
            return None
        return (time.monotonic() - self.began) * (self.total - finished) / finished


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _epoch_text(event: dict[str, Any]) -> str:
    return (
        f"epoch {event['epoch']}/{event['epochs']} "
        f"loss {event['train_loss']:.3f} val {event['val_top1']:.1%}"
    )


def _sweep_text(event: dict[str, Any]) -> str:
    return f"epoch {event['epoch']}/{event['epochs']} best val {event['val_top1']:.1%}"


def _trial_text(event: dict[str, Any]) -> str:
    phase = f", phase {event['phase']} of {event['phases']}" if "phase" in event else ""
    return f"trying learning rate {event['number']} of {event['of']}{phase}"


def _end_text(result: RunResult) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.failure.message if result.failure else ''}"
    rate, effective = result.train_images_per_s, result.effective_images_per_s
    speed = f", {rate:.0f} images/s" if rate else ""
    speed += f", {effective:.0f} effective images/s" if effective else ""
    chosen = result.learning_rate
    speed += f", learning rate {chosen:g} of {len(result.tuning)}" if chosen is not None else ""
    took = f", fit {result.fit_s:.1f} s" if result.fit_s is not None else ""
    if result.sweep_s is not None:
        took = f", {result.sweep_runs} at once in {result.sweep_s:.1f} s"
    return f"test top-1 {result.test_top1:.1%}{took}{speed}"


class PlainDisplay:
    """A line for each thing that happens."""

    def __init__(self, runs: list[RunSpec]) -> None:
        self._clock = Clock(sum(map(work, runs)))
        self._total = len(runs)
        self._number = 0

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._say(text)

    def begin(self, spec: RunSpec) -> None:
        self._number += 1
        left = duration(self._clock.left_s())
        self._say(f"[{self._number}/{self._total}, {left} left] {label(spec)}")

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            self._say(f"    {_epoch_text(event)}")
        elif event["event"] == "sweep":
            self._say(f"    {_sweep_text(event)}")
        elif event["event"] == "prefix" and event["share"] == 1.0:
            self._say("    frozen part computed")
        elif event["event"] == "trial":
            self._say(f"    {_trial_text(event)}")

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.done += work(spec)
        self._say(f"    {_end_text(result)}")

    def close(self) -> None:
        pass


class RichDisplay:
    """A bar for the whole and the current run's last words beside it."""

    def __init__(self, runs: list[RunSpec]) -> None:
        self._clock = Clock(sum(map(work, runs)))
        self._total = len(runs)
        self._number = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left", markup=False),
            console=Console(stderr=True),
        )
        self._task: TaskID = self._progress.add_task("", total=self._clock.total, left="?")
        self._words = ""
        self._progress.start()

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def begin(self, spec: RunSpec) -> None:
        self._number += 1
        self._words = "starting"
        self._show(spec)

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            self._words = _epoch_text(event)
            self._clock.current = work(spec) * event["epoch"] / event["epochs"]
        elif event["event"] == "sweep":
            self._words = _sweep_text(event)
        elif event["event"] == "prefix":
            self._words = f"computing the frozen part, {event['share']:.0%}"
        elif event["event"] == "trial":
            self._words = _trial_text(event)
        elif event["event"] == "step":
            self._clock.current = work(spec) * event["share"]
        self._show(spec)

    def _show(self, spec: RunSpec) -> None:
        self._progress.update(
            self._task,
            completed=self._clock.done + self._clock.current,
            description=f"{self._number}/{self._total} {label(spec)}: {self._words}",
            left=duration(self._clock.left_s()),
        )

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.done += work(spec)
        self._clock.current = 0.0
        self.note(f"{label(spec)}: {_end_text(result)}")
        self._show(spec)

    def close(self) -> None:
        self._progress.stop()


def display(runs: list[RunSpec]) -> Display:
    """The one that suits standard error."""
    return RichDisplay(runs) if sys.stderr.isatty() else PlainDisplay(runs)
