"""Measure a suite: a number of launches, each a fresh process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from bench.speed.cases import TimedCase
from bench.speed.launch import CaseFailure, Launch, Place, group_cases, launch

OnLaunch = Callable[[int, int], None]
"""Takes the number of launches that are done, and of all."""


def measure_suite(
    cases: Sequence[TimedCase], place: Place, launches: int, watch: OnLaunch,
    random: Random | None = None,
) -> list[Launch]:  # fmt: skip
    """Launch every group of cases ``launches`` times. Backends alternate, so that the launches of
    each lie far apart in time.

    Raises:
        UserError, Unavailable, WorkerFailed: A case failed.
    """
    random = random or Random()
    groups = group_cases(cases)
    found: list[Launch] = []
    for _ in range(launches):
        for group in random.sample(groups, len(groups)):
            watch(len(found), launches * len(groups))
            one = launch(group, place, random)
            raise_failure(one.failures)
            found.append(one)
    return found


def raise_failure(failures: Mapping[str, CaseFailure]) -> None:
    """Raise the error of the first case that failed."""
    for name, failure in failures.items():
        raise failure.error(name)
