"""Time the overhead of the harness over a hand-written loop, in alternating epochs of one process.

``python -m tests.speed.tax BACKEND FOLDER`` prints one JSON document: seconds of each epoch through
the harness and by the hand-written loop. Both have the same framework, network, shapes, layout,
precision and optimizer; with TensorFlow also the same layers, so that only the loop around them
differs. The hand-written loop has its images in memory and does only what is necessary.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalog.backends import BACKENDS

CLASSES = 100
MOMENTUM = 0.9
RATE = 1e-4


def by_hand_torch(
    blueprint: Any, images: Any, labels: Any, batch_size: int, device: str, precision: str
) -> Callable[[], float]:
    """Return an epoch with PyTorch's modules in channels_last and ``torch.optim.SGD``, on a GPU
    with autocast, pinned batches and the fused optimizer; it returns seconds."""
    import timm
    import torch
    import torchvision

    make = {
        "resnet50": torchvision.models.resnet50,
        "squeezenet1_1": partial(torchvision.models.squeezenet1_1, dropout=0.0),
        "efficientnet_lite0": partial(timm.create_model, "tf_efficientnet_lite0", drop_rate=0.0),
    }[blueprint.backbone]
    network = make(num_classes=CLASSES)
    network = network.train().to(device, memory_format=torch.channels_last)
    on_gpu = device != "cpu"
    fused = {"fused": True} if on_gpu else {}
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, **fused)
    criterion = torch.nn.CrossEntropyLoss()
    mean = torch.tensor(blueprint.preprocessing.mean, device=device)
    scale = torch.tensor(blueprint.preprocessing.scale, device=device)

    def put(array: Any) -> Any:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if on_gpu else tensor

    def epoch() -> float:
        order = np.random.permutation(len(labels))
        losses = []
        began = time.perf_counter()
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            pixels = (put(images[chosen]).float() - mean) * scale
            optimizer.zero_grad()
            with torch.autocast(torch.device(device).type, torch.bfloat16, precision == "bf16"):
                logits = network(pixels.permute(0, 3, 1, 2))
            loss = criterion(logits.float(), put(labels[chosen]))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.stack(losses).tolist()
        return time.perf_counter() - began

    return epoch


def by_hand_tensorflow(
    model: Any, images: Any, labels: Any, batch_size: int
) -> Callable[[], float]:
    """Return an epoch with a Keras model in a ``tf.function``, ``GradientTape`` and
    ``keras.optimizers.SGD``; it returns seconds."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(RATE, MOMENTUM)
    optimizer.build(model.trainable_variables)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def step(pixels: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = criterion(targets, model([pixels], training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    def epoch() -> float:
        order = np.random.permutation(len(labels))
        losses = []
        began = time.perf_counter()
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            losses.append(step(tf.constant(images[chosen]), tf.constant(labels[chosen])))
        tf.stack(losses).numpy()
        return time.perf_counter() - began

    return epoch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=["torch", "keras-tensorflow"])
    parser.add_argument("blueprint", type=Path, help="folder")
    for name, default in (("--batch-size", 16), ("--steps", 8), ("--epochs", 8)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    asked = parser.parse_args()
    print(json.dumps(compare(asked)))


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    """Train by both loops; return seconds per epoch, images and steps."""
    import importlib

    from bench.catalog.policies import POLICIES
    from bench.data import Packed, Split
    from bench.network.blueprint import Network
    from bench.network.freezing import plan_training
    from bench.network.head import attach_head
    from bench.network.phases import Phase
    from bench.spec.plain import plain_recipe
    from bench.spec.run import Case, DatasetRef, RunSpec, WeightsRef
    from bench.training.fit import Ready
    from bench.training.run import Run

    network = attach_head(Network.load(asked.blueprint, trunk_only=True), "linear", CLASSES, 0)
    random = np.random.default_rng(0)
    px, count = network.blueprint.px, asked.steps * asked.batch_size
    images = random.integers(0, 256, (count, px, px, 3), np.uint8)
    labels = random.integers(0, CLASSES, count)
    recipe = plain_recipe("linear", px, asked.batch_size).model_copy(
        update={"momentum": MOMENTUM, "learning_rate": RATE, "precision": asked.precision}
    )
    policy = POLICIES["fine_tune_all"].model_copy(update={"backbone_scale": 1.0})
    plan = plan_training(network.blueprint, policy)
    adapter = importlib.import_module(BACKENDS[asked.backend].adapter).adapter()
    trainer = adapter.build(network, plan, recipe, asked.device)
    names = tuple(str(number) for number in range(CLASSES))
    data = DatasetRef(name="noise", label="noise", content_hash="0" * 64, classes=names,
                      train_images=count, val_images=0, test_images=0)  # fmt: skip
    spec = RunSpec(
        case=Case(number=None, dataset=data, size="small", similarity=None),
        backbone=network.blueprint.backbone,
        weights=WeightsRef(kind="random", source="random", sha256=None),
        policy=policy,
        recipe=recipe.model_copy(update={"epochs": asked.epochs + 1}),
        backend=asked.backend,
        device=asked.device,
        seed=0,
    )
    split = Split(images, labels)
    packed = Packed(names, split, split, split, Path("nowhere"))
    first = Ready(Phase(spec.policy, 0, spec.recipe.epochs), plan, trainer)
    run = Run(spec, network, packed, first, lambda event: None)
    if asked.backend == "torch":
        by_hand = by_hand_torch(
            network.blueprint, images, labels, asked.batch_size, asked.device, asked.precision
        )
    else:
        model = adapter.build(network, plan, recipe, asked.device).twin.training
        by_hand = by_hand_tensorflow(model, images, labels, asked.batch_size)

    def through_the_harness(number: int) -> float:
        began = time.perf_counter()
        run.fit.train_epoch(number)
        return time.perf_counter() - began

    harness, hand = [], []
    for number in range(asked.epochs + 1):  # alternate the order, since machines heat up
        if number % 2:
            hand.append(by_hand())
            harness.append(through_the_harness(number))
        else:
            harness.append(through_the_harness(number))
            hand.append(by_hand())
    return {"harness_s": harness[1:], "by_hand_s": hand[1:], "images": count, "steps": asked.steps}


if __name__ == "__main__":
    main()
