"""Timed windows, each with the state of the machine before and after it."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.system.machine_state import read_state, sibling_processes
from bench.workers.tasks import SpeedMeasure, SpeedWindow

AwaitTurn = Callable[[], None]
"""Returns when this process may time a window, because no other one does."""


class WindowRecorder:
    """Records windows in order."""

    def __init__(
        self, gpu_uuid: str | None, await_turn: AwaitTurn | None, warm: Callable[[], object],
        with_children: bool = False,
    ) -> None:  # fmt: skip
        """Prepare to record.

        Args:
            gpu_uuid: UUID of the GPU whose state is read, too; None on a CPU.
            await_turn: Called before each window; None if no other process takes turns.
            warm: Work to do untimed after each wait, as another process has used the caches.
            with_children: True if the work may start processes of its own, such as those that load
                data: theirs is no other work.
        """
        self._gpu_uuid, self._await_turn, self._warm = gpu_uuid, await_turn, warm
        self._with_children = with_children
        # Those that take the other turns wait meanwhile: their place on the GPU is no other work.
        self._ours = (os.getpid(), *(sibling_processes() if await_turn is not None else ()))
        self.windows: list[SpeedWindow] = []

    def record(self, measure: SpeedMeasure, work: Callable[[], float], count: int) -> None:
        """Do ``work``, which returns its seconds, ``count`` times; the state is read outside."""
        for _ in range(count):
            if self._await_turn is not None:
                self._await_turn()
                self._warm()
            before = read_state(self._gpu_uuid, self._ours, self._with_children)
            seconds = work()
            after = read_state(self._gpu_uuid, self._ours, self._with_children)
            self.windows.append(
                SpeedWindow(measure=measure, seconds=seconds, before=before, after=after)
            )

    def seconds(self, measure: SpeedMeasure) -> list[float]:
        """Return the seconds of the windows of a measure."""
        return [window.seconds for window in self.windows if window.measure == measure]
