"""Speed of training: ``make benchmarks`` measures it, ``make test`` checks that this runs.

Workers measure the durations. pytest-benchmark gets them through a clock that nothing else moves,
so that its flags (``--benchmark-save``, ``-compare``, ``-compare-fail``, ``-json``) work as usual.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed.cases import SpeedCase, SpeedMeasure, SpeedMeasurement
from bench.system.gpu import GpuState
from tests.speed.clock import CLOCK, hand_over


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(
    benchmark: BenchmarkFixture,
    timed: Callable[[SpeedCase], list[SpeedMeasurement]],
    case: SpeedCase,
    measure: SpeedMeasure,
) -> None:
    """Measure steps in stretches, epochs end to end, or inference.

    ``extra_info`` holds what no duration shows: steps that were waited for one by one, the host's
    share in them, the parts of a step, memory, the spread between workers, the GPU's state.
    """
    found = timed(case)
    answers = [one.answer for one in found]
    durations = [seconds for one in answers for seconds in getattr(one, f"{measure}_s")]
    images = answers[0].images[measure]
    medians = [statistics.median(getattr(one, f"{measure}_s")) for one in answers]
    benchmark.group = f"{measure} {case.backbone} {case.policy} {case.precision} {case.batch_size}"
    benchmark.extra_info.update(
        backend=case.backend,
        compile=case.compile,
        images=images,
        images_per_s=images / statistics.median(durations),
        worker_medians_s=medians,
        waited_step_s=[one.waited_step_s for one in answers],
        queue_s=[one.queue_s for one in answers],
        device_step_s=[one.device_step_s for one in answers],
        phases_s=[one.phases_s for one in answers],
        setup_s=[one.setup_s for one in answers],
        compile_s=[one.compile_s for one in answers],
        peak_host_bytes=[one.peak_host_bytes for one in answers],
        peak_device_bytes=[one.peak_device_bytes for one in answers],
        warmup_device_bytes=[one.warmup_device_bytes for one in answers],
        reserved_device_bytes=[one.reserved_device_bytes for one in answers],
        gpu_before=[_fields(one.gpu_before) for one in found],
        gpu_after=[_fields(one.gpu_after) for one in found],
        other_work=[one.other_work and one.other_work.others for one in found],
        knobs=answers[0].knobs,
    )
    hand_over(benchmark, durations)


def _fields(state: GpuState | None) -> dict[str, Any] | None:
    return None if state is None else asdict(state)
