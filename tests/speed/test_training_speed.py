"""How fast training is: ``make benchmarks`` measures, ``make test`` sees that this runs.

The durations are the workers' own. pytest-benchmark gets them through a clock that stands still but
for them, so that its flags (``--benchmark-save``, ``-compare``, ``-compare-fail``, ``-json``) mean
what they always do.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed.cases import SpeedCase, SpeedMeasure
from tests.speed.clock import CLOCK, hand_over


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(
    benchmark: BenchmarkFixture,
    timed: Callable[[SpeedCase], dict[str, Any]],
    case: SpeedCase,
    measure: SpeedMeasure,
) -> None:
    found = timed(case)
    durations = found[f"{measure}_s"]
    images = found["images"][measure]
    benchmark.group = f"{measure} {case.backbone} {case.policy} {case.precision}"
    benchmark.extra_info.update(
        backend=case.backend,
        images=images,
        images_per_s=images / statistics.median(durations),
        **{k: found[k] for k in ("setup_s", "compile_s", "peak_host_bytes", "peak_device_bytes")},
        knobs=found["knobs"],
    )
    hand_over(benchmark, durations)
