"""Measure a suite: a number of launches, each a fresh process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from bench.speed.cases import TimedCase
from bench.speed.launch import Launch, Place, group_cases, launch
from bench.speed.partial import PartialLaunches

OnLaunch = Callable[[int, int], None]
"""Takes the number of launches that are done, and of all."""


def measure_suite(
    cases: Sequence[TimedCase], place: Place, launches: int, kept: PartialLaunches, watch: OnLaunch
) -> list[Launch]:
    """Launch every group of cases ``launches`` times. Backends alternate, so that the launches of
    each lie far apart in time.

    Args:
        kept: Launches that an interrupted measurement has left; gets those of this one.
        watch: Shows the progress.

    Raises:
        UserError, Unavailable, WorkerFailed: A case failed.
    """
    random, groups = Random(), group_cases(cases)
    of = launches * len(groups)
    for _ in range(launches):
        for group in random.sample(groups, len(groups)):
            kind = group[0].backend, group[0].precision
            done = sum((one.backend, one.precision) == kind for one in kept.launches)
            if done >= launches:
                continue
            watch(len(kept.launches), of)
            one = launch(group, place, random)
            one.require_all()
            kept.add(one)
    return kept.launches
