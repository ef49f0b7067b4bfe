"""Train several linear heads at once with one backend.

Run as ``python -m tests.parity.heads_worker BACKEND``; prints one line of JSON per optimizer:
losses, logits, weights and biases.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Array
from bench.network.freezing import plan_training
from bench.spec.plain import plain_recipe
from bench.spec.run import OptimizerName, Recipe
from bench.training.adapter import Heads
from tests.parity.small_networks import PX, small_network

SEEDS, EACH, CLASSES, FEATURES, IMAGES, STEPS = 2, 3, 4, 5, 7, 6
RANDOM = np.random.default_rng(3)
HEADS = Heads(
    RANDOM.normal(size=(SEEDS, EACH, CLASSES, FEATURES)),
    RANDOM.normal(size=(SEEDS, EACH, CLASSES)),
    np.array([[0.1, 0.02, 0.1], [0.03, 0.1, 0.0]]),
    np.array([[0.0, 0.2, 0.3], [0.1, 0.0, 0.0]]),
)
VALUES = RANDOM.normal(size=(IMAGES, FEATURES))
LABELS = RANDOM.integers(0, CLASSES, IMAGES)
BATCHES = [
    np.stack([RANDOM.permutation(IMAGES)[: 4 - step % 2] for _ in range(SEEDS)])
    for step in range(STEPS)
]
"""Image indices (S, N) of each step; batch sizes alternate."""
FACTORS = np.linspace(1.0, 0.1, STEPS)
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adamw")


def recipe_of(optimizer: OptimizerName) -> Recipe:
    """Return a recipe in float64."""
    changes = {"optimizer": optimizer, "momentum": 0.9, "precision": "fp64", "px": PX}
    return plain_recipe("original").model_copy(update=changes)


def train(backend: str, optimizer: OptimizerName) -> dict[str, Any]:
    """Take all steps and return losses, logits, weights and biases."""
    adapter = load_adapter(backend, BACKENDS[backend].adapter)
    network = small_network()
    plan = plan_training(network.blueprint, POLICIES["freeze_all"])
    adapter.build(network, plan, recipe_of(optimizer), "cpu")  # prepares the process
    trainer = adapter.build_heads(HEADS, recipe_of(optimizer), "cpu")
    handles = [
        trainer.step(VALUES[chosen], LABELS[chosen], float(factor))
        for chosen, factor in zip(BATCHES, FACTORS, strict=True)
    ]
    found: tuple[Array, ...] = (
        trainer.losses(handles), trainer.logits(VALUES), *trainer.tensors()
    )  # fmt: skip
    names = ("losses", "logits", "weights", "biases")
    return {name: value.tolist() for name, value in zip(names, found, strict=True)}


if __name__ == "__main__":
    for name in OPTIMIZERS:
        print(json.dumps(train(sys.argv[1], name)))
