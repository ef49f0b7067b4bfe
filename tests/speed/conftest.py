"""One benchmark for each case of ``bench.speed.cases`` and each measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from bench.catalog.backends import BACKENDS
from bench.errors import choose
from bench.speed.cases import MEASURES, SpeedCase, cases, suite_size, time_case
from bench.storage.cache import cache_root
from bench.storage.code_digest import digest_of_rooms
from bench.workers.pool import WorkerPool
from bench.workers.process import Interpreters, environment_of
from bench.workers.tasks import SpeedAnswer

HERE = Interpreters({})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"case", "measure"} <= set(metafunc.fixturenames):
        option = metafunc.config.getoption
        backends = option("--speed-backends").split(",")
        for backend in backends:
            choose("backend", backend, list(BACKENDS))
        size = suite_size(option("--speed-size"), option("--speed-device"))
        every = [(case, measure) for case in cases(size, backends) for measure in MEASURES]
        metafunc.parametrize(("case", "measure"), every, ids=[f"{m}-{c}" for c, m in every])


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """Record versions, processor and code as Thawbench sees them."""
    machine_info["speed code"] = digest_of_rooms("benchmark")
    device = config.getoption("--speed-device")
    for backend in config.getoption("--speed-backends").split(","):
        environment = environment_of(backend, device, HERE)
        machine_info[f"environment {backend}"] = environment.model_dump(mode="json")


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> Iterator[Callable[[SpeedCase], SpeedAnswer]]:
    """Time a case once for all its measures, in workers that serve case after case."""
    option = request.config.getoption
    device = option("--speed-device")
    size = suite_size(option("--speed-size"), device)
    with WorkerPool(HERE) as workers:

        @cache
        def time(case: SpeedCase) -> SpeedAnswer:
            return time_case(case, size, device, workers, HERE, cache_root())

        yield time
