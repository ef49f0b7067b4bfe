"""A training step of one's own, for ``speed --target`` and ``gate --target``, in any framework.

``make(device)`` returns the step, a function without arguments, and the number of images that it
trains on. Where the device works on after the step has returned, return a third value, a function
that waits for it. Without one PyTorch and TensorFlow on a GPU are waited for, and what a step of
JAX returns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def make(device: str) -> tuple[Callable[[], None], int]:
    """Return a step of a small convolutional network on 32 images, and 32."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images = torch.rand(32, 3, 64, 64, device=device)
    labels = torch.randint(10, (32,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step, 32
