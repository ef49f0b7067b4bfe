"""The forward pass of a Blueprint in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.torch_adapter.steps import BUILDERS, Step, Tensors
from bench.network.blueprint import INPUT, STATE_ROLES, Blueprint, Network, Operation
from bench.network.freezing import TrainingPlan
from bench.network.frozen_prefix import Boundary, boundary_of

OVERWRITABLE = frozenset({"conv2d", "batch_norm", "linear", "add"})
"""Kinds whose backward pass does not read their own output, so that a ReLU may overwrite it."""


class TorchNetwork:
    """A Blueprint with its tensors on a device.

    Convolution kernels and images have the layout in memory that the device takes fastest
    (``backends.torch_device.memory_format``; pytorch.org, "Channels Last Memory Format").
    """

    def __init__(
        self, network: Network, plan: TrainingPlan, device: torch.device, dtype: torch.dtype,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:  # fmt: skip
        """Copy the tensors to ``device`` as ``dtype``; require gradients of those that train."""
        self.blueprint = network.blueprint
        self.plan = plan
        self.dtype = dtype
        self._layout = layout
        self.tensors: Tensors = {}
        for name, array in network.tensors.items():
            tensor = torch.tensor(array, dtype=dtype, device=device)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=layout)
            self.tensors[name] = tensor.requires_grad_(name in plan.trained)
        pre = self.blueprint.preprocessing
        self._mean = torch.tensor(pre.mean, dtype=dtype, device=device)
        self._scale = torch.tensor(pre.scale, dtype=dtype, device=device)
        self._inference = self._steps(training=False)
        self._training = self._steps(training=True)
        self._last_use = _last_use(self.blueprint)
        self._boundary = boundary_of(self.blueprint, plan)

    def state_names(self) -> list[str]:
        """Return the names of the BatchNorm statistics."""
        named = self.blueprint.named_tensors()
        return [tensor for _, role, tensor in named if role in STATE_ROLES]

    def preprocess(self, images: Tensor) -> Tensor:
        """Preprocess uint8 RGB (N, H, W, 3) to (N, 3, H, W), in the layout of the kernels."""
        if self.blueprint.preprocessing.channels == "BGR":
            images = images.flip(-1)
        pixels = (images.to(self.dtype) - self._mean) * self._scale
        return pixels.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)

    def forward(
        self,
        images: Tensor,
        masks: tuple[Tensor, ...],
        training: bool,
        record: Tensors | None = None,
    ) -> Tensor:
        """Compute the logits (N, classes) of uint8 RGB images (N, H, W, 3).

        Args:
            masks: Masks of the plan's dropouts, in order; not read in inference.
            training: True to run the trained part in training form.
            record: Takes a copy of every value, by name.
        """
        values: dict[str, Tensor] = {INPUT: self.preprocess(images)}
        if record is not None:
            record[INPUT] = values[INPUT].clone()
        everything = range(len(self.blueprint.operations))
        self._run(values, everything, masks, training, record)
        return values[self.blueprint.output]

    def prefix(self, images: Tensor) -> Tensor:
        """Compute the value at the boundary, channels last, of uint8 images (N, H, W, 3)."""
        boundary = self._at_boundary()
        values = {INPUT: self.preprocess(images)}
        self._run(values, range(boundary.index), (), training=False)
        value = values[boundary.value]
        return value.permute(0, 2, 3, 1) if value.ndim == 4 else value

    def resume(self, value: Tensor, masks: tuple[Tensor, ...], training: bool) -> Tensor:
        """Compute the logits of a value of ``prefix``, which may be overwritten."""
        boundary = self._at_boundary()
        if value.ndim == 4:
            value = value.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)
        values = {boundary.value: value}
        rest = range(boundary.index, len(self.blueprint.operations))
        self._run(values, rest, masks, training)
        return values[self.blueprint.output]

    def _at_boundary(self) -> Boundary:
        assert self._boundary is not None, "nothing is frozen"
        return self._boundary

    def _run(
        self,
        values: Tensors,
        indices: range,
        masks: tuple[Tensor, ...],
        training: bool,
        record: Tensors | None = None,
    ) -> None:
        """Add the values of these operations; drop those that no later operation reads."""
        if training:
            kept = zip(self.plan.dropouts, masks, strict=True)
            values.update({_mask_name(o): mask for o, mask in kept})
        steps = self._training if training else self._inference
        for index in indices:
            operation = self.blueprint.operations[index]
            inputs = [values[name] for name in operation.inputs]
            if operation.kind == "dropout" and training:
                inputs += [v for n, v in values.items() if n == _mask_name(operation)]
            values[operation.name] = steps[index](inputs)
            if record is not None:
                record[operation.name] = values[operation.name].clone()
            for name in self._last_use[index]:
                del values[name]

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
    """Return, for each operation, the values that no operation reads after it."""
    last: dict[str, int] = {}
    for index, operation in enumerate(blueprint.operations):
        for name in operation.inputs:
            last[name] = index
    done: list[list[str]] = [[] for _ in blueprint.operations]
    for name, index in last.items():
        done[index].append(name)
    return done
