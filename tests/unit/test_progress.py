"""The estimate of the time left, and progress as plain lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.cli.progress import LineDisplay, display, labels
from bench.cli.run_clock import RunClock, duration, work
from bench.spec.result import RunResult
from bench.spec.run import RunSpec
from bench.workers.events import Epoch, PrefixShare, Probed, RateTrial, Step, SweepEpoch

MakeSpec = Callable[..., RunSpec]


class Watch:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def watch() -> Watch:
    return Watch()


def _pass(clock: RunClock, watch: Watch, spec: RunSpec, seconds: float, is_ok: bool = True) -> None:
    clock.begin(spec)
    watch.now_s += seconds
    clock.end(is_ok)


def test_the_time_left_is_unknown_before_a_measurement(make_spec: MakeSpec, watch: Watch) -> None:
    clock = RunClock([make_spec(seed=s) for s in (0, 1)], watch)
    assert clock.left_s() is None
    clock.begin(make_spec(seed=0))
    watch.now_s += 5.0
    assert clock.left_s() is None
    assert duration(clock.left_s()) == "?"


def test_each_backend_goes_on_at_its_own_speed(make_spec: MakeSpec, watch: Watch) -> None:
    fast = [make_spec(backend="torch", seed=s) for s in range(5)]
    slow = [make_spec(backend="keras-torch", seed=s) for s in range(3)]
    clock = RunClock([*fast, *slow], watch)
    _pass(clock, watch, fast[0], 10.0)
    _pass(clock, watch, slow[0], 100.0)
    assert clock.left_s() == pytest.approx(4 * 10.0 + 2 * 100.0)
    assert clock.done_share() == pytest.approx(2 / 8)
    for spec in fast[1:]:
        _pass(clock, watch, spec, 20.0)
    assert clock.left_s() == pytest.approx(2 * 100.0)


def test_a_backend_that_was_not_seen_is_as_fast_as_all_others(
    make_spec: MakeSpec, watch: Watch
) -> None:
    runs = [make_spec(backend=b) for b in ("torch", "keras-tensorflow", "keras-jax")]
    clock = RunClock(runs, watch)
    _pass(clock, watch, runs[0], 10.0)
    _pass(clock, watch, runs[1], 30.0)
    assert clock.left_s() == pytest.approx(20.0)


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "vgg16"}, {"policy": {"name": "b"}}, {"policy": {"boundary": "all"}},
        {"mode": "native"}, {"recipe": {"precision": "bf16"}}, {"recipe": {"prefix_cache": "off"}},
        {"recipe": {"augmentation": "crop"}}, {"recipe": {"learning_rate_grid": (0.1, 0.2)}},
        {"device": "cuda:0"},
    ],
)  # fmt: skip
def test_each_network_and_setting_goes_on_at_its_own_speed(
    make_spec: MakeSpec, watch: Watch, other: dict[str, Any]
) -> None:
    runs = [make_spec(seed=s) for s in range(4)]
    others = [make_spec(seed=s, **other) for s in range(2)]
    clock = RunClock([*runs, *others], watch)
    _pass(clock, watch, runs[0], 2.0)
    clock.begin(others[0])
    watch.now_s += 3.0
    clock.heard(0.5)
    watch.now_s += 25.0
    clock.heard(0.75)
    assert clock.left_s() == pytest.approx(3 * 2.0 + 25.0 + 100.0)
    watch.now_s += 22.0
    clock.end(True)
    assert clock.left_s() == pytest.approx(3 * 2.0 + 50.0)


def test_twice_the_work_takes_twice_as_long(make_spec: MakeSpec, watch: Watch) -> None:
    short, long = make_spec(recipe={"epochs": 4}), make_spec(recipe={"epochs": 8})
    clock = RunClock([short, long], watch)
    _pass(clock, watch, short, 7.0)
    assert clock.left_s() == pytest.approx(7.0 * work(long) / work(short))


def test_the_current_run_counts_from_its_first_step_on(make_spec: MakeSpec, watch: Watch) -> None:
    runs = [make_spec(seed=s) for s in (0, 1)]
    clock = RunClock(runs, watch)
    clock.begin(runs[0])
    watch.now_s += 30.0  # a framework is imported
    clock.heard(0.1)
    assert clock.left_s() is None
    watch.now_s += 2.0
    clock.heard(0.2)
    assert clock.left_s() == pytest.approx(0.8 * 20.0 + 20.0)
    watch.now_s += 3.0  # the estimate falls between events
    assert clock.left_s() == pytest.approx(0.8 * 20.0 - 3.0 + 20.0)
    watch.now_s += 1_000.0  # but never below the time of the other runs
    assert clock.left_s() == pytest.approx(20.0)
    clock.end(True)
    assert clock.left_s() == pytest.approx(1_035.0)


def test_a_run_without_progress_does_not_count_for_the_speed(
    make_spec: MakeSpec, watch: Watch
) -> None:
    runs = [make_spec(seed=s) for s in range(4)]
    clock = RunClock(runs, watch)
    _pass(clock, watch, runs[0], 0.01, is_ok=False)
    assert clock.left_s() is None
    _pass(clock, watch, runs[1], 10.0)
    assert clock.left_s() == pytest.approx(2 * 10.0)
    clock.begin(runs[2])
    watch.now_s += 4.0
    clock.heard(0.5)
    clock.end(False)  # diverged half-way, in 4 s
    assert clock.left_s() == pytest.approx(14.0 / 1.5)


def test_a_sweep_takes_the_time_of_its_first_run(make_spec: MakeSpec, watch: Watch) -> None:
    rates = (0.1, 0.2, 0.3)
    runs = [
        make_spec(recipe={"sweep": True, "learning_rate": rate}, case={"size": size})
        for size in ("small", "medium")
        for rate in rates
    ]
    clock = RunClock(runs, watch)
    clock.begin(runs[0])
    clock.heard(0.0)
    watch.now_s += 6.0
    clock.heard(0.5)
    assert clock.left_s() == pytest.approx(6.0 + 12.0)
    watch.now_s += 6.0
    clock.end(True)
    for spec in runs[1:3]:
        _pass(clock, watch, spec, 0.0)
    assert clock.left_s() == pytest.approx(12.0)
    assert clock.done_share() == pytest.approx(0.5)


def test_runs_that_would_look_alike_are_named_by_what_differs(make_spec: MakeSpec) -> None:
    alone = labels([make_spec()])
    pair = [make_spec(recipe={"precision": precision}) for precision in ("fp32", "bf16")]
    rates = [make_spec(recipe={"learning_rate": rate}, seed=1) for rate in (0.01, 0.1)]
    found = labels([*pair, *rates])
    (usual,) = alone.values()
    assert [found[spec.run_id] for spec in pair] == [
        f"{usual} precision fp32", f"{usual} precision bf16",
    ]  # fmt: skip
    assert [found[spec.run_id].partition("seed 1 ")[2] for spec in rates] == [
        "learning rate 0.01", "learning rate 0.1",
    ]  # fmt: skip


def test_all_done_is_nothing_left(make_spec: MakeSpec, watch: Watch) -> None:
    runs = [make_spec(seed=s) for s in (0, 1)]
    clock = RunClock(runs, watch)
    for spec in runs:
        _pass(clock, watch, spec, 3.0)
    assert (clock.left_s(), clock.done_share()) == (0.0, 1.0)
    assert RunClock([], watch).done_share() == 1.0


def test_elsewhere_than_on_a_terminal_each_thing_is_a_line(
    make_spec: MakeSpec,
    make_result: Callable[..., RunResult],
    make_environment: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = make_spec()
    shown = display([spec])
    assert isinstance(shown, LineDisplay)
    shown.note("1 of 1 runs to do")
    shown.begin(spec)
    shown.event(spec, PrefixShare(share=0.5))
    shown.event(spec, PrefixShare(share=1.0))
    shown.event(spec, RateTrial(number=1, of=3))
    shown.event(spec, RateTrial(number=1, of=3, phase=2, phases=4))
    shown.event(spec, Step(share=0.25))
    shown.event(spec, Epoch(epoch=6, epochs=12, train_loss=0.5, val_top1=0.8))
    shown.event(spec, SweepEpoch(epoch=12, epochs=12, val_top1=0.9))
    shown.event(spec, Probed(key="x"))
    shown.end(spec, make_result(spec, make_environment()))
    shown.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "1 of 1 runs to do",
        "[1/1, ? left] case 1 photos (216) efficientnet_lite0 freeze_all torch seed 0",
        "    frozen part computed",
        "    trying learning rate 1 of 3",
        "    trying learning rate 1 of 3, phase 2 of 4",
        "    epoch 6/12 loss 0.500 val 80.0%",
        "    epoch 12/12 best val 90.0%",
        "    test top-1 75.1%, fit 12.3 s, 123 images/s",
    ]
