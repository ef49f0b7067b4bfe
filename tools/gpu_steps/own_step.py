"""A step of ResNet50 in bf16 as a user would write it, for ``gate --target`` on a GPU. The file
stands alone, because the gate copies it to another path for its null arm."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision

BATCH_SIZE, PX, CLASSES = 64, 224, 100
SMALL_BATCH_SIZE, SMALL_PX = 4, 64


def make(device: str) -> tuple[Callable[[], None], int]:
    """Return a training step and its number of images; a small one on a CPU, for dry runs."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    is_gpu = device != "cpu"
    size, px = (BATCH_SIZE, PX) if is_gpu else (SMALL_BATCH_SIZE, SMALL_PX)
    build = torchvision.models.resnet50 if is_gpu else torchvision.models.resnet18
    network = build(num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)
    images = torch.randn(size, 3, px, px, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (size,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = network(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step, size
