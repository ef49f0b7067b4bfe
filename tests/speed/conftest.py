"""One benchmark for each case of ``bench.speed.cases`` and each measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from bench.catalog.backends import BACKENDS
from bench.errors import Unavailable, choose
from bench.spec.run import CompileMode
from bench.speed.cases import (
    MEASURES,
    SpeedCase,
    SpeedMeasurement,
    cases,
    suite_size,
    time_case,
)
from bench.storage.cache import cache_root
from bench.storage.code_digest import digest_of_rooms
from bench.workers.pool import WorkerPool
from bench.workers.process import Interpreters, environment_of

HERE = Interpreters({})
Timed = Callable[[SpeedCase], list[SpeedMeasurement]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"case", "measure"} <= set(metafunc.fixturenames):
        option = metafunc.config.getoption
        backends = option("--speed-backends").split(",")
        for backend in backends:
            choose("backend", backend, list(BACKENDS))
        compiles = option("--speed-compile").split(",")
        for each in compiles:
            choose("compile", each, get_args(CompileMode))
        size = suite_size(option("--speed-size"), option("--speed-device"))
        found = cases(size, backends, compiles)
        every = [(case, measure) for case in found for measure in MEASURES]
        metafunc.parametrize(("case", "measure"), every, ids=[f"{m}-{c}" for c, m in every])


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """Record versions, processor and code as Thawbench sees them."""
    machine_info["speed code"] = digest_of_rooms("benchmark")
    device = config.getoption("--speed-device")
    for backend in config.getoption("--speed-backends").split(","):
        environment = environment_of(backend, device, HERE)
        machine_info[f"environment {backend}"] = environment.model_dump(mode="json")


def _worker_of(case: SpeedCase) -> tuple[str, str]:
    return case.backend, case.precision


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> Timed:
    """Return the function that gives the measurements of a case, one for each worker.

    The first call times all cases that were selected. Each launch of workers times all of them
    once, so that the measurements of a case lie far apart in time.
    """
    option = request.config.getoption
    device = option("--speed-device")
    size = suite_size(option("--speed-size"), device)
    parameters = (getattr(item, "callspec", None) for item in request.session.items)
    selected = [p.params["case"] for p in parameters if p is not None and "case" in p.params]
    found: dict[SpeedCase, list[SpeedMeasurement | Exception]] = {}

    def measure_all() -> None:
        for _ in range(size.workers):
            with WorkerPool(HERE) as workers:
                # One backend and precision after the other, so that a worker serves many cases.
                for case in sorted(dict.fromkeys(selected), key=_worker_of):
                    try:
                        one = time_case(case, size, device, workers, HERE, cache_root())
                    except Exception as error:  # of this case's own test
                        found.setdefault(case, []).append(error)
                    else:
                        found.setdefault(case, []).append(one)

    def measurements(case: SpeedCase) -> list[SpeedMeasurement]:
        if not found:
            measure_all()
        for one in found[case]:
            if isinstance(one, Unavailable):
                pytest.skip(str(one))
            if isinstance(one, Exception):
                raise one
        return [one for one in found[case] if not isinstance(one, Exception)]

    return measurements
