"""The frozen prefix without the rest of the network, in inference form."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from backends import torch_device as devices
from backends.torch_adapter.network import TorchNetwork
from bench.network.blueprint import Array, Network
from bench.network.freezing import TrainingPlan
from bench.spec.run import Recipe

Forward = Callable[[Tensor], Tensor]
"""Function from uint8 images (N, H, W, 3) to the value (N, …), channels first."""


class TorchPrefix:
    """A frozen prefix on a device (``bench.training.adapter.Prefix``)."""

    def __init__(self, network: Network, recipe: Recipe, device: str, compiled: bool) -> None:
        self._device = torch.device(device)
        self._precision = recipe.precision
        dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        frozen = TrainingPlan(len(network.blueprint.operations), {}, tuple(network.tensors), (), ())
        layout = devices.memory_format(self._device, recipe.precision)
        self._network = TorchNetwork(network, frozen, self._device, dtype, layout)
        self._copies = devices.Copies(self._device)
        self._batch_size = recipe.batch_size
        self._compiled: Forward | None = None
        self._wants_compiled = compiled
        self._form = "folded"

    def _plain(self, images: Tensor) -> Tensor:
        return self._network.forward(images, (), training=False)

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._copies.host_array(shape, dtype)

    def prefix(self, images: npt.NDArray[np.uint8]) -> devices.HostCopy:
        (on_device,) = self._copies.to_device(images)
        with torch.no_grad(), self._autocast():
            value = self._forward(on_device)(on_device)
        last = value.permute(0, 2, 3, 1) if value.ndim == 4 else value
        return self._copies.to_host(last)

    def _autocast(self) -> AbstractContextManager[Any]:
        return devices.autocast(self._device, self._precision)

    def _forward(self, images: Tensor) -> Forward:
        """Return the compiled function for full batches; another size would be compiled anew."""
        if len(images) != self._batch_size:
            return self._plain
        if self._wants_compiled:
            self._wants_compiled = False
            self._compile(images)
        return self._plain if self._compiled is None else self._compiled

    def _compile(self, images: Tensor) -> None:
        """Compile by Inductor, with all tensors as constants; fall back to eager if that fails."""
        try:
            compiled = _frozen(self._plain, images)
            compiled(images)
        except Exception as error:  # a compiler, or the lack of one, may raise anything
            if devices.is_out_of_memory(error):
                raise
            traceback.print_exc()
            self._form = f"folded (torch.compile failed: {type(error).__name__})"
        else:
            self._compiled, self._form = compiled, "compiled"
        finally:
            devices.forget_compilation()

    def values(self, handles: list[devices.HostCopy]) -> Array:
        return devices.values(handles)

    def synchronise(self) -> None:
        devices.synchronise(self._device)

    def prefix_form(self) -> str:
        return self._form


def _frozen(forward: Forward, images: Tensor) -> Forward:
    """Compile ``forward`` for images of this shape with its tensors as constants.

    Inductor takes constants from a module's buffers only (docs.pytorch.org, torch.compile,
    ``freezing``); a trace holds its tensors as plain attributes.
    """
    module = make_fx(lambda x: forward(x))(
        images
    )  # make_fx would count a method's self as an argument
    for name, value in list(vars(module).items()):
        if isinstance(value, Tensor):
            delattr(module, name)
            module.register_buffer(name, value)
    module.eval()
    return torch.compile(module, dynamic=False, options={"freezing": True})
