"""Speed of training: ``make benchmarks`` measures it, ``make test`` checks that this runs.

Workers measure the durations. pytest-benchmark gets them through a clock that nothing else moves,
so that its flags (``--benchmark-save``, ``-compare``, ``-compare-fail``, ``-json``) work as usual.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed.cases import SpeedCase, SpeedMeasure
from bench.workers.tasks import SpeedAnswer
from tests.speed.clock import CLOCK, hand_over


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(
    benchmark: BenchmarkFixture,
    timed: Callable[[SpeedCase], SpeedAnswer],
    case: SpeedCase,
    measure: SpeedMeasure,
) -> None:
    found = timed(case)
    durations = getattr(found, f"{measure}_s")
    images = found.images[measure]
    benchmark.group = f"{measure} {case.backbone} {case.policy} {case.precision}"
    benchmark.extra_info.update(
        backend=case.backend,
        images=images,
        images_per_s=images / statistics.median(durations),
        setup_s=found.setup_s,
        compile_s=found.compile_s,
        peak_host_bytes=found.peak_host_bytes,
        peak_device_bytes=found.peak_device_bytes,
        knobs=found.knobs,
    )
    hand_over(benchmark, durations)
