"""Seconds of operations from a profiler's trace."""

from __future__ import annotations

import pytest

from backends.profile_trace import TraceEvent, is_device_plane, self_seconds

SECOND = 10**12


def test_an_operation_counts_without_those_inside_it() -> None:
    line = [
        TraceEvent("step", 0, 10 * SECOND),
        TraceEvent("conv.1", 1 * SECOND, 3 * SECOND),
        TraceEvent("im2col", 2 * SECOND, 1 * SECOND),
        TraceEvent("conv.2", 5 * SECOND, 2 * SECOND),
        TraceEvent("after", 12 * SECOND, 1 * SECOND),
    ]
    found = self_seconds([line, [TraceEvent("model/a/Conv2D:conv", 0, SECOND)]])
    assert found == pytest.approx({"step": 5, "conv": 5, "im2col": 1, "after": 1})


def test_planes_of_devices_and_threads_count() -> None:
    assert is_device_plane("/device:GPU:0")
    assert is_device_plane("/host:CPU")
    assert not is_device_plane("/host:metadata")
    assert not is_device_plane("/host:python-tracer")
