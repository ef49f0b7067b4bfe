"""Device-specific parts of PyTorch: flags, synchronise, memory (docs/design.md, Devices).

Sources: docs.pytorch.org, "CUDA semantics", "torch.backends", "Automatic Mixed Precision".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.errors import Unavailable
from bench.spec.run import Precision

AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def devices() -> list[str]:
    """Return 'cpu' and one 'cuda:N' for each GPU that PyTorch sees."""
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def prepare(name: str, precision: Precision) -> torch.device:
    """Select a device and set the flags of a run: full float32, no TF32, cuDNN's autotuner on.

    Raises:
        Unavailable: PyTorch does not see the device, or it lacks the precision.
    """
    if name not in devices():
        raise Unavailable(
            f"PyTorch {torch.__version__} does not see {name}, only {', '.join(devices())}; "
            "`python run_bench.py doctor` shows why"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
        if precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise Unavailable(f"{torch.cuda.get_device_name(device)} has no bf16")
    if device.type == "cpu" and precision == "fp16":
        raise Unavailable("fp16 is for GPUs; a CPU has --precision fp32 or bf16")
    return device


def put(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy a host array to the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the autocast context of a mixed precision, an empty context for others."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


def values(handles: list[Tensor]) -> npt.NDArray[Any]:
    """Join values on the host: in float64 if they are float64, else in float32."""
    joined = torch.cat(handles)
    dtype = joined.dtype if joined.dtype == torch.float64 else torch.float32
    found: npt.NDArray[Any] = joined.to(dtype).contiguous().cpu().numpy()
    return found


def synchronise(device: torch.device) -> None:
    """Wait for the device; return at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the most bytes allocated at once since ``prepare``; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def matrix_product(device: torch.device, precision: Precision, side: int) -> Callable[[], Tensor]:
    """Return a function that queues one product of (side, side) matrices, in half precision where
    autocast multiplies in it. Each product has the previous one as a factor, so that none can be
    skipped."""
    dtype = torch.float64 if precision == "fp64" else AUTOCAST.get(precision, torch.float32)
    random = torch.Generator(device).manual_seed(0)
    # At this scale, products neither grow nor vanish.
    factor = torch.randn(side, side, generator=random, device=device) / side**0.5
    factor = factor.to(dtype)
    product = factor.clone()

    def multiply() -> Tensor:
        nonlocal product
        product = torch.matmul(factor, product)
        return product

    return multiply


def release() -> None:
    """Free compiled code, and GPU memory that no tensor holds."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for PyTorch's exception on a GPU, and its allocator's message on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def knobs(device: torch.device) -> dict[str, Any]:
    """Return process-wide settings as PyTorch reports them now."""
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
        "compile": _compiled(),
        "malloc_mmap_threshold_bytes": _mmap_threshold_bytes(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
    }


def forget_compilation() -> None:
    """Let ``knobs`` report compilations from now on only."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None:
        dynamo.counters.clear()


def _mmap_threshold_bytes() -> int | None:
    """Return the C library's setting of this process (mallopt(3)), None for its default."""
    setting = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    return int(setting) if setting.isdecimal() else None


def _compiled() -> bool:
    """Return True if ``torch.compile`` has compiled anything, by its own counter."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["stats"]["unique_graphs"] > 0
