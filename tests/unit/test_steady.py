"""An inference rate beside other work is measured again, or is not given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.training import run as training_run
from bench.training.clocks import Windows
from bench.training.run import MOST_REPEATS, Run
from tests.unit.test_training_run import NumpyTrainer, network, only_phase, packed, spec


def windows(*rates: float) -> Windows:
    return Windows(lambda: None, rates_per_s=list(rates))


@pytest.mark.parametrize(
    ("rates", "is_steady"),
    [
        ((100.0,) * 10, True),
        ((100.0, 95.0, 105.0, 98.0, 90.0, 101.0), True),
        ((100.0,) * 9 + (10.0,), True),  # one slow window is no other work
        ((100.0,) * 6 + (10.0,) * 3, False),
        ((100.0, 10.0), True),  # too few to see it
        ((), True),
    ],
)
def test_a_slow_quarter_of_the_windows_shows_other_work(
    rates: tuple[float, ...], is_steady: bool
) -> None:
    assert windows(*rates).is_steady is is_steady


@pytest.mark.parametrize(("disturbed", "passes", "rate"), [(0, 1, 100.0), (1, 2, 100.0),
                                                         (9, 1 + MOST_REPEATS, None)])  # fmt: skip
def test_inference_is_measured_again_where_it_was_disturbed(
    monkeypatch: pytest.MonkeyPatch, disturbed: int, passes: int, rate: float | None
) -> None:
    """The test images are evaluated once; further passes are for their speed alone."""
    timed: list[Windows] = []
    real: Callable[..., Any] = training_run.infer

    def infer(
        trainer: Any, images: Any, size: int, threads: int, given: Windows | None = None, **_: Any
    ) -> Any:
        logits = real(trainer, images, size, threads)
        if given is not None:
            timed.append(given)
            slow = 10.0 if len(timed) <= disturbed else 100.0
            given.rates_per_s += [100.0] * 6 + [slow] * 3
        return logits

    monkeypatch.setattr(training_run, "infer", infer)
    what = spec()
    trainer = NumpyTrainer(network())
    first = only_phase(what, trainer)
    fields = Run(what, trainer.net, packed(), first, lambda event: None)(time.perf_counter()).fields
    assert len(timed) == passes
    assert fields["infer_images_per_s"] == rate
    said = any("inference was disturbed" in note for note in fields["notes"])
    assert said is (rate is None)
    assert fields["test_top1"] is not None
