"""One benchmark for each case of ``bench.speed.cases`` and each measure."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, get_args

import pytest

from bench.catalog.backends import BACKENDS
from bench.errors import choose
from bench.spec.run import CompileMode
from bench.speed.cases import MEASURES, SpeedCase, cases, prepare, suite_size
from bench.speed.launch import CaseFailure, Place, group_cases, launch
from bench.storage.cache import cache_root
from bench.storage.code_digest import digest_of_rooms
from bench.workers.process import Interpreters, environment_of
from bench.workers.tasks import SpeedAnswer

HERE = Interpreters({})
Timed = Callable[[SpeedCase], list[SpeedAnswer]]


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


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> Timed:
    """Return the function that gives the answers of a case, one for each launch.

    The first call times all cases that were selected. Each round launches every backend once, so
    that the launches of a case lie far apart in time.
    """
    option = request.config.getoption
    device = option("--speed-device")
    size = suite_size(option("--speed-size"), device)
    parameters = (getattr(item, "callspec", None) for item in request.session.items)
    selected = [p.params["case"] for p in parameters if p is not None and "case" in p.params]
    found: dict[str, list[SpeedAnswer | CaseFailure]] = {}

    def measure_all() -> None:
        place, random = Place(HERE, cache_root(), device), Random()
        timed = prepare(list(dict.fromkeys(selected)), size, device, HERE, place.cache)
        for _ in range(size.launches):
            for group in group_cases(timed):
                one = launch(group, place, random)
                for case in group:
                    answer = one.cases.get(case.name) or one.failures[case.name]
                    found.setdefault(case.name, []).append(answer)

    def answers(case: SpeedCase) -> list[SpeedAnswer]:
        if not found:
            measure_all()
        for one in found[str(case)]:
            if isinstance(one, CaseFailure):
                if one.status == "unavailable":
                    pytest.skip(one.message)
                raise one.error(str(case))
        return [one for one in found[str(case)] if isinstance(one, SpeedAnswer)]

    return answers
