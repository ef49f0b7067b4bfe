"""A Blueprint as a PyTorch forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.blueprint import INPUT, STATE_ROLES, Blueprint, Network, Operation
from bench.plan import TrainingPlan

Tensors = dict[str, Tensor]
Step = Callable[[list[Tensor]], Tensor]
OVERWRITABLE = frozenset({"conv2d", "batch_norm", "linear", "add"})
"""Kinds whose backward pass does not read their own result, so that a ReLU may overwrite it."""


class TorchNetwork:
    """The operations of a Blueprint over tensors on one device.

    Convolution kernels and images lie in channels_last, which is what PyTorch computes fastest on
    CPUs and on tensor cores (pytorch.org, "Channels Last Memory Format").
    """

    def __init__(
        self, network: Network, plan: TrainingPlan, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Copy the tensors of ``network`` to ``device`` as ``dtype``; mark those that train."""
        self.blueprint = network.blueprint
        self.plan = plan
        self.dtype = dtype
        self.tensors: Tensors = {}
        for name, array in network.tensors.items():
            tensor = torch.tensor(array, dtype=dtype, device=device)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.tensors[name] = tensor.requires_grad_(name in plan.trained)
        pre = self.blueprint.preprocessing
        self._mean = torch.tensor(pre.mean, dtype=dtype, device=device)
        self._scale = torch.tensor(pre.scale, dtype=dtype, device=device)
        self._inference = self._steps(training=False)
        self._training = self._steps(training=True)
        self._last_use = _last_use(self.blueprint)

    def state_names(self) -> list[str]:
        """Names of the BatchNorm statistics."""
        named = self.blueprint.named_tensors()
        return [tensor for _, role, tensor in named if role in STATE_ROLES]

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, H, W, 3) → (N, 3, H, W), channels last in memory."""
        if self.blueprint.preprocessing.channels == "BGR":
            images = images.flip(-1)
        pixels = (images.to(self.dtype) - self._mean) * self._scale
        return pixels.permute(0, 3, 1, 2)

    def forward(
        self,
        images: Tensor,
        masks: tuple[Tensor, ...],
        training: bool,
        record: Tensors | None = None,
    ) -> Tensor:
        """Logits (N, classes) of uint8 images (N, H, W, 3).

        Args:
            images: RGB on the device.
            masks: Of the plan's dropouts, in order; not read in inference.
            training: Whether the trained part runs in training form.
            record: Takes a copy of every value, by its name; some are overwritten later.
        """
        values: dict[str, Tensor] = {INPUT: self.preprocess(images)}
        if record is not None:
            record[INPUT] = values[INPUT].clone()
        if training:
            kept = zip(self.plan.dropouts, masks, strict=True)
            values.update({_mask_name(o): mask for o, mask in kept})
        steps = self._training if training else self._inference
        for operation, step, done in zip(
            self.blueprint.operations, steps, self._last_use, strict=True
        ):
            inputs = [values[name] for name in operation.inputs]
            if operation.kind == "dropout" and training:
                inputs += [v for n, v in values.items() if n == _mask_name(operation)]
            values[operation.name] = step(inputs)
            if record is not None:
                record[operation.name] = values[operation.name].clone()
            for name in done:
                del values[name]
        return values[self.blueprint.output]

    def _steps(self, training: bool) -> list[Step]:
        readers = self.blueprint.consumers()
        by_name = {o.name: o for o in self.blueprint.operations}
        steps = []
        for index, operation in enumerate(self.blueprint.operations):
            source = by_name.get(operation.inputs[0])
            alone = len(readers[operation.inputs[0]]) == 1
            inplace = source is not None and alone and source.kind in OVERWRITABLE
            trains = training and self.plan.in_training(index)
            steps.append(BUILDERS[operation.kind](operation, self.tensors, trains, inplace))
        return steps


def _mask_name(operation: Operation) -> str:
    return f"mask of {operation.name}"


def _last_use(blueprint: Blueprint) -> list[list[str]]:
    """For each operation, the values that nobody reads after it."""
    last: dict[str, int] = {}
    for index, operation in enumerate(blueprint.operations):
        for name in operation.inputs:
            last[name] = index
    done: list[list[str]] = [[] for _ in blueprint.operations]
    for name, index in last.items():
        done[index].append(name)
    return done


def _padded(x: Tensor, edges: list[int], value: float = 0.0) -> Tensor:
    top, bottom, left, right = edges
    return F.pad(x, (left, right, top, bottom), value=value)


def _symmetric(edges: list[int]) -> bool:
    return edges[0] == edges[1] and edges[2] == edges[3]


def _conv2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    a = o.attributes
    weight = tensors[o.tensors["weight"]]
    bias = tensors[o.tensors["bias"]] if "bias" in o.tensors else None
    edges = a["padding"]
    if _symmetric(edges):
        padding = (edges[0], edges[2])
        return lambda x: F.conv2d(
            x[0], weight, bias, a["stride"], padding, a["dilation"], a["groups"]
        )
    return lambda x: F.conv2d(
        _padded(x[0], edges), weight, bias, a["stride"], 0, a["dilation"], a["groups"]
    )


def _batch_norm(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    mean, variance, weight, bias = (
        tensors[o.tensors[role]] for role in ("running_mean", "running_var", "weight", "bias")
    )
    momentum, epsilon = o.attributes["momentum"], o.attributes["epsilon"]
    return lambda x: F.batch_norm(x[0], mean, variance, weight, bias, training, momentum, epsilon)


def _relu(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: F.relu(x[0], inplace=inplace)


def _relu6(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: F.hardtanh(x[0], 0.0, 6.0, inplace=inplace)


def _max_pool2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    a = o.attributes
    padding = (a["padding"][0], a["padding"][2])
    return lambda x: F.max_pool2d(x[0], a["kernel"], a["stride"], padding, ceil_mode=a["ceil_mode"])


def _avg_pool2d(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    kernel, stride = o.attributes["kernel"], o.attributes["stride"]
    return lambda x: F.avg_pool2d(x[0], kernel, stride)


def _adaptive(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    size = o.attributes["output_size"]
    return lambda x: F.adaptive_avg_pool2d(x[0], size)


def _add(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: x[0] + x[1]


def _cat(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: torch.cat(x, 1)


def _flatten(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    return lambda x: torch.flatten(x[0], 1)


def _dropout(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    if not training:
        return lambda x: x[0]
    scale = 1.0 / (1.0 - o.attributes["rate"])
    return lambda x: x[0] * (x[1].to(x[0].dtype) * scale)


def _linear(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    weight = tensors[o.tensors["weight"]]
    bias = tensors[o.tensors["bias"]] if "bias" in o.tensors else None
    return lambda x: F.linear(x[0], weight, bias)


def _pad(o: Operation, tensors: Tensors, training: bool, inplace: bool) -> Step:
    edges = o.attributes["padding"]
    return lambda x: _padded(x[0], edges)


BUILDERS: dict[str, Callable[[Operation, Tensors, bool, bool], Any]] = {
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "relu6": _relu6,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive,
    "add": _add,
    "cat": _cat,
    "flatten": _flatten,
    "dropout": _dropout,
    "linear": _linear,
    "pad": _pad,
}
"""Kind of operation → (operation, tensors, in training, may overwrite its input) → its step."""
