"""The environment of a run: everything besides its spec that can change a number."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from bench.spec.run import Environment
from bench.storage.code_digest import adapter_digest, shared_digest
from bench.system import cores, gpus, package_version, processor

VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "TF_DETERMINISTIC_OPS",
    "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG",
    "KMP_AFFINITY", "LD_PRELOAD", "ONEDNN_MAX_CPU_ISA", "TF_CUDNN_USE_AUTOTUNE", "NPROC",
    "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME",
    "MKL_DYNAMIC", "TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_MAX_AUTOTUNE",
)  # fmt: skip
"""Environment variables that frameworks read."""
ALWAYS = ("numpy", "pillow", "scipy", "scikit-learn")
"""Distributions whose version counts for every backend: pixels and metrics come from them."""
NO_DEVICE = "absent"
"""Model of a GPU that the driver does not list."""


def environment_here(
    backend: str, adapter: str, packages: Iterable[str], device: str, variables: Iterable[str] = ()
) -> Environment:
    """Return the environment of this process and machine, without importing a framework.

    Args:
        adapter: The adapter's package, whose code counts.
        packages: Distributions whose version can change a number.
        variables: Environment variables that count besides ``VARIABLES``.
    """
    versions = {n: v for n in (*packages, *ALWAYS) if (v := package_version(n)) is not None}
    model, driver = processor(), None
    if device.startswith("cuda:"):
        gpu = dict(enumerate(gpus())).get(int(device.removeprefix("cuda:")))
        model, driver = (gpu.name, gpu.driver) if gpu else (NO_DEVICE, None)
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
        variables={v: os.environ[v] for v in (*VARIABLES, *variables) if v in os.environ},
    )
