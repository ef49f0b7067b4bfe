"""Networks as users write them: with something that a Blueprint holds, refuses or leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PX = 32


def conv(inputs: int, outputs: int, norm: nn.Module | None = None, act: Any = nn.ReLU) -> Any:
    kernel = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
    return nn.Sequential(kernel, norm or nn.BatchNorm2d(outputs), act())


class Net(nn.Module):
    """A trunk of two blocks with a place for one odd thing, and a classifier."""

    input_px = PX

    def __init__(
        self,
        between: Callable[[Net, Tensor], Tensor] = lambda self, x: x,
        after: Callable[[Tensor], Any] = lambda x: x,
        classes: int = 3,
        channels: int = 3,
        **layers: nn.Module,
    ) -> None:
        super().__init__()
        self.between, self.after = between, after
        self.first = conv(channels, 8)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.second = conv(8, 8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.between(self, self.first(x)))
        return self.after(self.fc(self.pool(x).flatten(1)))


def _with(layer: nn.Module) -> Net:
    return Net(lambda net, x: net.odd(x), odd=layer)


def _normed(norm: nn.Module) -> Net:
    net = Net()
    net.second[1] = norm
    return net


def tied() -> Net:
    net = Net(lambda net, x: net.odd(x), odd=nn.Conv2d(8, 8, 3, padding=1, bias=False))
    net.second[0].weight = net.odd.weight
    return net


def tied_by_memory() -> Net:
    net = tied()
    net.second[0].weight = nn.Parameter(net.odd.weight.data)
    return net


def used_twice() -> Net:
    return Net(lambda net, x: F.conv2d(net.odd(x), net.odd.weight, padding=1),
               odd=nn.Conv2d(8, 8, 3, padding=1, bias=False))  # fmt: skip


def cumulative() -> Net:
    return _normed(nn.BatchNorm2d(8, momentum=None))


def always_drops() -> Net:
    return Net(lambda net, x: F.dropout(x, 0.5))


def never_drops() -> Net:
    return Net(lambda net, x: F.dropout(x, 0.5, training=False))


def batch_statistics_always() -> Net:
    return Net(lambda net, x: F.batch_norm(x, None, None, training=True))


def detached() -> Net:
    return Net(lambda net, x: x.detach())


def noisy() -> Net:
    return Net(lambda net, x: x + torch.randn_like(x) if net.training else x)


def doubled_in_training() -> Net:
    return Net(lambda net, x: x * 2 if net.training else x)


class KeepsEvaluation(Net):
    def train(self, mode: bool = True) -> KeepsEvaluation:
        super().train(mode)
        self.first.eval()
        return self


def keeps_evaluation() -> Net:
    return KeepsEvaluation()


def a_dict() -> Net:
    return Net(after=lambda y: {"logits": y, "loss": None})


def a_list() -> Net:
    return Net(after=lambda y: [y])


def one_output() -> Net:
    return Net(classes=1)


def one_channel() -> Net:
    return Net(channels=1)


def fixed_batch() -> Net:
    return Net(lambda net, x: x.reshape(16, 8, 16, 16))


def data_dependent() -> Net:
    return Net(lambda net, x: x * 2 if x.mean() > 0 else x)


def compiled() -> Any:
    return torch.compile(Net())


def scripted() -> Any:
    return torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))


def parameterless() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())


class Functional(nn.Module):
    input_px = PX

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.conv2d(x, self.kernel).mean((2, 3)))


def functional() -> nn.Module:
    return Functional()


class Two(nn.Module):
    input_px = PX

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Net(), Net()

    def forward(self, x: Tensor) -> Any:
        return self.a(x) + self.b(x)


def sum_of_two() -> nn.Module:
    return Two()


def dropout_of_maps() -> Net:
    return _with(nn.Dropout2d(0.3))


def alpha_dropout() -> Net:
    return _with(nn.AlphaDropout(0.3))


def group_norm() -> Net:
    return _normed(nn.GroupNorm(4, 8))


def instance_norm() -> Net:
    return _normed(nn.InstanceNorm2d(8, affine=True))


def leaky_relu() -> Net:
    return _with(nn.LeakyReLU(0.2))


def prelu() -> Net:
    return _with(nn.PReLU(8))


def elu() -> Net:
    return _with(nn.ELU(0.7))


def mish() -> Net:
    return _with(nn.Mish())


def nearest() -> Net:
    return _with(nn.Upsample(scale_factor=2))


def bilinear() -> Net:
    return _with(nn.Upsample(scale_factor=1.5, mode="bilinear"))


def reflected() -> Net:
    return _with(nn.ReflectionPad2d(2))


class Standardises(nn.Module):
    input_px = PX

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1))
        self.net = Net()

    def forward(self, x: Tensor) -> Any:
        return self.net((x - self.shift) / self.scale)


def standardises() -> nn.Module:
    return Standardises()


def softmax() -> Net:
    return Net(after=lambda y: y.softmax(1))


class GeM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(self.power), 1).pow(1 / self.power)


def gem() -> Net:
    net = Net()
    net.pool = GeM()
    return net


def max_pooled() -> Net:
    net = Net()
    net.pool = nn.AdaptiveMaxPool2d(1)
    return net


def normed_classifier() -> Net:
    net = Net()
    net.fc = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    return net


def without_classifier() -> Net:
    net = Net()
    net.fc = nn.Identity()
    return net


def without_last_layer() -> Net:
    net = Net()
    net.fc = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5))
    return net


def trunk_of_plain_convolutions() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net.input_px = PX  # type: ignore[assignment]
    return net


def classifier_of_convolutions() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net.input_px = PX  # type: ignore[assignment]
    return net


def _before_softmax(change: Callable[[Tensor], Tensor]) -> Net:
    """Change a value of the trunk in training; the trunk ends in a function, not in a layer."""
    net = Net(lambda net, x: change(x) if net.training else x, after=lambda y: y.softmax(1))
    net.second = nn.Sequential(*list(net.second)[:2])
    pool = net.pool
    net.pool = nn.Sequential(Clamped(), pool)
    return net


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) * 1.5


def half_in_training_before_softmax() -> Net:
    return _before_softmax(lambda x: x * 0.5)


def detached_before_softmax() -> Net:
    return _before_softmax(lambda x: x.detach())


def noisy_before_softmax() -> Net:
    return _before_softmax(lambda x: x + torch.randn_like(x))


class OtherInTraining(Net):
    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return self.end(y) if self.training else y


def a_dict_in_training() -> Net:
    return OtherInTraining(lambda y: {"logits": y})


def _refuses(y: Tensor) -> Any:
    raise ValueError("labels")


def needs_labels() -> Net:
    return OtherInTraining(_refuses)


def hooked() -> Net:
    net = Net()
    net.first[0].weight.register_hook(lambda gradient: gradient * 0)
    return net


def buffer_of_a_weight() -> Net:
    net = Net()
    net.register_buffer("copy", net.first[0].weight.detach())
    return net


def negative_variance() -> Net:
    net = Net()
    net.first[1].running_var.fill_(-1.0)
    return net


def scripted_inside() -> Net:
    return _with(torch.jit.trace(nn.Conv2d(8, 8, 1), torch.zeros(1, 8, 4, 4)))


def exported() -> Any:
    return torch.export.export(Net().eval(), (torch.zeros(2, 3, PX, PX),)).module()


def batch_of_ten() -> Net:
    return Net(lambda net, x: x.reshape(10, 8, 16, 16))
