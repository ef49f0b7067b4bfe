"""A run of two phases, and two runs in a row: ``python -P -m tests.end_to_end.phases_by_hand``.

In float64 with PyTorch, on a small network with BatchNorm and dropout. Prints JSON: 'loop' and
'by_hand', each the mean losses by epoch, followed by the logits of the test images.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.data import Packed, Split
from bench.network.blueprint import Array
from bench.network.freezing import plan_training
from bench.network.phases import Phase, phases_of
from bench.spec.run import RunSpec
from bench.training.adapter import Adapter
from bench.training.batches import TrainingBatches
from bench.training.fit import Ready, build_phase
from bench.training.run import Run
from bench.training.schedule import learning_rate
from tests.parity.small_networks import PX, small_network
from tests.unit.test_training_run import spec

CLASSES = 7
HEAD_EPOCHS, EPOCHS = 2, 5


def asked() -> RunSpec:
    changes = {
        "head": "original", "px": PX, "epochs": EPOCHS, "momentum": 0.9, "weight_decay": 1e-3,
        "learning_rate": 1e-2, "augmentation": "crop_flip", "precision": "fp64",
    }  # fmt: skip
    recipe = spec().recipe.model_copy(update=changes)
    policy = POLICIES["linear_probe_then_fine_tune"]
    return spec().model_copy(update={"recipe": recipe, "policy": policy})


def packed() -> Packed:
    random = np.random.default_rng(0)

    def split(images: int) -> Split:
        pixels = random.integers(0, 256, (images, PX, PX, 3), np.uint8)
        return Split(pixels, random.integers(0, CLASSES, images))

    names = tuple(str(number) for number in range(CLASSES))
    return Packed(names, split(28), split(8), split(8), Path("nowhere"))


def by_the_loop(adapter: Adapter) -> list[float]:
    what, network = asked(), small_network()
    blueprint = network.blueprint

    def build(phase: Phase, tensors: Mapping[str, Array]) -> Ready:
        trainer, plan = build_phase(adapter, blueprint, tensors, phase.policy, what.recipe, "cpu")
        return Ready(phase, plan, trainer)

    phases = phases_of(blueprint, what.policy, EPOCHS)
    first = build(phases[0], network.tensors)
    run = Run(what, network, packed(), first, lambda event: None, phases, build)
    outcome = run(0.0)
    assert outcome.logits is not None
    return [*outcome.fields["train_loss_by_epoch"], *outcome.logits.ravel()]


def by_hand(adapter: Adapter) -> list[float]:
    """Train ``freeze_all`` for some epochs, then ``fine_tune_all`` from its tensors."""
    what, data, network = asked(), packed(), small_network()
    found: list[float] = []
    trainer: Any = None
    for name, epochs in (
        ("freeze_all", range(HEAD_EPOCHS)),
        ("fine_tune_all", range(HEAD_EPOCHS, EPOCHS)),
    ):
        plan = plan_training(network.blueprint, POLICIES[name])
        trainer = adapter.build(network, plan, what.recipe, "cpu")
        batches = TrainingBatches(data.train, what.recipe, plan.dropouts, what.seed)
        recipe = what.recipe.model_copy(update={"epochs": len(epochs)})
        step, steps = 0, len(epochs) * batches.steps_per_epoch
        for epoch in epochs:
            losses, sizes = [], []
            for batch in batches.epoch(epoch):
                rate = learning_rate(recipe, step, steps)
                handle = trainer.train_step(trainer.to_device(batch), rate)
                losses += trainer.losses([handle])
                sizes.append(len(batch.labels))
                step += 1
            found.append(float(np.average(losses, weights=sizes)))
        network.tensors.update(trainer.tensors())
    logits = trainer.logits([trainer.infer(data.test.images)])
    return [*found, *logits.ravel()]


if __name__ == "__main__":
    adapter = load_adapter("torch", BACKENDS["torch"].adapter)
    print(json.dumps({"loop": by_the_loop(adapter), "by_hand": by_hand(adapter)}))
    sys.stdout.flush()
    # Skip the interpreter's teardown, in which frameworks sometimes crash.
    os._exit(0)
