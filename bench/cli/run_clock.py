"""The time that is left of a grid or a proof, from the speed measured so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.spec.run import RunSpec
from bench.training.sweep import sweep_key

BACKWARD_COST = 2.0
"""Cost of a backward pass in forward passes, for estimates of work."""


def work(spec: RunSpec) -> float:
    """Return the estimated work of a run, in forward passes over one pixel."""
    data = spec.case.dataset
    trained = 0.0 if spec.policy.boundary == "head" else BACKWARD_COST
    passes = spec.recipe.epochs * (data.train_images * (1 + trained) + data.val_images)
    return (passes + data.test_images) * spec.recipe.px**2


@dataclass
class WorkClock:
    """Amount of work done, and the time left at the speed so far."""

    total: float
    done: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def left_s(self) -> float | None:
        """Return the estimated seconds left; None before anything was done."""
        if self.done <= 0:
            return None
        return (time.monotonic() - self.began_s) * (self.total - self.done) / self.done


class MeasuredPace(NamedTuple):
    """Time and amount of some kind of work, as measured."""

    seconds: float = 0.0
    work: float = 0.0


SpeedKind = tuple[Hashable, ...]


def kinds(spec: RunSpec) -> tuple[SpeedKind, ...]:
    """Return the kinds of a run by similar cost per unit of work: narrowest first, all runs last.

    A pass over an image costs twenty times as much through one network as through another, and a
    frozen part may be computed once or in every epoch. So the speed of a backend's other runs is
    used only until a run of a narrower kind was measured.
    """
    recipe, place = spec.recipe, (spec.backend, spec.device)
    how = (spec.policy.name, spec.policy.boundary, spec.mode, recipe.precision, recipe.sweep)
    once = (recipe.augmentation, recipe.views, recipe.prefix_cache, len(recipe.learning_rate_grid))
    return (*place, spec.backbone, *how, *once), (*place, spec.backbone), place, ()


class RunClock:
    """Estimates the time left of a grid: each run at the speed of the narrowest kind measured.

    A finished run counts with all its time, so that the start of a worker is shared by the runs of
    its kind; a failed run counts as far as it came. The current run counts from its first progress
    event on, since what comes before happens once.
    """

    def __init__(self, runs: Sequence[RunSpec], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._work: dict[str, float] = defaultdict(float)
        together: dict[Hashable, str] = {}
        for spec in runs:
            key = sweep_key(spec)  # a sweep trains its runs in the time of one
            first = spec.run_id if key is None else together.setdefault(key, spec.run_id)
            self._work[first] += work(spec)
        self._waiting = dict.fromkeys(map(kinds, runs), 0.0)
        """Kinds → work of their runs that have not begun. The display reads it in a thread of its
        own, so that dictionaries are replaced and never grow."""
        for spec in runs:
            self._waiting[kinds(spec)] += self._work[spec.run_id]
        self._total = sum(self._work.values())
        self._speeds: dict[SpeedKind, MeasuredPace] = {}
        self._current: RunSpec | None = None
        self._began = self._heard = 0.0
        self._share = 0.0
        self._first: tuple[float, float] | None = None
        """Time and share of the current run's first progress event."""

    def __str__(self) -> str:
        """Return the time left as text."""
        return duration(self.left_s())

    def begin(self, spec: RunSpec) -> None:
        """Note that a run starts."""
        self._waiting[kinds(spec)] -= self._work[spec.run_id]
        self._current, self._share, self._first = spec, 0.0, None
        self._began = self._heard = self._now()

    def heard(self, share: float) -> None:
        """Note how far the current run has come."""
        self._share, self._heard = share, self._now()
        self._first = self._first or (self._heard, share)

    def end(self, is_ok: bool) -> None:
        """Note that the current run has ended."""
        spec, share = self._current, 1.0 if is_ok else self._share
        self._current = None
        if spec is None or share == 0.0:
            return  # a run without progress measures no speed
        self._speeds = self._plus(spec, self._now() - self._began, share)

    def _plus(self, spec: RunSpec, seconds: float, share: float) -> dict[SpeedKind, MeasuredPace]:
        """Return the measured paces, with the one of a share of a run more."""
        speeds, done = dict(self._speeds), self._work[spec.run_id] * share
        for kind in kinds(spec):
            pace = speeds.get(kind, MeasuredPace())
            speeds[kind] = MeasuredPace(pace.seconds + seconds, pace.work + done)
        return speeds

    def done_share(self) -> float:
        """Return the fraction of all work that is done."""
        current, waiting = self._current, sum(self._waiting.values())
        if current is not None:
            waiting += self._work[current.run_id] * (1.0 - self._share)
        return min(max(1.0 - waiting / self._total, 0.0), 1.0) if self._total else 1.0

    def left_s(self) -> float | None:
        """Return the estimated seconds left; None before anything was measured."""
        current, left, speeds = self._current, 0.0, self._speeds
        if current is not None and self._first is not None:
            began, share = self._first
            speeds = self._plus(current, self._heard - began, self._share - share)
        for chain, amount in self._waiting.items():
            pace = _pace(chain, speeds) if amount else 0.0
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


def _pace(chain: Sequence[SpeedKind], speeds: dict[SpeedKind, MeasuredPace]) -> float | None:
    """Return seconds per unit of work of the narrowest kind that was measured."""
    known = (speeds[kind] for kind in chain if kind in speeds)
    return next((speed.seconds / speed.work for speed in known if speed.work > 0.0), None)


def duration(seconds: float | None) -> str:
    """Return a time as ``h:mm:ss`` or ``m:ss``; '?' if it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
