"""Measure how fast batches are made, by the number of threads, without any framework."""

from __future__ import annotations

import os
import time

import numpy as np

from bench.data import Split
from bench.spec.plain import plain_recipe
from bench.training.batches import TrainingBatches, input_threads, view_batches
from tools.gpu_steps.common import Findings, StepOptions

BATCH_SIZES = (64, 256)
IMAGES = 2048


def feed(options: StepOptions) -> Findings:
    """Measure epochs of batches at 224 px, with and without augmentation, and one pass over all
    views; images are mapped from a file that lies in memory."""
    threads_here = input_threads("cuda:0")
    found: Findings = {"threads_on_this_machine": threads_here, "rates": []}
    px, count = options.px, 128 if options.small else IMAGES
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "images.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, px, px, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    split = Split(np.load(path, mmap_mode="r"), np.zeros(count, np.int64))
    counts = sorted({1, 2, threads_here, min(16, len(os.sched_getaffinity(0)))})
    for batch_size in BATCH_SIZES:
        for augmentation in ("none", "crop_flip"):
            recipe = plain_recipe("linear", px, batch_size)
            recipe = recipe.model_copy(update={"augmentation": augmentation})
            for threads in counts:
                batches = TrainingBatches(split, recipe, (), 0, threads=threads)
                for _ in batches.epoch(0):  # reads the file
                    pass
                began = time.perf_counter()
                for _ in batches.epoch(1):
                    pass
                rate = count / (time.perf_counter() - began)
                found["rates"].append(
                    {"px": px, "batch_size": batch_size, "augmentation": augmentation,
                     "threads": threads, "images_per_s": round(rate)}
                )  # fmt: skip
    recipe = plain_recipe("linear", px, 64)
    recipe = recipe.model_copy(update={"augmentation": "crop_flip", "views": 2})
    began = time.perf_counter()
    seen = sum(map(len, view_batches(split, recipe, 0, True, threads_here)))
    found["pass_over_views_images_per_s"] = round(seen / (time.perf_counter() - began))
    path.unlink()
    return found
