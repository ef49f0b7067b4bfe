"""Timing a user's own training step: ``--target my_step.py:make``.

``make(device)`` returns the step, a function without arguments, and the number of images that it
trains on; and where the device works on after the step has returned, a third value, a function that
waits for it. Without one PyTorch and TensorFlow on a GPU are waited for, and what a step of JAX
returns.
"""

from __future__ import annotations

import math
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.errors import UserError, first_line
from bench.speed.windows import AwaitTurn, WindowRecorder
from bench.training.memory import peak_host_bytes
from bench.workers.tasks import OwnStepTask, SpeedAnswer

WARMUP_STEPS = 4
WINDOW_S, MOST_STEPS = 0.05, 500
"""Seconds that a window lasts at least, and most steps in it for that."""
FORM = "def make(device): ...; return step, images_per_step"


class OwnStep(NamedTuple):
    """A step as the user's function made it."""

    step: Callable[[], object]
    images: int
    wait: Callable[[], object]
    """Returns when the device is done."""


def time_own_step(task: OwnStepTask, await_turn: AwaitTurn | None = None) -> SpeedAnswer:
    """Make the step of a task and time it in stretches that are waited for once; ``await_turn`` is
    called before each of them.

    Raises:
        UserError: The file, its function, or what that returns is not as expected.
    """
    began = time.perf_counter()
    own = _make(task)
    setup_s = time.perf_counter() - began

    def stretch_s(steps: int) -> float:
        own.wait()
        began = time.perf_counter()
        last: object = None
        for _ in range(steps):
            last = own.step()
        own.wait()
        _wait_for(last)
        return (time.perf_counter() - began) / steps

    warm_up = [stretch_s(1) for _ in range(WARMUP_STEPS)]
    rounds = max(task.rounds, math.ceil(WINDOW_S / max(min(warm_up), WINDOW_S / MOST_STEPS)))
    recorder = WindowRecorder(task.gpu_uuid, await_turn, lambda: stretch_s(1), with_children=True)
    recorder.record("train_step", lambda: stretch_s(rounds), task.stretches)
    usual_s = statistics.median(recorder.seconds("train_step"))
    return SpeedAnswer(
        windows=tuple(recorder.windows),
        images={"train_step": own.images},
        setup_s=setup_s,
        compile_s=max(warm_up[0] - usual_s, 0.0),
        peak_host_bytes=peak_host_bytes(),
    )


def _make(task: OwnStepTask) -> OwnStep:
    path = Path(task.file)
    where = f"{path.name}:{task.function}"
    sys.path.insert(0, str(path.resolve().parent))
    try:
        names = runpy.run_path(str(path), run_name="thawbench_target")
    except Exception as error:
        raise UserError(f"{path.name} cannot be run: {_named(error)}.") from error
    make = names.get(task.function)
    if not callable(make):
        known = sorted(n for n, v in names.items() if callable(v) and not n.startswith("_"))
        raise UserError(
            f"{path.name} has no function '{task.function}'.",
            f"It has: {', '.join(known) or 'none'}. Needed: {FORM}",
        )
    try:
        made = make(task.device)
    except Exception as error:
        raise UserError(f"{where} failed: {_named(error)}.") from error
    parts = made if isinstance(made, tuple) else (made,)
    step, images, *rest = (*parts, None, None)[: max(len(parts), 2)]
    wait = rest[0] if rest else _wait
    is_number = isinstance(images, int) and not isinstance(images, bool) and images > 0
    if not callable(step) or not is_number or len(parts) > 3 or not callable(wait):
        raise UserError(
            f"{where} must return a step, its images per step, and perhaps a function that waits "
            f"for the device; it returned {_described(parts)}.",
            f"Needed: {FORM}",
        )
    return OwnStep(step, images, wait)


def _wait() -> None:
    """Wait for the GPU where the user's code works through PyTorch or TensorFlow."""
    torch, tensorflow = (sys.modules.get(name) for name in ("torch", "tensorflow"))
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if tensorflow is not None:
        tensorflow.test.experimental.sync_devices()


def _wait_for(result: object) -> None:
    """Wait for arrays of JAX, which computes on after a call has returned, on a CPU too."""
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.block_until_ready(result)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _described(parts: tuple[object, ...]) -> str:
    return f"({', '.join(type(part).__name__ for part in parts)})"
