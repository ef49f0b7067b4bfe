"""Count what one training step asks of PyTorch and of JAX: ``python -m tests.parity.calls_worker
BACKEND FOLDER``. Prints one line of JSON.

For torch and keras-torch: ``calls``, the ATen operations of a step, views included; ``by_hand``,
those of a loop with torchvision's module and the fused optimizer; ``copies``, copies of values with
four axes; ``from_host``, tensors that are made from numbers of the host. For compiled steps over
two batch sizes: ``programs``, the batch sizes for which JAX compiled; the ``count`` of compiled
programs or graphs; and the ``breaks`` of graphs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.blueprint import Network
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.spec.plain import plain_recipe
from bench.training.adapter import Batch

CLASSES, SIZE, RATE = 18, 4, 1e-3
FROM_HOST = ("aten.lift_fresh.default", "aten.scalar_tensor.default")


def main() -> None:
    """Train a few steps, count, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--compile", default="plain")
    asked = parser.parse_args()
    network = attach_head(Network.load(asked.folder, trunk_only=True), "linear", CLASSES, 0)
    plan = plan_training(network.blueprint, POLICIES["from_scratch"])
    px = network.blueprint.px
    changes = {"precision": asked.precision, "optimizer": asked.optimizer, "momentum": 0.9,
               "compile": asked.compile}  # fmt: skip
    recipe = plain_recipe("linear", px, SIZE).model_copy(update=changes)
    adapter = load_adapter(asked.backend, BACKENDS[asked.backend].adapter)
    trainer = adapter.build(network, plan, recipe, "cpu")

    def batch(size: int) -> Any:
        images = np.random.default_rng(size).integers(0, 256, (size, px, px, 3), dtype=np.uint8)
        return trainer.to_device(Batch(images, np.zeros(size, np.int64), ()))

    full = batch(SIZE)
    for _ in range(3):
        trainer.train_step(full, RATE)
    if asked.compile == "compiled":
        for _ in range(2):
            trainer.train_step(batch(SIZE - 1), RATE)
        knobs = trainer.knobs()
        print(json.dumps({"programs": knobs.get("compiled_for_batch_sizes"),
                          "count": knobs["graphs_compiled"],
                          "breaks": knobs.get("graph_breaks")}))  # fmt: skip
        return
    calls, copies = counted(lambda: trainer.train_step(full, RATE))
    by_hand, _ = counted(hand_written(px, asked.precision, asked.optimizer))
    from_host = sum(calls[name] for name in FROM_HOST)
    print(json.dumps({"calls": sum(calls.values()), "by_hand": sum(by_hand.values()),
                      "copies": copies, "from_host": from_host}))  # fmt: skip


def counted(step: Any) -> tuple[Counter[str], int]:
    """Return the ATen operations of a call, and how many of them copied a value with four axes."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    calls: Counter[str] = Counter()
    copies = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal copies
            calls[str(function)] += 1
            result = function(*args, **(kwargs or {}))
            if str(function) in ("aten.clone.default", "aten.copy_.default"):
                copies += isinstance(result, torch.Tensor) and result.ndim == 4
            return result

    with Count():
        step()
    return calls, copies


def hand_written(px: int, precision: str, optimizer: str) -> Any:
    """Return a training step as a user of PyTorch writes it, after two of them."""
    import torch
    import torchvision

    module = torchvision.models.resnet50(num_classes=CLASSES).train()
    module = module.to(memory_format=torch.channels_last)
    made: Any = {
        "sgd": lambda p: torch.optim.SGD(p, RATE, momentum=0.9, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, RATE, fused=True),
    }[optimizer](module.parameters())
    mean = torch.tensor([124.0, 116.0, 104.0])
    images = torch.randint(0, 256, (SIZE, px, px, 3), dtype=torch.uint8)
    labels = torch.zeros(SIZE, dtype=torch.long)

    def step() -> None:
        made.zero_grad(set_to_none=True)
        pixels = ((images.float() - mean) * 0.017).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = module(pixels)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        made.step()

    for _ in range(2):
        step()
    return step


if __name__ == "__main__":
    main()
