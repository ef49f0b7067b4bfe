"""Networks as users write them, correct and faulty; loaded by a torch worker, not by pytest."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Tutorial(nn.Module):
    """The network of PyTorch's CIFAR tutorial: one pooling is used twice, then dense layers."""

    input_px = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class Tokens(nn.Module):
    """Blocks of one resolution in a ModuleList, after a parameter of the network itself."""

    input_px = 64

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, stride=16)
        self.position = nn.Parameter(torch.zeros(1, 16, 32))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU()) for _ in range(6)
        )
        self.norm = nn.LayerNorm(32)
        self.out = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            x = x + layer(x)
        return self.out(self.norm(x).mean(1))


class Preprocessed(nn.Sequential):
    def __init__(self, **attributes: object) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 3))  # fmt: skip
        for name, value in attributes.items():
            setattr(self, name, value)


def tutorial() -> nn.Module:
    return Tutorial()


def tokens() -> nn.Module:
    return Tokens()


def one_row() -> nn.Module:
    """Return one Sequential whose classifier is a convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(16, 7, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def lazy() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.LazyLinear(3))


def halves() -> nn.Module:
    return Preprocessed(mean=(0.5, 0.5, 0.5), std=[0.5, 0.5, 1], input_px=48)


def mean_without_std() -> nn.Module:
    return Preprocessed(mean=(0.5, 0.5, 0.5))


def mean_as_tensor() -> nn.Module:
    return Preprocessed(mean=torch.zeros(1, 3, 1, 1), std=torch.ones(1, 3, 1, 1))


def std_of_zero() -> nn.Module:
    return Preprocessed(mean=(0, 0, 0), std=(1, 0, 1))


def wrong_px() -> nn.Module:
    return Preprocessed(input_px="64")


def classifier_only() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 3))


def twice() -> nn.Module:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(3, 2))  # fmt: skip


def maps() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))


def a_pair() -> nn.Module:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Preprocessed()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.net(x), x

    return Pair()


def not_224() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))


def a_class() -> type:
    return nn.Linear


def needs(width: int) -> nn.Module:
    return nn.Linear(width, width)


def raises() -> nn.Module:
    return nn.Linear(3, 4).no_such_method()  # type: ignore[operator,return-value]


def unseeded() -> nn.Module:
    net = Preprocessed()
    with torch.no_grad():
        net[0].bias.fill_(np.random.default_rng().random())
    return net
