"""Keras on torch: eager or through ``torch.compile``, with PyTorch's fused kernels.

Device, flags and memory are those of PyTorch's own adapter (``backends.torch_device``), so that the
two backends differ in Keras alone.

Sources: keras.io, "keras.device"; docs.pytorch.org, ``torch.nn.functional``, ``torch.compile``,
``torch.optim.SGD`` and ``AdamW`` (``fused``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import keras
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from backends import torch_device
from backends.keras_adapter.engines import (
    BETA_1,
    BETA_2,
    EPSILON,
    Edges,
    FusedUpdate,
    Pair,
    StepFunction,
    TrainedVariable,
    UpdateScalars,
)
from bench.network.blueprint import Array
from bench.spec.run import Precision, Recipe
from bench.training.adapter import DeviceEvents, OnPhase


class TorchEngine:
    """``backends.keras_adapter.engines.Engine`` for torch."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._copies = torch_device.Copies(self._device)
        self._compile_for: int | None = None
        self._placement = ExitStack()

    def devices(self) -> list[str]:
        return torch_device.devices()

    def blind_because(self) -> str | None:
        return torch_device.blind_because()

    def device_name(self, device: str) -> str:
        return torch_device.device_name(device)

    def start(self, device: str) -> None:
        torch_device.start(device)

    def prepare(
        self, device: str, precision: Precision, compile_for: int | None = None,
        native: bool = False,
    ) -> None:  # fmt: skip
        select = torch_device.use if native else torch_device.prepare
        self._device = select(device, precision)
        if native and precision == "tf32":
            torch_device.allow_tf32(True)
        self._copies = torch_device.Copies(self._device)
        self._compile_for = compile_for
        # By default Keras would use a GPU; the scope stays open until the next ``prepare``.
        self._placement.close()
        self._placement.enter_context(keras.device(device))

    def release(self) -> bool:
        torch_device.release()
        return True

    def splits_groups(self) -> bool:
        return False

    def taps_depthwise(self) -> bool:
        return False

    def pads(self) -> bool:
        return True

    def convolution(
        self, x: Any, kernel: Any, bias: Any, stride: Pair, edges: Edges, dilation: Pair,
        groups: int,
    ) -> Any:  # fmt: skip
        x, padding = _padded(_channels_first(x), edges)
        weight = kernel.permute(3, 2, 0, 1)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups).permute(0, 2, 3, 1)

    def lay_out(self, kernel: Any) -> None:
        first = kernel.value.data.permute(3, 2, 0, 1)
        last = first.contiguous(memory_format=torch.channels_last)
        kernel.value.data = last.permute(2, 3, 1, 0)

    def max_pool(self, x: Any, kernel: Pair, stride: Pair, edges: Edges) -> Any:
        x, padding = _padded(_channels_first(x), edges, -torch.inf, kernel)
        return F.max_pool2d(x, kernel, stride, padding).permute(0, 2, 3, 1)

    def average_pool(self, x: Any, kernel: Pair, stride: Pair, edges: Edges) -> Any:
        x, padding = _padded(_channels_first(x), edges, 0.0, kernel)
        return F.avg_pool2d(x, kernel, stride, padding).permute(0, 2, 3, 1)

    def batch_norm_training(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mean: Any,
        variance: Any,
        epsilon: float,
        momentum: float,
    ) -> Any:
        # F.batch_norm moves the statistics that it is given.
        moved = mean.value, variance.value
        return _batch_norm(x, gamma, beta, *moved, epsilon, momentum, training=True)

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        return _batch_norm(x, gamma, beta, mean, variance, epsilon, momentum=0.0, training=False)

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], UpdateScalars], None],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        computed = self._through_compiler(forward)

        def step(prepared: Any, scalars: tuple[float, ...], after: OnPhase) -> Any:
            loss, scaled = computed(*prepared)
            after("forward")
            gradients = torch.autograd.grad(scaled, [v.value for v in variables])
            after("backward")
            with torch.no_grad():
                update(list(gradients), UpdateScalars(*scalars))
            after("optimizer")
            return loss.detach()

        return step

    def _through_compiler(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        size = self._compile_for
        return forward if size is None else torch_device.Compiled(forward, size)

    def fused_update(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> FusedUpdate | None:
        return TorchUpdate(recipe, trained, moments)

    def make_gradients(
        self, forward: Callable[..., Any], variables: list[Any], inputs: list[Any]
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        def gradients(prepared: Any) -> tuple[Any, list[Any]]:
            loss, _ = forward(*prepared)
            return loss.detach(), list(torch.autograd.grad(loss, [v.value for v in variables]))

        return gradients

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        def forward(*tensors: Tensor) -> Any:
            return model(list(tensors), training=False)

        computed = self._through_compiler(forward)

        def infer(*arrays: Any) -> Any:
            with torch.no_grad():
                return computed(*self._copies.to_device(*arrays))

        return infer

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        return self.make_infer(model)

    def to_device(self, array: Any) -> Any:
        return self._copies.to_device(array)[0]

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._copies.host_array(shape, dtype)

    def to_host(self, value: Any) -> Callable[[], Array]:
        return self._copies.to_host(value).wait

    def events(self) -> DeviceEvents | None:
        return torch_device.events(self._device)

    def synchronise(self) -> None:
        torch_device.synchronise(self._device)

    def peak_device_bytes(self) -> int | None:
        return torch_device.peak_bytes(self._device)

    def reserved_device_bytes(self) -> int | None:
        return torch_device.reserved_bytes(self._device)

    def reset_peak(self) -> None:
        torch_device.reset_peak(self._device)

    def layout(self, kernels: list[Any]) -> str | None:
        last = all(
            kernel.value.permute(3, 2, 0, 1).is_contiguous(memory_format=torch.channels_last)
            for kernel in kernels
        )
        return "channels_last" if last else "channels_first"

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        return torch_device.matrix_product(self._device, precision, side)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return torch_device.is_out_of_memory(error)

    def profile(self, work: Callable[[], None]) -> dict[str, float]:
        return torch_device.profile(work)

    def knobs(self) -> dict[str, Any]:
        return torch_device.knobs(self._device)


class TorchUpdate:
    """PyTorch's fused SGD or AdamW over lists of Keras variables (``FusedUpdate``)."""

    can_skip = True

    def __init__(
        self, recipe: Recipe, trained: Sequence[TrainedVariable], moments: list[list[Any]]
    ) -> None:
        self._recipe = recipe
        self._groups: dict[tuple[float, float], list[int]] = {}
        """Learning-rate scale and decay → positions of the variables."""
        for index, one in enumerate(trained):
            key = float(one.rate_scale), float(one.decay or 0.0)
            self._groups.setdefault(key, []).append(index)
        self._values = [one.variable.value for one in trained]
        for each in moments:
            for moment, value in zip(each, self._values, strict=True):
                moment.value.data = torch.zeros_like(value)  # the kernels want equal strides
        self._moments = [[moment.value for moment in each] for each in moments]
        self._steps = [torch.zeros((), device=v.device) for v in self._values]
        """Number of steps so far, for each variable, as the kernels of AdamW want it."""

    def reset(self) -> None:
        for steps in self._steps:
            steps.zero_()

    def __call__(self, gradients: list[Any], scalars: UpdateScalars, loss_scale: Any = None) -> Any:
        found_inf = finite = None
        if loss_scale is not None:
            gradients = list(torch._foreach_div(gradients, loss_scale))
            largest = torch._foreach_norm(gradients, ord=float("inf"))
            finite = torch.stack(largest).isfinite().all()
            found_inf = (~finite).float()
        for (scale, decay), indices in self._groups.items():
            rate = scalars.rate * scale
            values, found, *moments = (
                [each[i] for i in indices] for each in (self._values, gradients, *self._moments)
            )
            found = [
                g if g.stride() == v.stride() else torch.empty_like(v).copy_(g)
                for g, v in zip(found, values, strict=True)
            ]
            if self._recipe.optimizer == "sgd":
                sgd(
                    values, found, moments[0], fused=True, lr=rate, weight_decay=decay,
                    momentum=self._recipe.momentum, dampening=0.0, nesterov=False, maximize=False,
                    found_inf=found_inf,
                )  # fmt: skip
                continue
            first, second = moments
            steps = [self._steps[i] for i in indices]
            adamw(
                values, found, first, second, [], steps, fused=True, lr=rate, weight_decay=decay,
                beta1=BETA_1, beta2=BETA_2, eps=EPSILON, amsgrad=False, maximize=False,
                found_inf=found_inf,
            )  # fmt: skip
        return finite


def _channels_first(x: Tensor) -> Tensor:
    """Return the view (N, C, H, W) of x (N, H, W, C): the tensor that x is itself a view of, if it
    is the output of another convolution, pooling or BatchNorm. It saves a call in each pass."""
    base = None if torch.compiler.is_compiling() else x._base
    if base is not None and base.ndim == 4 and base.storage_offset() == x.storage_offset():
        first = (0, 3, 1, 2)
        same_shape = base.shape == tuple(x.shape[axis] for axis in first)
        if same_shape and base.stride() == tuple(x.stride(axis) for axis in first):
            return base
    return x.permute(0, 3, 1, 2)


def _padded(
    x: Tensor, edges: Edges, value: float = 0.0, kernel: Pair | None = None
) -> tuple[Tensor, Pair]:
    """Return x (N, C, H, W), padded where the edges differ, and the padding that is left to the
    operation. A pooling takes at most half of its kernel."""
    (top, bottom), (left, right) = edges
    fits = kernel is None or (2 * top <= kernel[0] and 2 * left <= kernel[1])
    if top == bottom and left == right and fits:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    epsilon: float,
    momentum: float,
    training: bool,
) -> Any:
    """Normalise the channels-first view of x (N, H, W, C), whose memory is channels_last."""
    y = F.batch_norm(_channels_first(x), mean, variance, gamma, beta, training, momentum, epsilon)
    return y.permute(0, 2, 3, 1)


def engine() -> TorchEngine:
    """Return the engine of this process."""
    return TorchEngine()
