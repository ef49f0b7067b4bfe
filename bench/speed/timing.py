"""Timing a trainer: steps, epochs and inference, each ended by a device synchronise."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data import Split
from bench.network.blueprint import Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import Adapter, Trainer
from bench.training.batches import TrainingBatches, input_threads
from bench.training.clocks import WARMUP_STEPS, peak_host_bytes

RATE = 1e-4
"""Of the learning; small, for noise is trained on."""


@dataclass(frozen=True)
class Timed:
    """Durations, each of one round, in the order in which they were taken."""

    train_step_s: list[float]
    """Steps on one batch that lies on the device already."""
    train_epoch_s: list[float]
    """Epochs, end to end: batches are made, copied, trained on, and the last loss is back."""
    inference_s: list[float]
    """A batch of images from the host until its logits are back."""
    images: dict[str, int]
    """'train_step', 'train_epoch' and 'inference' → images in a round."""
    setup_s: float
    """Building the network."""
    compile_s: float
    """First training step less the median one."""
    peak_host_bytes: int | None
    """Of the worker, since the case began."""
    peak_device_bytes: int | None
    """On a GPU."""
    knobs: dict[str, Any]
    """In force, read back afterwards."""


def time_training(
    adapter: Adapter,
    network: Network,
    plan: TrainingPlan,
    recipe: Recipe,
    device: str,
    *,
    rounds: int,
    epochs: int,
    epoch_steps: int,
    classes: int,
) -> Timed:
    """Build a network and time it on noise.

    Args:
        adapter: Builds it.
        network: With its head.
        plan: What is trained.
        recipe: Size, batch, optimizer, precision.
        device: cpu or cuda:N.
        rounds: Steps and inferences that are timed.
        epochs: Epochs that are timed.
        epoch_steps: Steps in one.
        classes: Outputs.
    """
    began = time.perf_counter()
    trainer = adapter.build(network, plan, recipe, device)
    setup_s = time.perf_counter() - began
    split = _noise(recipe, epoch_steps, classes)
    batches = TrainingBatches(split, recipe, plan.dropouts, seed=0, threads=input_threads(device))
    first_s, steps = _steps(trainer, batches, rounds)
    passes = [_epoch(trainer, batches, number) for number in range(epochs)]
    images = np.array(split.images[: recipe.batch_size])
    answers = [_inference(trainer, images) for _ in range(rounds + 1)][1:]
    return Timed(
        train_step_s=steps,
        train_epoch_s=passes,
        inference_s=answers,
        images={
            "train_step": recipe.batch_size,
            "train_epoch": len(split.labels),
            "inference": recipe.batch_size,
        },
        setup_s=setup_s,
        compile_s=max(first_s - statistics.median(steps), 0.0),
        peak_host_bytes=peak_host_bytes(),
        peak_device_bytes=trainer.peak_device_bytes(),
        knobs=trainer.knobs(),
    )


def _noise(recipe: Recipe, steps: int, classes: int) -> Split:
    random = np.random.default_rng(0)
    count = steps * recipe.batch_size
    images = random.integers(0, 256, (count, recipe.px, recipe.px, 3), np.uint8)
    return Split(images, random.integers(0, classes, count))


def _steps(trainer: Trainer, batches: TrainingBatches, rounds: int) -> tuple[float, list[float]]:
    """The first step, and ``rounds`` of those after the warm-up."""
    epoch = batches.epoch(0)
    prepared = trainer.to_device(next(epoch))
    epoch.close()
    taken = []
    for _ in range(1 + WARMUP_STEPS + rounds):
        trainer.synchronise()
        began = time.perf_counter()
        trainer.train_step(prepared, RATE)
        trainer.synchronise()
        taken.append(time.perf_counter() - began)
    return taken[0], taken[1 + WARMUP_STEPS :]


def _epoch(trainer: Trainer, batches: TrainingBatches, number: int) -> float:
    trainer.synchronise()
    began = time.perf_counter()
    epoch = batches.epoch(number)
    trainer.losses([trainer.train_step(trainer.to_device(batch), RATE) for batch in epoch])
    return time.perf_counter() - began


def _inference(trainer: Trainer, images: Any) -> float:
    trainer.synchronise()
    began = time.perf_counter()
    trainer.logits([trainer.infer(images)])
    return time.perf_counter() - began
