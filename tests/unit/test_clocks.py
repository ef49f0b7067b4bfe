"""Clocks: what a window includes, and when there is no figure."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field

import pytest

from bench.training import clocks
from bench.training.clocks import GPU_WINDOW_S, LEAST_WINDOWS, FirstCalls, Windows, queue_s, stretch
from bench.training.memory import peak_host_bytes

WINDOW_S = 0.25
"""Window of these tests, independent of the real one."""


@dataclass
class _Device:
    """A clock that only ``work`` moves, and a device with queued work."""

    now: float = 100.0
    queued: float = 0.0
    synchronised: list[float] = field(default_factory=list)

    def work(self, host_s: float, device_s: float = 0.0) -> None:
        self.now += host_s
        self.queued += device_s

    def synchronise(self) -> None:
        self.now += self.queued
        self.queued = 0.0
        self.synchronised.append(self.now)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _Device:
    device = _Device()
    monkeypatch.setattr(clocks, "WINDOW_S", WINDOW_S)
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: device.now)
    return device


def _steps(windows: Windows, device: _Device, count: int, step_s: float, images: int = 8) -> None:
    for _ in range(count):
        device.work(step_s)
        windows.step(images)


def test_the_rate_is_images_over_time(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    _steps(windows, device, 30, 0.1)
    # A window closes with the first step that ends WINDOW_S after it opened: 3 steps of 0.1 s.
    assert windows.rates_per_s == pytest.approx([80.0] * 10)
    assert windows.median_per_s() == pytest.approx(80.0)
    assert windows.seconds == pytest.approx(3.0)


def test_warm_up_steps_are_in_no_window(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=2)
    windows.open()
    _steps(windows, device, 2, 50.0)
    _steps(windows, device, 12, 0.1)
    assert windows.rates_per_s == pytest.approx([80.0] * 4)


def test_a_window_ends_when_the_device_is_done_not_when_work_is_queued(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    for _ in range(30):
        device.work(0.1, device_s=0.3)
        windows.step(8)
    assert windows.median_per_s() == pytest.approx(20.0)
    assert len(device.synchronised) >= 2 * len(windows.rates_per_s)


def test_only_real_images_count(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    for images in (8, 8, 2):
        _steps(windows, device, 1, 0.1, images)
    assert windows.rates_per_s == pytest.approx([18 / 0.3])


def test_the_time_between_epochs_is_in_no_window(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    for _ in range(3):
        windows.open()
        _steps(windows, device, 2, 0.1)
        windows.close()
        device.work(1000.0)
    assert windows.rates_per_s == pytest.approx([80.0] * 3)
    windows.close()
    assert len(windows.rates_per_s) == 3


def test_a_window_of_one_short_step_is_dropped_and_one_long_step_is_not(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    _steps(windows, device, 1, 0.1)
    windows.close()
    assert windows.rates_per_s == []
    windows.open()
    _steps(windows, device, 1, WINDOW_S * 2, images=1)
    assert windows.rates_per_s == pytest.approx([1 / (WINDOW_S * 2)])


def test_the_wait_for_input_is_that_of_closed_windows(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=1)
    windows.open()
    windows.step(8, waited_s=99.0)
    for _ in range(6):
        device.work(0.1)
        windows.step(8, waited_s=0.05)
    assert windows.waited_s / windows.seconds == pytest.approx(0.5)


def test_with_too_few_windows_there_is_no_figure(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    assert windows.median_per_s() is None
    _steps(windows, device, 3 * (LEAST_WINDOWS - 1), 0.1)
    assert windows.median_per_s() is None
    _steps(windows, device, 3, 0.1)
    assert windows.median_per_s() == pytest.approx(80.0)


def test_the_median_is_not_moved_by_one_slow_window(device: _Device) -> None:
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    _steps(windows, device, 6, 0.1)
    _steps(windows, device, 1, 60.0)
    _steps(windows, device, 6, 0.1)
    assert windows.median_per_s() == pytest.approx(80.0)


def test_peak_memory_is_in_bytes() -> None:
    block = bytearray(64 << 20)
    peak = peak_host_bytes()
    assert len(block) < peak < 1 << 40
    if sys.platform == "linux":
        with open("/proc/self/status") as file:
            high = next(int(x.split()[1]) for x in file if x.startswith("VmHWM"))
        assert peak == pytest.approx(high * 1024, rel=0.2)


def test_a_step_that_is_left_out_is_in_no_window(device: _Device) -> None:
    """The first step of another batch size may compile for a minute."""
    windows = Windows(device.synchronise, warmup_steps=0)
    windows.open()
    _steps(windows, device, 3, 0.1)
    windows.close()
    device.work(60.0)
    windows.leave_out()
    _steps(windows, device, 6, 0.1)
    windows.close()
    assert windows.rates_per_s == pytest.approx([80.0] * 3)


def test_windows_are_longer_on_a_gpu(device: _Device) -> None:
    """A GPU stands still at the end of each window, until the next steps are launched."""
    assert Windows(device.synchronise, "cuda:0").window_s == GPU_WINDOW_S
    assert Windows(device.synchronise, "cpu").window_s == WINDOW_S < GPU_WINDOW_S


def _call(calls: FirstCalls, device: _Device, work: str, images: int, device_s: float) -> None:
    calls.time(work, images, lambda: device.work(0.01, device_s))


def test_first_calls_of_each_batch_size_are_compilation(device: _Device) -> None:
    """JAX compiles for each size; cuDNN searches for kernels for each."""
    calls = FirstCalls(device.synchronise)
    assert calls.compile_s() is None
    assert calls.is_first("training", 8)
    _call(calls, device, "training", 8, 20.0)
    assert not calls.is_first("training", 8)
    assert calls.compile_s() is None, "nothing to compare it with"
    for _ in range(3):
        _call(calls, device, "training", 8, 0.79)
    assert calls.compile_s() == pytest.approx(19.21)
    assert calls.is_first("training", 2)
    _call(calls, device, "training", 2, 10.0)  # comes once: 2 images at 0.1 s each
    assert calls.compile_s() == pytest.approx(19.21 + 9.81)
    _call(calls, device, "inference", 8, 5.0)
    _call(calls, device, "inference", 8, 1.0)
    assert calls.compile_s() == pytest.approx(19.21 + 9.81 + 4.0)
    assert calls.compile_s("training") == pytest.approx(19.21 + 9.81)


def test_later_calls_are_not_waited_for(device: _Device) -> None:
    calls = FirstCalls(device.synchronise)
    for _ in range(5):
        _call(calls, device, "training", 8, 1.0)
    assert device.queued == pytest.approx(3.0)


class _Events:
    def __init__(self, device: _Device) -> None:
        self.device, self.marks = device, [0.0]

    def mark(self) -> None:
        self.marks.append(self.device.now + self.device.queued)

    def seconds(self) -> list[float]:
        marks = self.marks[1:]
        return [b - a for a, b in itertools.pairwise(marks)]


LAUNCHES = 2
"""Steps that a driver lets wait before it makes the host wait."""


@dataclass
class _Trainer:
    """A step takes the host 2 ms and the device 10 ms; the driver's queue is bounded."""

    device: _Device
    has_events: bool = True
    waits_for_steps: bool = False

    def synchronise(self) -> None:
        self.device.synchronise()

    def events(self) -> _Events | None:
        return _Events(self.device) if self.has_events else None

    def train_step(self, prepared: object, learning_rate: float) -> None:
        self.device.now += 0.002
        self.device.queued = max(self.device.queued - 0.002, 0.0) + 0.010
        over = self.device.queued - LAUNCHES * 0.010
        if over > 0:
            self.device.now += over
            self.device.queued -= over


@pytest.mark.parametrize("has_events", [True, False])
def test_a_stretch_of_steps_is_waited_for_once(device: _Device, has_events: bool) -> None:
    found = stretch(_Trainer(device, has_events), None, 0.0, 20)  # type: ignore[arg-type]
    assert found.step_s == pytest.approx(0.01, rel=0.02)
    assert len(found.device_step_s) == (20 if has_events else 0)


def test_the_time_to_queue_a_step_is_the_hosts_own(device: _Device) -> None:
    """Twenty steps in a row would show the device's time, as the queue is full by then."""
    trainer = _Trainer(device)
    assert queue_s(trainer, None, 0.0) == pytest.approx(0.002)  # type: ignore[arg-type]
    trainer.waits_for_steps = True
    assert queue_s(trainer, None, 0.0) is None  # type: ignore[arg-type]
