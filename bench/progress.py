"""What is going on, on standard error: a table on a terminal (bench/live.py), plain lines
elsewhere; and the time left, from the speed measured so far."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.result import RunResult
from bench.spec import RunSpec
from bench.sweep import sweep_key

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


@dataclass(frozen=True)
class Speed:
    """What was measured of some kind of work."""

    seconds: float = 0.0
    """That it took."""
    work: float = 0.0
    """That was done."""


Kind = tuple[Hashable, ...]


def kinds(spec: RunSpec) -> tuple[Kind, ...]:
    """What runs of about the same cost have in common, the nearest kind first, everything last.

    A pass over an image costs twenty times as much through one network as through another, and
    what is frozen may be computed once or in every epoch; so a backend's speed is that of its
    other runs only until such a one has been seen.
    """
    recipe, place = spec.recipe, (spec.backend, spec.device)
    how = (spec.policy.name, spec.policy.boundary, spec.mode, recipe.precision, recipe.sweep)
    once = (recipe.augmentation, recipe.views, recipe.prefix_cache, len(recipe.learning_rate_grid))
    return (*place, spec.backbone, *how, *once), (*place, spec.backbone), place, ()


class RunClock:
    """Time left of a grid: each run's work at the speed of the nearest kind measured so far.

    A run that has ended counts with all its time, so that what starting a worker takes is shared
    by the runs of its kind; one that failed counts as far as it came. The current one counts from
    the first that it said of its training on: what it did before comes once.

    Args:
        runs: All of the grid.
        now: In seconds.
    """

    def __init__(self, runs: Sequence[RunSpec], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._work: dict[str, float] = defaultdict(float)
        together: dict[Hashable, str] = {}
        for spec in runs:
            key = sweep_key(spec)  # those of a sweep are trained in the time of the first
            first = spec.run_id if key is None else together.setdefault(key, spec.run_id)
            self._work[first] += work(spec)
        self._chains = {kinds(spec)[0]: kinds(spec) for spec in runs}
        self._waiting = dict.fromkeys(self._chains, 0.0)
        """Work of the runs that have not begun. A table reads it in a thread of its own: what is
        asked of a clock works on what it finds, and no dictionary grows under its hands."""
        for spec in runs:
            self._waiting[kinds(spec)[0]] += self._work[spec.run_id]
        self._total = sum(self._work.values())
        self._speeds: dict[Kind, Speed] = {}
        self._current: RunSpec | None = None
        self._began = self._heard = 0.0
        self._share = 0.0
        self._first: tuple[float, float] | None = None
        """When the current run first said how far it had come, and how far."""

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""
        self._waiting[kinds(spec)[0]] -= self._work[spec.run_id]
        self._current, self._share, self._first = spec, 0.0, None
        self._began = self._heard = self._now()

    def heard(self, share: float) -> None:
        """The current run has come so far."""
        self._share, self._heard = share, self._now()
        self._first = self._first or (self._heard, share)

    def end(self, is_ok: bool) -> None:
        """The current run has ended."""
        spec, share = self._current, 1.0 if is_ok else self._share
        self._current = None
        if spec is None or share == 0.0:
            return  # a run that came to nothing says nothing of speed
        took, done = self._now() - self._began, self._work[spec.run_id] * share
        known = {kind: self._speeds.get(kind, Speed()) for kind in kinds(spec)}
        more = {kind: Speed(s.seconds + took, s.work + done) for kind, s in known.items()}
        self._speeds = {**self._speeds, **more}

    def done_share(self) -> float:
        """Of all work, the part that is done: from 0 to 1."""
        current, waiting = self._current, sum(self._waiting.values())
        if current is not None:
            waiting += self._work[current.run_id] * (1.0 - self._share)
        return min(max(1.0 - waiting / self._total, 0.0), 1.0) if self._total else 1.0

    def left_s(self) -> float | None:
        """None where nothing has been measured yet."""
        current, left = self._current, 0.0
        speeds = self._with(current)
        for nearest, amount in self._waiting.items():
            pace = _pace(self._chains[nearest], speeds) if amount else 0.0
            if pace is None:
                return None
            left += amount * pace
        if current is not None:
            pace = _pace(kinds(current), speeds)
            if pace is None:
                return None
            rest = self._work[current.run_id] * (1.0 - self._share) * pace
            left += max(rest - (self._now() - self._heard), 0.0)
        return left

    def _with(self, current: RunSpec | None) -> dict[Kind, Speed]:
        """What was measured, of the current run too."""
        first = self._first
        if current is None or first is None:
            return self._speeds
        began, share = first
        seconds, done = self._heard - began, self._work[current.run_id] * (self._share - share)
        known = {kind: self._speeds.get(kind, Speed()) for kind in kinds(current)}
        more = {kind: Speed(s.seconds + seconds, s.work + done) for kind, s in known.items()}
        return {**self._speeds, **more}


def _pace(chain: Sequence[Kind], speeds: dict[Kind, Speed]) -> float | None:
    """Seconds for a unit of work, of the nearest kind of which some was done."""
    for kind in chain:
        speed = speeds.get(kind)
        if speed is not None and speed.work > 0.0:
            return speed.seconds / speed.work
    return None


def share_of(event: dict[str, Any]) -> float | None:
    """How far a run has come, of those events that say it."""
    if event["event"] in ("epoch", "sweep"):
        return float(event["epoch"] / event["epochs"])
    return float(event["share"]) if event["event"] == "step" else None


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


def words(event: dict[str, Any]) -> str | None:
    """What an event says; None: nothing new."""
    if event["event"] == "epoch":
        return _epoch_text(event)
    if event["event"] == "sweep":
        return _sweep_text(event)
    if event["event"] == "trial":
        return _trial_text(event)
    return (
        f"computing the frozen part, {event['share']:.0%}" if event["event"] == "prefix" else None
    )


def end_text(result: RunResult) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.failure.message if result.failure else ''}"
    rate, effective = result.train_images_per_s, result.effective_images_per_s
    speed = f", {rate:.0f} images/s" if rate else ""
    speed += f", {effective:.0f} effective images/s" if effective else ""
    chosen = result.learning_rate
    speed += (
        f", learning rate {chosen:g} of {len(result.tuning)} tried" if chosen is not None else ""
    )
    took = f", fit {result.fit_s:.1f} s" if result.fit_s is not None else ""
    if result.sweep_s is not None:
        took = f", {result.sweep_runs} at once in {result.sweep_s:.1f} s"
    return f"test top-1 {result.test_top1:.1%}{took}{speed}"


class PlainDisplay:
    """A line for each thing that happens."""

    def __init__(self, runs: list[RunSpec]) -> None:
        self._clock = RunClock(runs)
        self._total = len(runs)
        self._number = 0

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._say(text)

    def begin(self, spec: RunSpec) -> None:
        self._number += 1
        left = duration(self._clock.left_s())  # this run's time included
        self._say(f"[{self._number}/{self._total}, {left} left] {label(spec)}")
        self._clock.begin(spec)

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if (share := share_of(event)) is not None:
            self._clock.heard(share)
        if event["event"] == "prefix":
            if event["share"] == 1.0:
                self._say("    frozen part computed")
        elif (said := words(event)) is not None:
            self._say(f"    {said}")

    def end(self, spec: RunSpec, result: RunResult) -> None:
        self._clock.end(result.status == "ok")
        self._say(f"    {end_text(result)}")

    def close(self) -> None:
        pass


def display(runs: list[RunSpec]) -> Display:
    """The one that suits standard error: a table that fills in on a terminal that can draw one."""
    if not sys.stderr.isatty():
        return PlainDisplay(runs)
    from rich.console import Console

    from bench.live import LiveDisplay  # which says what this module says

    console = Console(stderr=True)
    return PlainDisplay(runs) if console.is_dumb_terminal else LiveDisplay(runs, console)
