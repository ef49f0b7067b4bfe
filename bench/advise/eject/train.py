"""Do the full run of a recommendation: by its own project, in a process of its framework alone."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from bench.advise.advice import Interval, Strategy, Trained
from bench.catalog.backends import BACKENDS
from bench.errors import WorkerFailed
from bench.workers.process import Interpreters

RESULT_FILE = "result.json"
ROUNDING = 1e-6
"""Difference of two equal accuracies of which one was computed with 32 bits."""
SAVED = {"torch": ("model.safetensors", "model.pt2", "model.onnx"),
         "keras-tensorflow": ("model.keras", "model.onnx")}  # fmt: skip
"""Backend → files that its script may write."""


def train_project(
    folder: Path, strategy: Strategy, interpreters: Interpreters, device: str,
    say: Callable[[str], None], limit_s: float | None = None,
) -> Trained:  # fmt: skip
    """Run the script of a project, and return its outcome.

    Args:
        strategy: The recommendation that the project is of.
        say: Takes each line that the script prints.
        limit_s: Longest time; None: no limit.

    Raises:
        WorkerFailed: The script failed, the message has its last line; or it took too long.
    """
    environment = BACKENDS[strategy.backend].environment(os.environ, device)
    environment["CUDA_VISIBLE_DEVICES"] = _visible_gpu(device)
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    command = [str(interpreters.of(strategy.backend)), "-P", "train.py"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        timer, last = _Limit(process, limit_s), ""
        for line in filter(str.strip, process.stdout):
            last = line.rstrip()
            say(last)
        timer.cancel()
    if timer.has_ended:
        raise WorkerFailed(
            f"the full run in '{folder}' did not fit the budget, and was ended. To do it: "
            f"cd '{folder}' && {' '.join(command)}"
        )
    if process.returncode != 0:
        raise WorkerFailed(f"the full run in '{folder}' failed: {last}")
    try:
        found = json.loads((folder / RESULT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise WorkerFailed(f"the full run left no {RESULT_FILE} in '{folder}': {error}") from error
    return Trained(
        **found,
        saved=tuple(name for name in SAVED[strategy.backend] if (folder / name).is_file()),
        folder=str(folder),
        is_as_predicted=is_within(found["test_top1"], strategy.interval or (0.0, 1.0)),
    )


def is_within(top1: float, interval: Interval) -> bool:
    """Return True if an accuracy is in an interval. Its ends are numbers of images over all, as the
    accuracy is, so that it may equal one of them but for rounding."""
    low, high = interval
    return low - ROUNDING <= top1 <= high + ROUNDING


class _Limit:
    """Ends a process after a time, unless it is cancelled before."""

    def __init__(self, process: subprocess.Popen[str], limit_s: float | None) -> None:
        self.has_ended, self._process = False, process
        self._timer = None if limit_s is None else threading.Timer(limit_s, self._end)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Let the process go on."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.has_ended = True
        self._process.kill()


def _visible_gpu(device: str) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES with which the script, which uses the first GPU that
    it sees, uses ``device``; ``cuda:N`` counts the GPUs that this process sees."""
    if device == "cpu":
        return ""
    number = device.removeprefix("cuda:")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[int(number)].strip() if visible else number
