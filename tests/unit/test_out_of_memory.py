"""Out of memory is a result: the exceptions by which frameworks say so, and other ones."""

from __future__ import annotations

import pytest

from backends.out_of_memory import is_out_of_memory


def _error(name: str, words: str, base: type[Exception] = RuntimeError) -> Exception:
    """Make an exception of a class that stands in for a framework's."""
    made: Exception = type(name, (base,), {})(words)
    return made


FULL = {
    "host": MemoryError(),
    "torch's own": _error("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    "in a Keras layer": RuntimeError(
        "Exception encountered when calling Conv2D.call().\n\nCUDA out of memory. Tried to allocate"
    ),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "context": _error("AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might be"),
    "CPU allocator": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400000000000 bytes."
    ),
    "TensorFlow's own": _error("ResourceExhaustedError", "OOM when allocating tensor with shape"),
    "TensorFlow, copy to a full card": _error("InternalError", "Dst tensor is not initialized."),
    "TensorFlow, driver": _error(
        "InternalError",
        "CUDA runtime implicit initialization failed. Status: CUDA_ERROR_OUT_OF_MEMORY",
    ),
    "XLA": _error(
        "JaxRuntimeError",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes",
    ),
    "XLA, driver": _error("JaxRuntimeError", "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
}
UNCLEAR = {
    "cuDNN's search": RuntimeError("FIND was unable to find an engine to execute this computation"),
    "cuDNN's heuristic": RuntimeError(
        "GET was unable to find an engine to execute this computation"
    ),
    "XLA's cuDNN": _error(
        "JaxRuntimeError",
        "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above",
    ),
}
OTHER = {
    "shape": RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x5 and 6x7)"),
    "illegal access": _error(
        "AcceleratorError", "CUDA error: an illegal memory access was encountered"
    ),
    "no kernel": RuntimeError(
        "CUDA error: no kernel image is available for execution on the device"
    ),
    "TensorFlow": _error("InternalError", "Failed launching conv kernel"),
    "file": FileNotFoundError("memory.txt"),
}


@pytest.mark.parametrize("name", FULL)
def test_words_of_a_full_memory(name: str) -> None:
    assert is_out_of_memory(FULL[name], lambda: False)


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_words_are_believed_where_the_device_is_full(name: str, is_full: bool) -> None:
    assert is_out_of_memory(UNCLEAR[name], lambda: is_full) is is_full


@pytest.mark.parametrize("name", OTHER)
def test_words_of_something_else(name: str) -> None:
    assert not is_out_of_memory(OTHER[name], lambda: True)


def test_the_cause_of_an_exception_counts() -> None:
    raised = ValueError("a step failed")
    raised.__cause__ = FULL["torch's own"]
    assert is_out_of_memory(raised, lambda: False)


@pytest.mark.parametrize(
    "words", ["cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "No algorithm worked!"]
)
def test_more_unclear_words(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words), lambda: True)
    assert not is_out_of_memory(RuntimeError(words), lambda: False)
