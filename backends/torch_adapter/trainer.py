"""Training a Blueprint with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch_adapter import device as devices
from backends.torch_adapter.network import TorchNetwork
from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe
from bench.training.adapter import Batch, Counts


class TorchTrainer:
    """One network, its optimizer and its device (``bench.training.adapter.Trainer``)."""

    def __init__(self, network: Network, plan: TrainingPlan, recipe: Recipe, device: str) -> None:
        self._device = devices.prepare(device, recipe.precision)
        self._precision = recipe.precision
        self._dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        self.plan = plan
        self.network = TorchNetwork(network, plan, self._device, self._dtype)
        self.optimizer = make_optimizer(self.network.tensors, plan, recipe)
        self._scaler = self._fresh_scaler()

    def _fresh_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self._device.type, enabled=self._precision == "fp16")

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        masks = tuple(self._put(m) for m in batch.masks)
        masks = tuple(m.permute(0, 3, 1, 2) if m.ndim == 4 else m for m in masks)
        return self._put(batch.images), self._put(batch.labels), masks

    def _put(self, array: npt.NDArray[Any]) -> Tensor:
        return devices.put(array, self._device)

    def _autocast(self) -> AbstractContextManager[Any]:
        return devices.autocast(self._device, self._precision)

    def loss(self, prepared: tuple[Tensor, Tensor, tuple[Tensor, ...]]) -> Tensor:
        """Mean cross-entropy of a batch in training form."""
        images, labels, masks = prepared
        with self._autocast():
            logits = self._forward(images, masks, training=True)
        return self._criterion(logits.to(self._dtype), labels)

    def _forward(self, images: Tensor, masks: tuple[Tensor, ...], training: bool) -> Tensor:
        """Of pixels, or of values of the frozen prefix."""
        way = self.network.forward if images.dtype == torch.uint8 else self.network.resume
        return way(images, masks, training)

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    def train_step(
        self, prepared: tuple[Tensor, Tensor, tuple[Tensor, ...]], learning_rate: float
    ) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(prepared)
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def losses(self, handles: list[Tensor]) -> list[float]:
        values: list[float] = torch.stack(handles).tolist()
        return values

    def infer(self, images: Array) -> Tensor:
        with torch.no_grad(), self._autocast():
            return self._forward(self._put(images), (), training=False)

    def prefix(self, images: npt.NDArray[np.uint8]) -> Tensor:
        with torch.no_grad(), self._autocast():
            return self.network.prefix(self._put(images))

    def values(self, handles: list[Tensor]) -> Array:
        return devices.values(handles)

    def prefix_form(self) -> str:
        return "plain"

    def logits(self, handles: list[Tensor]) -> Array:
        array: Array = torch.cat([h.to(self._dtype) for h in handles]).cpu().numpy()
        return array

    def synchronise(self) -> None:
        devices.synchronise(self._device)

    def tensors(self) -> dict[str, Array]:
        return {
            name: np.array(tensor.detach().cpu().numpy(), order="C")
            for name, tensor in self.network.tensors.items()
        }

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
        return {name: np.array(value.cpu().numpy(), order="C") for name, value in record.items()}

    def gradients(
        self, prepared: tuple[Tensor, Tensor, tuple[Tensor, ...]]
    ) -> tuple[float, dict[str, Array]]:
        names = list(self.plan.trained)
        loss = self.loss(prepared)
        found = torch.autograd.grad(loss, [self.network.tensors[n] for n in names])
        arrays = (np.array(g.cpu().numpy(), order="C") for g in found)
        return loss.item(), dict(zip(names, arrays, strict=True))

    def cross_entropy(self, logits: Array, labels: npt.NDArray[np.int64]) -> float:
        values = torch.from_numpy(logits).to(self._device, self._dtype)
        return self._criterion(values, self._put(labels)).item()

    def counts(self) -> Counts:
        state = set(self.network.state_names())
        tensors = self.network.tensors
        return Counts(
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
            "autocast": self._precision if self._precision in devices.AUTOCAST else None,
            "loss_scale": self._scaler.get_scale() if self._scaler.is_enabled() else None,
            "optimizer": type(self.optimizer).__name__,
        }

    def peak_device_bytes(self) -> int | None:
        return devices.peak_bytes(self._device)

    def matrix_product(self, side: int) -> Callable[[], Any]:
        return devices.matrix_product(self._device, self._precision, side)


def make_optimizer(
    tensors: dict[str, Tensor], plan: TrainingPlan, recipe: Recipe
) -> torch.optim.Optimizer:
    """torch.optim.SGD or AdamW, one group for each learning-rate scale and decay.

    Fused: one pass over each tensor. On 2 CPU cores AdamW's step on ResNet50 took 13 ms in place
    of 35, and the head's 0.04 in place of 0.09.
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
