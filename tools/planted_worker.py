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
WARM_UP = 4
"""Steps without extra work."""
SIZE = 4096
"""Numbers in an array, which fit into the cache nearest to a core."""
TRIALS = 50


def extra_work(repeats: float) -> None:
    """Add arrays so many times; the fraction is left to chance."""
    for _ in range(int(repeats) + (random.random() < repeats % 1)):
        np.add(_NUMBERS, _NUMBERS, out=_SUMS)


_NUMBERS = np.arange(SIZE, dtype=np.float32)
_SUMS = np.empty_like(_NUMBERS)


def slowed(step: Callable[..., Any], share: float) -> Callable[..., Any]:
    """Return a training step that takes ``1 + share`` times as long as the fastest one so far.

    The first steps only warm up: three processes that start at once slow each other, and a share of
    those would be many times too much.
    """
    done, fastest_s, sum_s = 0, math.inf, 0.0

    def planted(*given: Any) -> Any:
        nonlocal done, fastest_s, sum_s
        began = time.perf_counter()
        result = step(*given)
        fastest_s = min(fastest_s, time.perf_counter() - began)
        done += 1
        if done == WARM_UP:
            fastest_s = math.inf
        elif done > WARM_UP:
            sum_s = sum_s or _seconds_of_sum()
            extra_work(share * fastest_s / sum_s)
        return result

    return planted


def _seconds_of_sum() -> float:
    found = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        np.add(_NUMBERS, _NUMBERS, out=_SUMS)
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def main() -> None:
    """Do tasks as ``backends.worker`` does, with slowed steps."""
    share = float(os.environ[SHARE_VARIABLE])
    usual = worker.load_adapter

    @functools.cache
    def load_adapter(backend: str, module: str) -> Any:
        adapter: Any = usual(backend, module)
        build = adapter.build

        def planted_build(*given: Any) -> Any:
            trainer = build(*given)
            trainer.train_step = slowed(trainer.train_step, share)
            return trainer

        adapter.build = planted_build
        return adapter

    worker.load_adapter = load_adapter
    worker.main(*sys.argv[1:])


if __name__ == "__main__":
    main()
