"""Training of a Blueprint with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backends import torch_device as devices
from backends.torch_adapter.network import TorchNetwork
from backends.torch_adapter.trainer_base import Prepared, TorchTrainerBase, to_arrays
from bench.network.blueprint import INPUT, Array, Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.workers.tasks import ParameterCounts

if TYPE_CHECKING:
    from bench.training.adapter import MatchedTrainer


class TorchTrainer(TorchTrainerBase):
    """A Blueprint on a device with its optimizer (``bench.training.adapter.MatchedTrainer``)."""

    def __init__(self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str) -> None:
        super().__init__(device, recipe.precision)
        self.plan = plan
        layout = devices.memory_format(self._device, recipe.precision)
        self.network = TorchNetwork(network, plan, self._device, self._dtype, layout)
        is_compiled = recipe.compile == "compiled"
        size = recipe.batch_size
        self._loss = devices.Compiled(self._loss_of, size) if is_compiled else self._loss_of
        self._infer = devices.Compiled(self._logits_of, size) if is_compiled else self._logits_of
        self.optimizer = make_optimizer(self.network.tensors, plan, recipe)

    def loss(self, prepared: Prepared) -> Tensor:
        loss: Tensor = self._loss(*prepared)
        return loss

    def _loss_of(self, images: Tensor, labels: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
        with self._autocast():
            logits = self._forward(images, masks, training=True)
        return self._criterion(logits.to(self._dtype), labels)

    def _forward(self, images: Tensor, masks: tuple[Tensor, ...], training: bool) -> Tensor:
        """Compute logits of uint8 images, or of values of the frozen prefix."""
        run = self.network.forward if images.dtype == torch.uint8 else self.network.resume
        return run(images, masks, training)

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    def infer(self, images: Array) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self._infer(self._put(images))
        return logits

    def _logits_of(self, images: Tensor) -> Tensor:
        with self._autocast():
            return self._forward(images, (), training=False)

    def prefix(self, images: npt.NDArray[np.uint8]) -> devices.HostCopy:
        with torch.no_grad(), self._autocast():
            value = self.network.prefix(self._put(images))
        return self._copies.to_host(value)

    def values(self, handles: list[devices.HostCopy]) -> Array:
        return devices.values(handles)

    def prefix_form(self) -> str:
        return "plain"

    def tensors(self) -> dict[str, Array]:
        return to_arrays(self.network.tensors)

    def restore(self, tensors: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, array in tensors.items():
                self.network.tensors[name].copy_(torch.from_numpy(array))
        self.optimizer.state.clear()
        self._scaler = self._fresh_scaler()

    def activations(self, images: npt.NDArray[np.uint8]) -> dict[str, Array]:
        record: dict[str, Tensor] = {}
        with torch.no_grad(), self._autocast():
            self.network.forward(self._put(images), (), training=False, record=record)
        return to_arrays(record)

    def training_pixels(self, prepared: Prepared) -> Array:
        images, _, masks = prepared
        record: dict[str, Tensor] = {}
        with torch.no_grad(), self._autocast():
            self.network.forward(images, masks, training=True, record=record)
        return to_arrays(record)[INPUT]

    def gradients(self, prepared: Prepared) -> tuple[float, dict[str, Array]]:
        names = list(self.plan.trained)
        loss = self._loss_of(*prepared)
        found = torch.autograd.grad(loss, [self.network.tensors[n] for n in names])
        return loss.item(), to_arrays(dict(zip(names, found, strict=True)))

    def cross_entropy(self, logits: Array, labels: npt.NDArray[np.int64]) -> float:
        values = torch.from_numpy(logits).to(self._device, self._dtype)
        return self._criterion(values, self._put(labels)).item()

    def counts(self) -> ParameterCounts:
        state = set(self.network.state_names())
        tensors = self.network.tensors
        return ParameterCounts(
            total_parameters=sum(t.numel() for n, t in tensors.items() if n not in state),
            trainable_parameters=sum(
                p.numel() for group in self.optimizer.param_groups for p in group["params"]
            ),
            state_values=sum(tensors[n].numel() for n in state),
        )

    def knobs(self) -> dict[str, Any]:
        kernels = [t for t in self.network.tensors.values() if t.ndim == 4]
        last = all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
        return {
            **devices.knobs(self._device),
            "layout": "channels_last" if last else "channels_first",
            **self._precision_knobs(),
            "optimizer": type(self.optimizer).__name__,
        }


def make_optimizer(
    tensors: dict[str, Tensor], plan: TrainingPlan, recipe: Recipe
) -> torch.optim.Optimizer:
    """Build torch.optim.SGD or AdamW, one group for each learning-rate scale and decay.

    Fused: one pass over each tensor. On 2 CPU cores AdamW's step on ResNet50 took 13 ms instead
    of 35, and the head's 0.04 instead of 0.09.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, treatment in plan.trained.items():
        decay = recipe.weight_decay if treatment.decays else 0.0
        groups.setdefault((treatment.learning_rate_scale, decay), []).append(tensors[name])
    parameters = [
        {"params": members, "scale": scale, "weight_decay": decay}
        for (scale, decay), members in groups.items()
    ]
    if recipe.optimizer == "sgd":
        rate, momentum = recipe.learning_rate, recipe.momentum
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, fused=True)
    return torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
    )


if TYPE_CHECKING:
    _fulfilled: type[MatchedTrainer] = TorchTrainer
