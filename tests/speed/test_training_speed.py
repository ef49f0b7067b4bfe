"""Speed of training: ``make benchmarks`` measures it, ``make test`` checks that this runs.

Workers measure the durations. pytest-benchmark gets them through a clock that nothing else moves,
so that its flags (``--benchmark-save``, ``-compare``, ``-compare-fail``, ``-json``) work as usual.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.speed.cases import SpeedCase
from bench.workers.tasks import SpeedAnswer, SpeedMeasure
from tests.speed.clock import CLOCK, hand_over


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(
    benchmark: BenchmarkFixture,
    timed: Callable[[SpeedCase], list[SpeedAnswer]],
    case: SpeedCase,
    measure: SpeedMeasure,
) -> None:
    """Measure steps in stretches, epochs end to end, or inference.

    ``extra_info`` holds what no duration shows: steps that were waited for one by one, the host's
    share in them, the parts of a step, memory, the spread between workers, the GPU's state.
    """
    answers = timed(case)
    durations = [seconds for one in answers for seconds in one.seconds(measure)]
    images = answers[0].images[measure]
    windows = [[w for w in one.windows if w.measure == measure] for one in answers]
    benchmark.group = f"{measure} {case.backbone} {case.policy} {case.precision} {case.batch_size}"
    benchmark.extra_info.update(
        backend=case.backend,
        compile=case.compile,
        images=images,
        images_per_s=images / statistics.median(durations),
        worker_medians_s=[statistics.median(one.seconds(measure)) for one in answers],
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
        before=[asdict(own[0].before) for own in windows],
        after=[asdict(own[-1].after) for own in windows],
        disturbed_by=[[window.disturbed_by for window in own] for own in windows],
        knobs=answers[0].knobs,
    )
    hand_over(benchmark, durations)
