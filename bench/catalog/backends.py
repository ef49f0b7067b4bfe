"""The backends, as strings; a new backend is a package in ``backends`` and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000"}
"""Settings of the C library, mallopt(3): it keeps large blocks of memory instead of returning them
to the system, which would clear each page again. On 2 CPU cores PyTorch trained ResNet50 (224 px,
batch 16) 1.08 times as fast with them; TensorFlow, which keeps its own memory, no faster."""


NEIGHBOUR = {"GOMP_SPINCOUNT": "30000"}
"""Setting of PyTorch's OpenMP threads (gcc.gnu.org, libgomp, GOMP_SPINCOUNT): how often a thread
looks for work before it sleeps. By default it looks so long that beside other work the threads wait
for each other's cores: on 2 cores with a busy process on each, training EfficientNet-Lite0 fell to
a tenth of its rate, and with this setting to a half (docs/speed.md)."""
CUDA_12 = ("nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12",
           "nvidia-cuda-nvrtc-cu12")  # fmt: skip
CUDA_13 = ("nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cuda-nvrtc")
"""Distributions with the libraries of CUDA that decide speed and numbers on a GPU."""


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
    cpu_variables: dict[str, str] = field(default_factory=dict)
    """The same, for runs on a CPU alone."""
    defaults: dict[str, str] = field(default_factory=dict)
    """The same, where the user has not set them."""
    replaced: tuple[str, ...] = ()
    """Variables of the user that contradict ``variables``, and are taken away."""
    always_compiled: bool = False
    """True if training steps are compiled whatever the recipe says."""
    description: str = ""
    """Text for ``list backends``."""

    def environment(self, outer: Mapping[str, str], device: str) -> dict[str, str]:
        """Return the environment variables of a worker on a device, from those of its parent."""
        kept = {name: value for name, value in outer.items() if name not in self.replaced}
        is_hidden = outer.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        on_cpu = self.cpu_variables if device == "cpu" or is_hidden else {}
        return {**self.defaults, **kept, **self.variables, **on_cpu}

    def own_variables(self) -> tuple[str, ...]:
        """Return the names of all variables that ``environment`` may set."""
        return (*self.variables, *self.cpu_variables, *self.defaults)


BACKENDS: dict[str, BackendEntry] = {
    "torch": BackendEntry(
        adapter="backends.torch_adapter",
        packages=("torch", "torchvision"),
        also=("timm", "triton", *CUDA_13),
        variables=ALLOCATOR,
        defaults=NEIGHBOUR,
        description="PyTorch, eager or torch.compile",
    ),
    "keras-tensorflow": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "tensorflow"),
        also=CUDA_12,
        # In half precision, cuDNN's BatchNorm takes channels last only in this mode; without it
        # TensorFlow turns every activation around twice (its fused_batch_norm_op.cc).
        variables={"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2",
                   "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT": "1"},
        description="Keras 3 on TensorFlow, graph mode or XLA, fused BatchNorm",
    ),
    "keras-torch": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "torch"),
        also=("triton", *CUDA_13),
        variables={"KERAS_BACKEND": "torch", **ALLOCATOR},
        defaults=NEIGHBOUR,
        description="Keras 3 on PyTorch, eager or torch.compile, fused BatchNorm",
    ),
    "keras-jax": BackendEntry(
        adapter="backends.keras_adapter",
        packages=("keras", "jax", "jaxlib"),
        also=("jax-cuda12-plugin", "jax-cuda13-plugin", *CUDA_12, *CUDA_13),
        # By default JAX takes three quarters of the memory of every GPU at once. Here it may take
        # nearly all, as it needs it: a worker is alone on its GPU, and others may be on the next.
        variables={"KERAS_BACKEND": "jax", "XLA_CLIENT_MEM_FRACTION": "0.95",
                   "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        # JAX refuses to start with both names of the fraction. A user's cache of programs would
        # make compilation, and with it figures, depend on its content.
        replaced=("XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_COMPILATION_CACHE_DIR"),
        # Else JAX takes memory of every GPU.
        cpu_variables={"JAX_PLATFORMS": "cpu"},
        always_compiled=True,
        description="Keras 3 on JAX, compiled by XLA",
    ),
}  # fmt: skip
OWN_STEP = "own-step"
"""Backend of a user's own training step (``speed --target``): no adapter, no settings."""
_OWN_STEP_ENTRY = BackendEntry(adapter="", packages=())


def backend_entry(backend: str) -> BackendEntry:
    """Return the entry of a backend, or that of a user's own step."""
    return _OWN_STEP_ENTRY if backend == OWN_STEP else BACKENDS[backend]


DEFAULT_BACKENDS = ("torch", "keras-tensorflow")
"""Backends of a suite that names none."""
EXPORTER = "torch"
"""The backend whose adapter turns a network of torchvision or timm into a Blueprint."""
