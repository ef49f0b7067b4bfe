"""The figures of a run on a GPU, by a trainer whose device is a clock of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.training import measurements
from bench.training.adapter import Batch
from bench.training.clocks import FirstCalls, Windows

IMAGES = 8


@dataclass
class _Gpu:
    """A device with a queue: a step takes the host ``host_s`` and the device ``device_s``."""

    host_s: float
    device_s: float
    has_events: bool
    waits_for_steps: bool = False
    now: float = 0.0
    done_at: float = 0.0
    marks: list[float] = field(default_factory=list)

    def to_device(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, prepared: Batch, learning_rate: float) -> None:
        assert learning_rate == 0.0, "figures change nothing"
        self.now += self.host_s
        self.done_at = max(self.done_at, self.now) + self.device_s

    def synchronise(self) -> None:
        self.now = max(self.now, self.done_at)

    def events(self) -> Any:
        return self if self.has_events else None

    def mark(self) -> None:
        self.marks.append(max(self.done_at, self.now))

    def seconds(self) -> list[float]:
        return list(np.diff(self.marks))


def _fields(
    monkeypatch: pytest.MonkeyPatch, gpu: _Gpu, rate: float | None
) -> tuple[dict[str, Any], list[str]]:
    monkeypatch.setattr(time, "perf_counter", lambda: gpu.now)
    windows = Windows(gpu.synchronise, "cuda:0")
    if rate is not None:
        windows.rates_per_s = [rate] * 5
    windows.seconds, windows.waited_s = 10.0, 9.0
    batch = Batch(np.zeros((IMAGES, 2, 2, 3), np.uint8), np.zeros(IMAGES, np.int64), ())
    fit: Any = SimpleNamespace(
        windows=windows,
        first_batch=batch,
        trainer=gpu,
        step_s=[99.0],
        calls=FirstCalls(lambda: None),
    )
    notes: list[str] = []
    return measurements.whole_step_fields(fit, "cuda:0", notes), notes


@pytest.mark.parametrize("has_events", [True, False])
def test_host_work_is_hidden_behind_the_device(
    monkeypatch: pytest.MonkeyPatch, has_events: bool
) -> None:
    """Steps that are waited for one by one would take 12 ms here."""
    found, notes = _fields(monkeypatch, _Gpu(0.002, 0.010, has_events), rate=600.0)
    assert found["compute_images_per_s"] == pytest.approx(IMAGES / 0.010, rel=0.02)
    assert found["queue_s"] == pytest.approx(0.002)
    assert found.get("device_step_s") == (pytest.approx(0.010) if has_events else None)
    assert found["step_s_p50"] == pytest.approx(0.010 if has_events else 0.012)
    assert notes == []


def test_waiting_for_input_is_what_training_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waited for input in 90 % of the time while the device still had work."""
    found, _ = _fields(monkeypatch, _Gpu(0.002, 0.010, True), rate=600.0)
    assert found["input_wait_fraction"] == pytest.approx(0.25, abs=0.02)
    found, _ = _fields(monkeypatch, _Gpu(0.002, 0.010, True), rate=900.0)
    assert found["input_wait_fraction"] == 0.0


def test_a_speed_that_is_pythons_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = _fields(monkeypatch, _Gpu(0.009, 0.001, True), rate=600.0)
    assert found["queue_s"] == pytest.approx(0.009)
    (note,) = notes
    assert note.startswith("the host needs 9.0 ms to queue a step of 9.1 ms")
    assert "not of the GPU" in note


def test_a_framework_that_waits_for_its_steps_is_not_called_host_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keras's ``train_on_batch`` returns the loss as a number."""
    gpu = _Gpu(0.009, 0.001, False, waits_for_steps=True)
    found, notes = _fields(monkeypatch, gpu, rate=600.0)
    assert found["queue_s"] is None
    assert notes == []


def test_memory_of_phases_is_the_largest_where_all_is_known() -> None:
    phases = [{"peak_device_bytes": 5, "reserved_device_bytes": None},
              {"peak_device_bytes": 9, "reserved_device_bytes": 3}]  # fmt: skip
    assert measurements.largest(phases) == {"peak_device_bytes": 9, "reserved_device_bytes": None}
