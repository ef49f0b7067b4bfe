"""Time a lower limit of a frozen fit, with hand-written loops: one pass of inference over the
images up to the first trained layer, in each form, and the training of a linear head on its values.

Run as ``python -m tests.speed.limit BACKEND BLUEPRINT --policy P --images N --batch-size B
--device D``.
Prints one line of JSON: ``passes``, form → seconds including the preparation of the form (the
minimum is the limit), and ``head_s``, null if more than a head is trained.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from pathlib import Path
from typing import Any, get_args

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Array, Network
from bench.network.freezing import plan_training
from bench.network.frozen_prefix import boundary_of
from bench.network.head import attach_head
from bench.spec.plain import plain_recipe
from bench.training.prefix_cache import Form, build_prefix

CLASSES = 18
QUEUED = 8
REDUNDANT = ("compiled", "keras-tensorflow")
"""TensorFlow's folded form is already a compiled graph."""


def head_torch(values: Array, batch_size: int, epochs: int, device: str) -> None:
    """Train a head as a user of PyTorch would: a linear layer, AdamW, random batches; wait for
    it."""
    import torch

    x = torch.from_numpy(values).to(device)
    y = torch.randint(0, CLASSES, (len(values),)).to(device)
    head = torch.nn.Linear(values.shape[1], CLASSES).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x[chosen]), y[chosen]).backward()
            optimizer.step()
    head.weight.sum().item()


def head_tensorflow(values: Array, batch_size: int, epochs: int, device: str) -> None:
    """Train a head as a user of TensorFlow would: a dense layer, AdamW, a graph for the step; wait
    for it. TensorFlow uses the GPU that the trainer has taken before."""
    import keras
    import tensorflow as tf

    labels = np.random.default_rng(0).integers(0, CLASSES, len(values))
    head = keras.layers.Dense(CLASSES)
    head.build((None, values.shape[1]))
    optimizer = keras.optimizers.AdamW(1e-3)
    optimizer.build(head.trainable_variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=head(x))
            )
        gradients = tape.gradient(loss, head.trainable_variables)
        optimizer.apply(gradients)
        return loss

    for _ in range(epochs):
        data = tf.data.Dataset.from_tensor_slices((values, labels))
        for x, y in data.shuffle(len(values)).batch(batch_size):
            step(x, y)
    head.kernel.numpy()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("blueprint", type=Path)
    parser.add_argument("--policy", default="freeze_all")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--forms", default="plain,folded,compiled")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    adapter = load_adapter(asked.backend, BACKENDS[asked.backend].adapter)
    network = Network.load(asked.blueprint, trunk_only=True)
    network = attach_head(network, "linear", CLASSES, 0)
    blueprint = network.blueprint
    plan = plan_training(blueprint, POLICIES[asked.policy])
    recipe = plain_recipe("linear", blueprint.px, asked.batch_size)
    trainer = adapter.build(network, plan, recipe, asked.device)
    boundary = boundary_of(blueprint, plan)
    assert boundary is not None
    shape = (asked.images, blueprint.px, blueprint.px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = {}
    for form in get_args(Form):
        if form not in asked.forms.split(",") or (form, asked.backend) == REDUNDANT:
            continue
        began = time.perf_counter()
        prefix = build_prefix(form, adapter, trainer, blueprint, boundary, recipe, asked.device)
        queued: deque[Any] = deque()
        for first in range(0, asked.images, asked.batch_size):
            queued.append(prefix.prefix(images[first : first + asked.batch_size]))
            if len(queued) == QUEUED:  # as a GPU is kept busy
                prefix.values([queued.popleft()])
        prefix.values(list(queued))
        prefix.synchronise()
        found[form] = time.perf_counter() - began
    head_s = None
    if asked.policy == "freeze_all":
        by_hand = {"torch": head_torch, "keras-tensorflow": head_tensorflow}[asked.backend]
        values = np.random.default_rng(0).normal(size=(asked.images, boundary.shape[0]))
        began = time.perf_counter()
        by_hand(values.astype(np.float32), asked.batch_size, asked.epochs, asked.device)
        head_s = time.perf_counter() - began
    print(json.dumps({"passes": found, "head_s": head_s}))


if __name__ == "__main__":
    main()
