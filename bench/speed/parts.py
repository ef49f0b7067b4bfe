"""The parts of a training step, and its operations: where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from bench.speed.windows import AwaitTurn
from bench.training.adapter import Adapter, Trainer
from bench.training.batches import TrainingBatches

PROFILED_STEPS = 5


class PartTimer:
    """Times the parts of training steps."""

    def __init__(
        self, trainer: Trainer, make: Callable[[int], TrainingBatches], learning_rate: float
    ) -> None:
        """Store what a round needs.

        Args:
            trainer: A trainer that has warmed up.
            make: Returns the batches of one epoch only. Batches of several epochs are made ahead,
                which would hide their cost.
            learning_rate: Learning rate of the steps.
        """
        self._trainer, self._make, self._rate = trainer, make, learning_rate
        self.seconds: dict[str, list[float]] = {}

    def round(self, epoch: int) -> None:
        """Make the batches of an epoch, copy them, and train on them; each part is waited for."""
        trainer = self._trainer
        began = time.perf_counter()
        batches = self._make(epoch)
        made = list(batches.epoch(epoch))
        now = time.perf_counter()
        batches.close()
        parts = {"input": now - began}
        trainer.synchronise()
        began = time.perf_counter()
        prepared = [trainer.to_device(batch) for batch in made]
        trainer.synchronise()
        parts["copies"] = time.perf_counter() - began
        began = time.perf_counter()

        def after(phase: str) -> None:
            nonlocal began
            trainer.synchronise()
            now = time.perf_counter()
            parts[phase] = parts.get(phase, 0.0) + now - began
            began = now

        for each in prepared:
            trainer.step_in_phases(each, self._rate, after)
            if "forward" not in parts:
                after("step")  # the framework runs the step as one program
            else:
                trainer.synchronise()
                began = time.perf_counter()
        for part, seconds in parts.items():
            self.seconds.setdefault(part, []).append(seconds / len(made))


def time_parts(
    timer: PartTimer, epochs: Iterable[int], await_turn: AwaitTurn | None
) -> dict[str, tuple[float, ...]]:
    """Return the seconds of each part of a step, in rounds of turns."""
    for epoch in epochs:
        if await_turn is not None:
            await_turn()
        timer.round(epoch)
    return {part: tuple(seconds) for part, seconds in timer.seconds.items()}


def profiled_operations(
    adapter: Adapter, trainer: Trainer, step: Callable[[], Any], await_turn: AwaitTurn | None
) -> dict[str, float]:
    """Return the seconds of each operation in a step, by the framework's own profiler."""
    if await_turn is not None:
        await_turn()

    def work() -> None:
        for _ in range(PROFILED_STEPS):
            step()
        trainer.synchronise()

    found = adapter.profile(work)
    return {name: seconds / PROFILED_STEPS for name, seconds in found.items() if seconds > 0}
