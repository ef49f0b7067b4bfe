"""The environment of a run: everything besides its spec that can change a number."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress

from bench.spec.run import Environment
from bench.storage.code_digest import adapter_digest, shared_digest
from bench.system import cores, package_version, processor
from bench.system.gpu import Gpu, gpus

PREFIXES = (
    "ATEN_", "CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "GOMP_", "JAX_", "KERAS_TORCH_", "KMP_", "MKL_",
    "NVIDIA_TF32_",
    "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TF_CUDNN_", "TF_DETERMINISTIC_", "TF_DISABLE_",
    "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_NUM_", "TF_USE_", "TF_XLA_", "TORCH_",
    "TORCHDYNAMO_", "TORCHINDUCTOR_", "XLA_",
)  # fmt: skip
"""Beginnings of the names of environment variables that frameworks and their libraries read. Those
of TensorFlow are longer than 'TF_', which Terraform uses for secrets."""
OTHERS = ("LD_PRELOAD", "NPROC")
WITHOUT_EFFECT = ("_CACHE", "_DIR", "_HOME", "_LOGS", "_LOG_LEVEL", "_PATH", "_VERSION")
"""Ends of the names of variables that change no number: places, logs, and versions, which are
recorded as those of packages."""
SECRET = ("TOKEN", "SECRET", "PASSWORD", "KEY")
ALWAYS = ("numpy", "pillow", "scipy", "scikit-learn")
"""Distributions whose version counts for every backend: pixels and metrics come from them."""
NO_DEVICE = "absent"
"""Model of a GPU that the driver does not list."""


def relevant_variables() -> dict[str, str]:
    """Return the environment variables of this process that can change a number."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if (name.startswith(PREFIXES) or name in OTHERS)
        and not name.endswith(WITHOUT_EFFECT)
        and not any(word in name for word in SECRET)
    }


def environment_here(
    backend: str, adapter: str, packages: Iterable[str], device: str, variables: Iterable[str] = ()
) -> Environment:
    """Return the environment of this process and machine, without importing a framework.

    Args:
        adapter: The adapter's package, whose code counts.
        packages: Distributions whose version can change a number.
        variables: Environment variables that count besides ``relevant_variables``.
    """
    versions = {n: v for n in (*packages, *ALWAYS) if (v := package_version(n)) is not None}
    model, driver, settings = processor(), None, dict[str, str]()
    if device.startswith("cuda:"):
        gpu = dict(enumerate(gpus())).get(int(device.removeprefix("cuda:")))
        model, driver = (gpu.name, gpu.driver) if gpu else (NO_DEVICE, None)
        settings = device_settings(gpu, versions)
    own = {name: os.environ[name] for name in variables if name in os.environ}
    return Environment(
        backend=backend,
        python=platform.python_version(),
        packages=versions,
        thawbench=f"{shared_digest()}.{adapter_digest(backend, adapter)}",
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        device=device,
        device_model=model,
        driver=driver,
        device_settings=settings,
        variables={**relevant_variables(), **own},
    )


def device_settings(gpu: Gpu | None, versions: Mapping[str, str]) -> dict[str, str]:
    """Return what changes speed or memory of a GPU, besides its model and its driver."""
    found = dict(gpu.settings) if gpu else {}
    if gpu and gpu.memory_bytes is not None:
        found["memory_mib"] = str(gpu.memory_bytes // 2**20)
    if not any(name.startswith("nvidia-cudnn") for name in versions):
        cudnn = _system_cudnn()
        found |= {} if cudnn is None else {"cudnn": cudnn}
    return found


def _system_cudnn() -> str | None:
    """Return the version of the cuDNN that the system's loader finds, as in the containers of
    NVIDIA and in conda, where it is no Python package; None if there is none."""
    for name in ("libcudnn.so.9", "libcudnn.so.8", "libcudnn.so"):
        with suppress(OSError, AttributeError):
            return str(ctypes.CDLL(name).cudnnGetVersion())
    return None
