"""Recognise that memory ran out, from the type and the words of a framework's exception.

Keras raises exceptions of a layer anew, with the old words in a new message, so that words count
more than types. Sources of the words: PyTorch, aten/src/ATen/native/cudnn/Conv_v8.cpp (a search for
a convolution catches the allocator's exceptions and ends with 'unable to find an engine') and
c10/cuda/CUDACachingAllocator.cpp; TensorFlow, tsl/framework/bfc_allocator.cc and
common_runtime/gpu/gpu_util.cc ('Dst tensor is not initialized'); XLA, stream_executor/cuda.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TYPES = frozenset({"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"})
"""Names of exceptions that always mean a full memory."""
WORDS = re.compile(
    r"out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_.*ALLOC"
    r"|RESOURCE_EXHAUSTED|Dst tensor is not initialized|OOM when allocating"
    r"|can't allocate memory|[Ff]ailed to allocate .*(memory|bytes)"
)
"""Words that always mean a full memory."""
AMBIGUOUS = re.compile(
    r"(FIND|GET) was unable to find an engine|[Uu]nable to find an engine to execute this"
    r"|DNN library initialization failed|(CUDNN|CUBLAS)_STATUS_NOT_INITIALIZED"
    r"|CUDNN_STATUS_(INTERNAL_ERROR|EXECUTION_FAILED)|No algorithm worked"
)
"""Words of a full device, and of a shape or version that a library does not support."""


def is_out_of_memory(error: BaseException, is_full: Callable[[], bool]) -> bool:
    """Return True if an exception, or one that caused it, says that memory ran out.

    Args:
        is_full: Returns True if hardly any memory of the device is left; asked only where the words
            do not tell.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if any(kind.__name__ in TYPES for kind in type(cause).__mro__):
            return True
        words = str(cause)
        if WORDS.search(words) or (AMBIGUOUS.search(words) and is_full()):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
