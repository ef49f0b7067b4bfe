"""Example of your own network: `run_bench.py run --backbones module:examples/my_net.py:build …`."""

from torch import nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class MyNet(nn.Module):
    # Preprocessing: (pixel / 255 - mean) / std; without these lines ImageNet's values are used.
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    input_px = 64  # input size in pixels; 224 if left out

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(block(3, 16), block(16, 32), block(32, 64), block(64, 64))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x):  # (N, 3, H, W) -> (N, classes)
        return self.classifier(self.pool(self.features(x)))


def build() -> nn.Module:
    return MyNet()  # load trained weights here
