"""The backends, as strings; a new backend is a package in ``backends`` and an entry here."""

from __future__ import annotations

from dataclasses import dataclass, field

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000"}
"""Settings of the C library, mallopt(3): it keeps large blocks of memory instead of returning them
to the system, which would clear each page again. On 2 CPU cores PyTorch trained ResNet50 (224 px,
batch 16) 1.08 times as fast with them; TensorFlow, which keeps its own memory, no faster."""


@dataclass(frozen=True)
class BackendEntry:
    """A backend: what its workers need, and its description."""

    adapter: str
    """Module with the function ``adapter()``, imported in the worker process only."""
    packages: tuple[str, ...]
    """Distributions that it requires."""
    also: tuple[str, ...] = ()
    """Optional distributions whose version can change a result."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables that must be set before the framework is imported."""
    description: str = ""
    """Text for ``list backends``."""


BACKENDS: dict[str, BackendEntry] = {
    "torch": BackendEntry(
        adapter="backends.torch_adapter",
        packages=("torch", "torchvision"),
        also=("timm", "nvidia-cudnn-cu13", "nvidia-cublas"),
        variables=ALLOCATOR,
        description="PyTorch, eager, channels_last",
    ),
    "keras-tensorflow": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "tensorflow"),
        also=("nvidia-cudnn-cu12", "nvidia-cublas-cu12"),
        variables={"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
        description="Keras 3 on TensorFlow, graph mode, fused BatchNorm",
    ),
    "keras-torch": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "torch"),
        also=("nvidia-cudnn-cu13", "nvidia-cublas"),
        variables={"KERAS_BACKEND": "torch", **ALLOCATOR},
        description="Keras 3 on PyTorch, eager, fused BatchNorm",
    ),
    "keras-jax": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "jax", "jaxlib"),
        also=("jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
              "nvidia-cublas-cu12", "nvidia-cublas"),
        # Allocate memory as needed, as the other frameworks do.
        variables={"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        description="Keras 3 on JAX, compiled by XLA",
    ),
}  # fmt: skip
DEFAULT_BACKENDS = ("torch", "keras-tensorflow")
"""Backends of a suite that names none."""
EXPORTER = "torch"
"""The backend whose adapter turns a network of torchvision or timm into a Blueprint."""
