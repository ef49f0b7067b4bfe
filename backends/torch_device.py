"""A device as PyTorch drives it: flags, copies, clock, memory. Used by PyTorch's adapter and by the
torch engine of Keras, so that the two differ in Keras alone.

Sources: docs.pytorch.org, "CUDA semantics", "torch.backends" (``fp32_precision``), "Automatic Mixed
Precision", "Numerical accuracy", ``torch.cuda.Event``, ``torch.Tensor.record_stream``.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch._dynamo  # the first step of any optimizer does so: better while a worker starts
from torch import Tensor

from backends.out_of_memory import is_out_of_memory as reports_full
from backends.requirements import check_capability, check_device
from bench.errors import Unavailable, first_line
from bench.spec.run import Precision

AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPILER = "torch._inductor.compile_fx"
"""Module that is imported by the first use of ``torch.compile``."""
FULL_SHARE = 1 / 8
"""A GPU with less than this share of its memory free counts as full, where an exception does not
tell."""
CHANNELS_FIRST: frozenset[Precision] = frozenset({"fp32", "fp64"})
"""Precisions in which convolutions on a GPU run channels first. cuDNN's kernels for channels last
are made for tensor cores (bf16, fp16, TF32); in IEEE float32 they are often the slower ones, and
depthwise ones are copied to channels first (pytorch#44943; docs/gpu.md)."""


def devices() -> list[str]:
    """Return 'cpu' and one 'cuda:N' for each GPU that PyTorch sees."""
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def blind_because() -> str | None:
    """Return why PyTorch sees no GPU, such as a driver that is too old; None if it sees one."""
    if torch.cuda.device_count():
        return None
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return None


def use(name: str, precision: Precision) -> torch.device:
    """Select a device, and leave all flags as they are.

    Raises:
        Unavailable: PyTorch does not see the device, or it lacks the precision.
    """
    check_device(f"PyTorch {torch.__version__}", name, devices(), precision, blind_because)
    device = torch.device(name)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        check_capability(torch.cuda.get_device_name(device), capability, precision)
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    return device


def prepare(name: str, precision: Precision) -> torch.device:
    """Select a device and set the flags of a matched run: TF32 where the precision says so and IEEE
    float32 elsewhere, cuDNN's autotuner on. Raise what ``use`` raises."""
    device = use(name, precision)
    allow_tf32(precision == "tf32")
    torch.backends.cudnn.benchmark = True
    return device


def allow_tf32(allowed: bool) -> None:
    """Let float32 products and convolutions on a GPU round their factors to TF32, or not.

    The older ``allow_tf32`` flags do not override ``torch.backends.fp32_precision``, which a
    library may have set. Reading them, as Inductor does, raises where they and the newer flags
    disagree. So all are set, the older ones first.
    """
    precision = "tf32" if allowed else "ieee"
    torch.backends.cudnn.allow_tf32 = allowed
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = precision  # type: ignore[attr-defined]


def memory_format(device: torch.device, precision: Precision) -> torch.memory_format:
    """Return the layout of kernels and images that a device takes fastest."""
    first = device.type == "cuda" and precision in CHANNELS_FIRST
    return torch.contiguous_format if first else torch.channels_last


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the autocast context of a mixed precision, an empty context for others."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


class Copies:
    """Copies between host and device. On a GPU they run on a stream of their own, beside the steps
    that are queued on the main one, from and to pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._sources: deque[tuple[torch.cuda.Event, list[Tensor]]] = deque()
        """Host memory that a copy may still read."""

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialised array on the host that ``to_device`` copies fastest."""
        if self._stream is None:
            return np.empty(shape, dtype)
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        pinned: npt.NDArray[Any] = torch.empty(shape, dtype=kind, pin_memory=True).numpy()
        return pinned

    def to_device(self, *arrays: npt.NDArray[Any]) -> list[Tensor]:
        """Copy host arrays to the device; what is queued afterwards waits for them."""
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        if self._stream is None:
            return tensors
        while self._sources and self._sources[0][0].query():
            self._sources.popleft()
        pinned = [t if t.is_pinned() else t.pin_memory() for t in tensors]
        with torch.cuda.stream(self._stream):
            copies = [t.to(self._device, non_blocking=True) for t in pinned]
            done = torch.cuda.Event()
            done.record(self._stream)
        self._sources.append((done, pinned))
        main = torch.cuda.current_stream(self._device)
        main.wait_event(done)
        for copy in copies:
            copy.record_stream(main)
        return copies

    def to_host(self, value: Tensor) -> HostCopy:
        """Begin to copy a value to the host: in float64 if it is float64, else in float32."""
        dtype = value.dtype if value.dtype == torch.float64 else torch.float32
        value = value.to(dtype).contiguous()
        if self._stream is None:
            return HostCopy(value, None)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host = torch.empty(value.shape, dtype=dtype, pin_memory=True)
            host.copy_(value, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        value.record_stream(self._stream)
        return HostCopy(host, done)


class HostCopy(NamedTuple):
    """A value on its way to the host."""

    host: Tensor
    done: torch.cuda.Event | None

    def wait(self) -> npt.NDArray[Any]:
        """Return the value when it is there."""
        if self.done is not None:
            self.done.synchronize()
        found: npt.NDArray[Any] = self.host.numpy()
        return found


def values(handles: list[HostCopy]) -> npt.NDArray[Any]:
    """Wait for copies and join them."""
    return np.concatenate([handle.wait() for handle in handles])


class Events:
    """A clock on a GPU's own timeline, which does not make the host wait."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Note the moment when the device has done all that is queued now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> list[float]:
        """Return the seconds between neighbouring marks; waits for the last one."""
        self._marks[-1].synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [a.elapsed_time(b) / 1e3 for a, b in pairs]


class Compiled:
    """A function of tensors through ``torch.compile``, for batches of one size.

    Another size, such as that of an epoch's last batch, runs eagerly: it would be compiled anew.
    """

    def __init__(self, function: Callable[..., Any], batch_size: int) -> None:
        self._eager = function
        self._compiled = torch.compile(function, dynamic=False)
        self._batch_size = batch_size

    def __call__(self, *arguments: Any) -> Any:
        """Call the function; raise Unavailable if it cannot be compiled."""
        if len(arguments[0]) != self._batch_size:
            return self._eager(*arguments)
        try:
            return self._compiled(*arguments)
        except Exception as error:
            is_compilers = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
            if not is_compilers or is_out_of_memory(error):
                raise
            raise Unavailable(
                f"torch.compile failed: {type(error).__name__}: {first_line(error)}; "
                "use --compile plain"
            ) from error


def events(device: torch.device) -> Events | None:
    """Return a clock of the device; None on a CPU, whose work is done when a call returns."""
    return Events() if device.type == "cuda" else None


def synchronise(device: torch.device) -> None:
    """Wait for the device; return at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the most bytes that tensors and workspaces held at once since ``reset_peak``; None on
    a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def reserved_bytes(device: torch.device) -> int | None:
    """Return the most bytes that PyTorch took from the device at once; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    """Let ``peak_bytes`` begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_name(name: str) -> str:
    """Return the model of a GPU."""
    return torch.cuda.get_device_name(name)


def start(name: str) -> None:
    """Let PyTorch take what it keeps on a GPU and on the host for the whole process."""
    if name != "cpu":
        torch.zeros(1, device=name)
        torch.cuda.synchronize(name)


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
    """Free compiled code, and memory of the GPU and pinned memory that no tensor holds."""
    # On a GPU ``reset`` imports the whole compiler, 2.5 s on an H200's host, used or not.
    if COMPILER in sys.modules:
        torch._dynamo.reset()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        empty_host_cache = getattr(torch._C, "_host_emptyCache", None)  # no public name
        if empty_host_cache is not None:
            empty_host_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that memory of the GPU or of the host ran out."""
    return reports_full(error, _is_full)


def _is_full() -> bool:
    """Return True if hardly any memory is left on the GPU; what PyTorch keeps for later counts as
    left."""
    if not torch.cuda.is_initialized():
        return False
    try:
        free, total = torch.cuda.mem_get_info()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    except RuntimeError:  # after an error that no call survives
        return False
    return free + kept < FULL_SHARE * total


def knobs(device: torch.device) -> dict[str, Any]:
    """Return process-wide settings as PyTorch reports them now."""
    product = torch.backends.cuda.matmul.fp32_precision
    convolution = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "omp_spin_count": os.environ.get("GOMP_SPINCOUNT"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": device.type == "cuda" and "tf32" in (product, convolution),
        "tf32_matmul": product == "tf32",
        "tf32_convolution": convolution == "tf32",
        "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "compile": _compiled(),
        "graphs_compiled": _counter("stats", "unique_graphs"),
        "graph_breaks": sum(_dynamo_counters().get("graph_break", {}).values()),
        "malloc_mmap_threshold_bytes": _mmap_threshold_bytes(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
    }


def forget_compilation() -> None:
    """Let ``knobs`` report compilations from now on only."""
    _dynamo_counters().clear()


def _mmap_threshold_bytes() -> int | None:
    """Return the C library's setting of this process (mallopt(3)), None for its default."""
    setting = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    return int(setting) if setting.isdecimal() else None


def _compiled() -> bool:
    """Return True if ``torch.compile`` has compiled anything, by its own counter."""
    return _counter("stats", "unique_graphs") > 0


def _counter(group: str, name: str) -> int:
    return int(_dynamo_counters().get(group, {}).get(name, 0))


def _dynamo_counters() -> Any:
    """Return the counters of ``torch.compile`` by group and name; none if it was never used."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return {} if dynamo is None else dynamo.counters


def profile(work: Callable[[], None]) -> dict[str, float]:
    """Do ``work`` and return the seconds of each operation itself, on the GPU where it runs there,
    see ``bench.training.adapter.Adapter``."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_initialized():
        kinds.append(ProfilerActivity.CUDA)
    with profiler(activities=kinds) as seen:
        work()
    on_gpu = len(kinds) > 1
    return {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        for event in seen.key_averages()
    }
