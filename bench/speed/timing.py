"""Timing a trainer on noise: steps, epochs and inference, with the steps and clocks of a run."""

from __future__ import annotations

import statistics
import time
from itertools import islice

import numpy as np

from bench.data import Split
from bench.network.blueprint import Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import Adapter
from bench.training.batches import TrainingBatches, input_threads
from bench.training.clocks import (
    WARMUP_STEPS,
    queue_s,
    seconds_of,
    step_durations,
    step_phases,
    stretch,
)
from bench.training.fit import infer, train_epoch
from bench.training.memory import peak_host_bytes
from bench.workers.tasks import SpeedAnswer, SpeedTask

STRETCHES = 5


def time_training(
    adapter: Adapter, network: Network, plan: TrainingPlan, task: SpeedTask
) -> SpeedAnswer:
    """Build a network, with its head, and time it on noise.

    Steps are queued in stretches that are waited for once, as in training; and beside that waited
    for one by one. On a CPU the two agree.
    """
    recipe = task.recipe
    began = time.perf_counter()
    trainer = adapter.build(network, plan, recipe, task.device)
    setup_s = time.perf_counter() - began
    split = _noise(recipe, task.epoch_steps, task.classes)
    threads = input_threads(task.device)
    batches = TrainingBatches(
        split, recipe, plan.dropouts, seed=0, threads=threads, epochs=range(task.epochs),
        allocate=trainer.host_array,
    )  # fmt: skip
    first_epoch = batches.epoch(0)
    prepared = trainer.to_device(next(first_epoch))
    first_epoch.close()
    durations = step_durations(trainer, prepared, recipe.learning_rate)
    warm_up = list(islice(durations, 1 + WARMUP_STEPS))
    warmup_bytes = trainer.peak_device_bytes()
    trainer.reset_peak()
    timed_steps = list(islice(durations, task.rounds))
    host_s = queue_s(trainer, prepared, recipe.learning_rate)
    queued = [
        stretch(trainer, prepared, recipe.learning_rate, task.rounds) for _ in range(STRETCHES)
    ]
    phases = step_phases(trainer, prepared, recipe.learning_rate, task.rounds)
    peak_bytes, reserved_bytes = trainer.peak_device_bytes(), trainer.reserved_device_bytes()
    wait, size = trainer.synchronise, recipe.batch_size
    images = split.images[:size]

    def epoch_s(number: int) -> float:
        return seconds_of(lambda: train_epoch(trainer, batches, recipe, number), wait)

    def inference_s() -> float:
        return seconds_of(lambda: infer(trainer, images, size, threads), wait)

    return SpeedAnswer(
        train_step_s=tuple(one.step_s for one in queued),
        waited_step_s=tuple(timed_steps),
        train_epoch_s=tuple(epoch_s(number) for number in range(task.epochs)),
        inference_s=tuple(inference_s() for _ in range(task.rounds + 1))[1:],
        images={"train_step": size, "train_epoch": len(split.labels), "inference": size},
        queue_s=host_s,
        device_step_s=tuple(s for one in queued for s in one.device_step_s),
        phases_s=phases,
        setup_s=setup_s,
        compile_s=max(warm_up[0] - statistics.median(timed_steps), 0.0),
        peak_host_bytes=peak_host_bytes(),
        peak_device_bytes=peak_bytes,
        warmup_device_bytes=warmup_bytes,
        reserved_device_bytes=reserved_bytes,
        knobs=trainer.knobs(),
    )


def _noise(recipe: Recipe, steps: int, classes: int) -> Split:
    random = np.random.default_rng(0)
    count = steps * recipe.batch_size
    images = random.integers(0, 256, (count, recipe.px, recipe.px, 3), np.uint8)
    return Split(images, random.integers(0, classes, count))
