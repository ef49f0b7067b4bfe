"""Options, clock and output of the peer programs; imports neither a framework nor Thawbench."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
WARMUP_STEPS = 3
WINDOW_S = 0.1
LEAST_WINDOWS = 3


def make_parser(description: str, backbones: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the options of every peer; defaults are those of a Thawbench run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="holds {train,val,test}/CLASS/*.jpg")
    add("--backbone", choices=backbones, required=True)
    add("--weights", default="random", help="random, or the file of EfficientNet-Lite0's package")
    add("--px", type=int, default=96, help="height and width of the input")
    add("--epochs", type=int, default=10)
    add("--batch-size", type=int, default=32)
    add("--learning-rate", type=float, default=1e-3, help="peak, of AdamW")
    add("--weight-decay", type=float, default=1e-4)
    add("--warmup-fraction", type=float, default=0.1, help="share of the steps; then half a cosine")
    add("--seed", type=int, default=0)
    add("--whole", action="store_true", help="train the whole network; measures only images/s")
    return parser


def rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Return the learning rate at ``step`` of ``steps`` over its peak: linear warm-up, then half a
    cosine (Loshchilov & Hutter 2017, without restarts)."""
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def process_age_s() -> float:
    """Return seconds since this process started, including interpreter and imports.

    Source: proc_pid_stat(5): field 22 is the start in clock ticks after boot.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began_s = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_s


class Stopwatch:
    """A meter of images/s in windows of whole steps, by the rule of Thawbench's own measurement:
    without the first steps of the run, with the time spent waiting for input."""

    def __init__(self, synchronise: Callable[[], object] | None = None) -> None:
        """Take the function that waits for a GPU; on a CPU there is nothing to wait for."""
        self._synchronise = synchronise
        self.rates_per_s: list[float] = []
        self._warmup_steps = WARMUP_STEPS
        self._opened = 0.0
        self._images = 0

    def open(self) -> None:
        """Start an epoch."""
        if self._synchronise is not None:
            self._synchronise()
        self._opened, self._images = time.perf_counter(), 0

    def step(self, images: int) -> None:
        """Count a step over ``images`` images that is done or queued on the device."""
        if self._warmup_steps > 0:
            self._warmup_steps -= 1
            self.open()
            return
        self._images += images
        elapsed = time.perf_counter() - self._opened
        if elapsed >= WINDOW_S:
            if self._synchronise is not None:
                self._synchronise()
                elapsed = time.perf_counter() - self._opened
            self.rates_per_s.append(self._images / elapsed)
            self.open()

    def fields(self) -> dict[str, Any]:
        """Return the fields for the answer; the rate is null with too few windows."""
        enough = len(self.rates_per_s) >= LEAST_WINDOWS
        return {
            "train_images_per_s": statistics.median(self.rates_per_s) if enough else None,
            "train_images_per_s_windows": self.rates_per_s,
        }


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect what a framework prints to stderr; stdout is for the answer."""
    with redirect_stdout(sys.stderr):
        yield


def class_names(folder: Path) -> list[str]:
    """Return the classes, sorted by name as the labels of all three frameworks are."""
    return sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())


def count_images(folder: Path) -> dict[str, int]:
    """Return split → number of images."""
    return {split: sum(1 for _ in (folder / split).glob("*/*")) for split in SPLITS}


def in_path_order(files: Sequence[str | Path], correct: Sequence[Any]) -> dict[str, Any]:
    """Return top-1 and the correctness of each test image, sorted by (class, file name).

    Args:
        files: The test images, in any order.
        correct: True for each of ``files`` that was classified correctly.
    """
    keys = [Path(file).parts[-2:] for file in files]
    ordered = sorted(zip(keys, correct, strict=True))
    right = [int(c) for _, c in ordered]
    return {
        "test_top1": sum(right) / len(right),
        "correct": right,
        "test_order_sha256": order_sha256([k for k, _ in ordered]),
    }


def order_sha256(keys: Sequence[tuple[str, ...]]) -> str:
    """Return the SHA-256 (hex) of a sequence of (class, file name)."""
    return hashlib.sha256("\n".join("/".join(key) for key in keys).encode()).hexdigest()


def print_answer(options: argparse.Namespace, packages: Sequence[str], **fields: Any) -> None:
    """Print the answer: one JSON line with options, results and versions."""
    document = {
        "backbone": options.backbone,
        "weights": "random" if options.weights == "random" else Path(options.weights).name,
        "px": options.px,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "images": count_images(options.folder),
        **fields,
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    print(json.dumps(document, allow_nan=False), file=sys.__stdout__, flush=True)
