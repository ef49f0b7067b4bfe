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
from bench.speed.parts import PartTimer, profiled_operations, time_parts
from bench.speed.windows import AwaitTurn, WindowRecorder
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


def time_training(
    adapter: Adapter, network: Network, plan: TrainingPlan, task: SpeedTask,
    await_turn: AwaitTurn | None = None,
) -> SpeedAnswer:  # fmt: skip
    """Build a network, with its head, and time it on noise.

    Steps are queued in stretches that are waited for once, as in training; and beside that, where
    the task asks for details, waited for one by one. On a CPU the two agree. ``await_turn`` is
    called before each window.
    """
    recipe, rate = task.recipe, task.recipe.learning_rate
    began = time.perf_counter()
    trainer = adapter.build(network, plan, recipe, task.device)
    setup_s = time.perf_counter() - began
    split = _noise(recipe, task.epoch_steps, task.classes)
    threads = input_threads(task.device)

    def batches_of(epochs: range) -> TrainingBatches:
        return TrainingBatches(
            split, recipe, plan.dropouts, seed=0, threads=threads, epochs=epochs,
            allocate=trainer.host_array,
        )  # fmt: skip

    first = batches_of(range(1))
    first_epoch = first.epoch(0)
    prepared = trainer.to_device(next(first_epoch))
    first_epoch.close()
    first.close()
    durations = step_durations(trainer, prepared, rate)
    warm_up = list(islice(durations, 1 + WARMUP_STEPS))
    warmup_bytes = trainer.peak_device_bytes()
    trainer.reset_peak()
    device_step_s: list[float] = []

    def one_stretch() -> float:
        found = stretch(trainer, prepared, rate, task.rounds)
        device_step_s.extend(found.device_step_s)
        return found.step_s

    waited = list(islice(durations, task.rounds)) if task.details else []
    queue = queue_s(trainer, prepared, rate) if task.details else None
    recorder = WindowRecorder(task.gpu_uuid, await_turn, lambda: next(durations))
    recorder.record("train_step", one_stretch, task.stretches)
    phases = step_phases(trainer, prepared, rate, task.rounds) if task.details else {}
    peak_bytes, reserved_bytes = trainer.peak_device_bytes(), trainer.reserved_device_bytes()
    wait, size = trainer.synchronise, recipe.batch_size
    images, numbers = split.images[:size], iter(range(task.epochs))

    def epoch_s() -> float:
        """Time an epoch with the making of all its batches, none of them ahead of it."""
        number = next(numbers)

        def epoch() -> None:
            own = batches_of(range(number, number + 1))
            train_epoch(trainer, own, recipe, number)
            own.close()

        return seconds_of(epoch, wait)

    def inference_s(count: int) -> float:
        each_s = (
            seconds_of(lambda: infer(trainer, images, size, threads), wait) for _ in range(count)
        )
        return statistics.fmean(each_s)

    if "train_epoch" in task.measures:
        recorder.record("train_epoch", epoch_s, task.epochs)
    if "inference" in task.measures:
        inference_s(1)
        recorder.record("inference", lambda: inference_s(task.rounds), task.stretches)
    parts, operations = {}, {}
    if task.parts:
        timer = PartTimer(trainer, lambda epoch: batches_of(range(epoch, epoch + 1)), rate)
        parts = time_parts(timer, range(task.parts), await_turn)
        operations = profiled_operations(adapter, trainer, lambda: next(durations), await_turn)
    counts = {"train_step": size, "train_epoch": len(split.labels), "inference": size}
    usual_s = statistics.median(waited or recorder.seconds("train_step"))
    return SpeedAnswer(
        windows=tuple(recorder.windows),
        waited_step_s=tuple(waited),
        images={measure: counts[measure] for measure in task.measures},
        queue_s=queue,
        device_step_s=tuple(device_step_s),
        phases_s=phases,
        parts_s=parts,
        operations_s=operations,
        setup_s=setup_s,
        compile_s=max(warm_up[0] - usual_s, 0.0),
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
