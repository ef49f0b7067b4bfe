"""A worker whose training steps do extra work: a slowdown of known size, for tests of the gate.

It takes the place of ``backends.worker`` (``bench.workers.process.Site.module``) and reads the
size, a fraction of a step, from the variable ``THAWBENCH_PLANTED``. The work is real: sums of small
arrays on one thread, as many as take that share of the fastest step.
"""

from __future__ import annotations

import functools
import math
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from backends import worker

SHARE_VARIABLE = "THAWBENCH_PLANTED"
PART_VARIABLE = "THAWBENCH_PLANTED_PART"
GROWTH_VARIABLE = "THAWBENCH_PLANTED_GROWTH"
"""Number of steps over which the extra work grows from nothing to its share; not set: at once."""
WARM_UP = 4
"""Steps without extra work."""
SIZE = 4096
"""Numbers in an array, which fit into the cache nearest to a core."""
TRIALS, SUM_TRIALS = 50, 10
"""Number of sums that are timed after one step, and number of steps after which they are."""


def extra_work(repeats: float) -> None:
    """Add arrays so many times; the fraction is left to chance."""
    for _ in range(int(repeats) + (random.random() < repeats % 1)):
        np.add(_NUMBERS, _NUMBERS, out=_SUMS)


_NUMBERS = np.arange(SIZE, dtype=np.float32)
_SUMS = np.empty_like(_NUMBERS)


class Plant:
    """Extra work by share of the fastest step so far.

    The first steps only warm up: three processes that start at once slow each other, and a share of
    those would be many times too much.
    """

    def __init__(self, share: float, growth_steps: int = 0) -> None:
        self.share, self.growth_steps = share, growth_steps
        self.done, self.fastest_s, self.sum_s = 0, math.inf, math.inf

    def note(self, step_s: float) -> None:
        """Take note of the duration of a step."""
        self.done += 1
        self.fastest_s = step_s if self.done == WARM_UP + 1 else min(self.fastest_s, step_s)
        if WARM_UP <= self.done < WARM_UP + SUM_TRIALS:
            self.sum_s = min(self.sum_s, _seconds_of_sum())

    def work(self) -> None:
        """Do the extra work of a step."""
        if self.done > WARM_UP:
            grown = min(self.done / self.growth_steps, 1.0) if self.growth_steps else 1.0
            extra_work(grown * self.share * self.fastest_s / self.sum_s)


def plant(trainer: Any, share: float, part: str, growth_steps: int = 0) -> None:
    """Let a trainer do extra work in its steps, or in one part of them.

    Args:
        share: Extra work, as a fraction of a step.
        part: 'step', 'input', 'copies', 'forward', 'backward' or 'optimizer'.
        growth_steps: Steps over which the extra work grows to its share; 0: at once.
    """
    planted = Plant(share, growth_steps)
    train_step, in_phases, to_device = trainer.train_step, trainer.step_in_phases, trainer.to_device
    host_array = trainer.host_array

    def planted_step(*given: Any) -> Any:
        began = time.perf_counter()
        result = train_step(*given)
        planted.note(time.perf_counter() - began)
        if part not in ("input", "copies"):
            planted.work()
        return result

    def planted_phases(prepared: Any, rate: float, after: Callable[[str], None]) -> Any:
        def worked(phase: str) -> None:
            if phase == part:
                planted.work()
            after(phase)

        return in_phases(prepared, rate, worked)

    def planted_copy(batch: Any) -> Any:
        if part == "copies":
            planted.work()
        return to_device(batch)

    def planted_array(*given: Any) -> Any:
        if part == "input":
            planted.work()
        return host_array(*given)

    trainer.train_step, trainer.step_in_phases = planted_step, planted_phases
    trainer.to_device, trainer.host_array = planted_copy, planted_array


def _seconds_of_sum() -> float:
    found = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        np.add(_NUMBERS, _NUMBERS, out=_SUMS)
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def main() -> None:
    """Do tasks as ``backends.worker`` does, with slowed steps."""
    share, part = float(os.environ[SHARE_VARIABLE]), os.environ.get(PART_VARIABLE, "step")
    growth_steps = int(os.environ.get(GROWTH_VARIABLE, "0"))
    usual = worker.load_adapter

    @functools.cache
    def load_adapter(backend: str, module: str) -> Any:
        adapter: Any = usual(backend, module)
        build = adapter.build

        def planted_build(*given: Any) -> Any:
            trainer = build(*given)
            plant(trainer, share, part, growth_steps)
            return trainer

        adapter.build = planted_build
        return adapter

    worker.load_adapter = load_adapter
    worker.main(*sys.argv[1:])


if __name__ == "__main__":
    main()
