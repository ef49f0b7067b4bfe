"""Keras on torch: eager, fused BatchNorm, no torch.compile.

The flags equal those of the torch adapter, so that the two backends differ in Keras alone.

Sources: keras.io, "keras.device"; docs.pytorch.org, ``torch.nn.functional.batch_norm``,
"CUDA semantics", "torch.backends".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F

from backends.keras_adapter.engines import PRODUCT_DTYPES, FusedUpdate, StepFunction, check_device
from bench.errors import Unavailable
from bench.spec.run import Precision, Recipe


class TorchEngine:
    """``backends.keras_adapter.engines.Engine`` for torch."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._placement = ExitStack()

    def devices(self) -> list[str]:
        return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]

    def prepare(self, device: str, precision: Precision) -> None:
        check_device(f"PyTorch {torch.__version__}", device, self.devices(), precision)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            if precision == "bf16" and not torch.cuda.is_bf16_supported():
                name = torch.cuda.get_device_name(self._device)
                raise Unavailable(f"{name} has no bf16; use --precision fp32")
        # By default Keras would use a GPU; the scope stays open until the next ``prepare``.
        self._placement.close()
        self._placement.enter_context(keras.device(device))

    def release(self) -> bool:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def splits_groups(self) -> bool:
        return False

    def taps_depthwise(self) -> bool:
        return False

    def batch_norm_training(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        mean: Any,
        variance: Any,
        epsilon: float,
        momentum: float,
    ) -> tuple[Any, Any, Any]:
        # F.batch_norm overwrites the statistics that it is given.
        mean, variance = mean.detach().clone(), variance.detach().clone()
        y = _batch_norm(x, gamma, beta, mean, variance, epsilon, momentum, training=True)
        return y, mean, variance

    def batch_norm_inference(
        self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
    ) -> Any:
        return _batch_norm(x, gamma, beta, mean, variance, epsilon, momentum=0.0, training=False)

    def make_step(
        self,
        forward: Callable[..., Any],
        update: Callable[[list[Any], tuple[Any, ...]], Any],
        variables: list[Any],
        inputs: list[Any],
    ) -> StepFunction:
        def step(prepared: Any, scalars: tuple[float, ...]) -> tuple[Any, Any]:
            loss, scaled = forward(*prepared, scalars[3])
            gradients = torch.autograd.grad(scaled, [v.value for v in variables])
            with torch.no_grad():
                return loss.detach(), update(list(gradients), scalars)

        return step

    def fused_update(self, recipe: Recipe) -> FusedUpdate | None:
        return None  # PyTorch's fused single-tensor kernels are not public

    def make_gradients(
        self, forward: Callable[..., Any], variables: list[Any], inputs: list[Any]
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        def gradients(prepared: Any) -> tuple[Any, list[Any]]:
            loss, _ = forward(*prepared, 1.0)
            return loss.detach(), list(torch.autograd.grad(loss, [v.value for v in variables]))

        return gradients

    def make_infer(self, model: keras.Model) -> Callable[..., Any]:
        def infer(*arrays: Any) -> Any:
            with torch.no_grad():
                return model([self.to_device(a) for a in arrays], training=False)

        return infer

    def make_constant(self, model: keras.Model) -> Callable[..., Any]:
        return self.make_infer(model)

    def to_device(self, array: Any) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor

    def synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def peak_device_bytes(self) -> int | None:
        if self._device.type == "cpu":
            return None
        return torch.cuda.max_memory_allocated(self._device)

    def matrix_product(self, side: int, precision: Precision) -> Callable[[], Any]:
        random = torch.Generator(self._device).manual_seed(0)
        factor = torch.randn(side, side, generator=random, device=self._device) / side**0.5
        factor = factor.to(getattr(torch, PRODUCT_DTYPES[precision]))
        product = factor.clone()

        def multiply() -> Any:
            nonlocal product
            product = factor @ product
            return product

        return multiply

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)

    def knobs(self) -> dict[str, Any]:
        on_gpu = self._device.type == "cuda"
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolution": torch.backends.cudnn.allow_tf32,
            "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
            "cuda": torch.version.cuda if on_gpu else None,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "compile": _compiled(),
        }


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
    y = F.batch_norm(
        x.permute(0, 3, 1, 2), mean, variance, gamma, beta, training, momentum, epsilon
    )
    return y.permute(0, 2, 3, 1)


def _compiled() -> bool:
    """Return True if ``torch.compile`` has compiled anything in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["stats"]["unique_graphs"] > 0


def engine() -> TorchEngine:
    """Return the engine of this process."""
    return TorchEngine()
