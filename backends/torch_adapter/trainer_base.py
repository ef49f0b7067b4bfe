"""The parts of a trainer that do not depend on how its network was built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backends import torch_device as devices
from bench.network.blueprint import Array
from bench.spec.run import Precision
from bench.training.adapter import Batch, DeviceEvents, OnPhase, ignore

Prepared = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""Images, labels and dropout masks of a batch, on the device."""


class TorchTrainerBase(ABC):
    """A device, a precision, and the training step of PyTorch."""

    waits_for_steps = False
    optimizer: torch.optim.Optimizer
    """Each of its parameter groups has a 'scale': its learning rate over that of the step."""

    def __init__(self, device: str, precision: Precision, native: bool = False) -> None:
        """Take the device; in native mode, leave PyTorch's own flags as they are.

        Raises:
            Unavailable: PyTorch lacks the device or the precision.
        """
        self._device = (devices.use if native else devices.prepare)(device, precision)
        if native and precision == "tf32":
            devices.allow_tf32(True)
        self._copies = devices.Copies(self._device)
        self._precision = precision
        self._dtype = torch.float64 if precision == "fp64" else torch.float32
        self._scaler = self._fresh_scaler()

    @abstractmethod
    def loss(self, prepared: Prepared) -> Tensor:
        """Compute the mean cross-entropy of a batch in training form."""

    def _fresh_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self._device.type, enabled=self._precision == "fp16")

    def _put(self, array: npt.NDArray[Any]) -> Tensor:
        return self._copies.to_device(array)[0]

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._copies.host_array(shape, dtype)

    def _autocast(self) -> AbstractContextManager[Any]:
        return devices.autocast(self._device, self._precision)

    def to_device(self, batch: Batch) -> Prepared:
        images, labels, *masks = self._copies.to_device(batch.images, batch.labels, *batch.masks)
        first = (m.permute(0, 3, 1, 2) if m.ndim == 4 else m for m in masks)
        return images, labels, tuple(first)

    def train_step(self, prepared: Prepared, learning_rate: float) -> Tensor:
        return self.step_in_phases(prepared, learning_rate, ignore)

    def step_in_phases(self, prepared: Prepared, learning_rate: float, after: OnPhase) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(prepared)
        after("forward")
        self._scaler.scale(loss).backward()
        after("backward")
        self._scaler.step(self.optimizer)
        self._scaler.update()
        after("optimizer")
        return loss.detach()

    def losses(self, handles: list[Tensor]) -> list[float]:
        values: list[float] = torch.stack(handles).tolist()
        return values

    def logits(self, handles: list[Tensor]) -> Array:
        array: Array = torch.cat([h.to(self._dtype) for h in handles]).cpu().numpy()
        return array

    def synchronise(self) -> None:
        devices.synchronise(self._device)

    def peak_device_bytes(self) -> int | None:
        return devices.peak_bytes(self._device)

    def reserved_device_bytes(self) -> int | None:
        return devices.reserved_bytes(self._device)

    def reset_peak(self) -> None:
        devices.reset_peak(self._device)

    def events(self) -> DeviceEvents | None:
        return devices.events(self._device)

    def matrix_product(self, side: int) -> Callable[[], Tensor]:
        return devices.matrix_product(self._device, self._precision, side)

    def _precision_knobs(self) -> dict[str, Any]:
        return {
            "autocast": self._precision if self._precision in devices.AUTOCAST else None,
            "loss_scale": self._scaler.get_scale() if self._scaler.is_enabled() else None,
        }


def to_arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    """Copy tensors to the host, by name, in C order."""
    return {n: np.array(t.detach().cpu().numpy(), order="C") for n, t in tensors.items()}
