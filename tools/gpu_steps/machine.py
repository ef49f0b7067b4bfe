"""Versions, devices and settings of the machine, as each library tells them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.system.gpu import gpus, state
from tools.gpu_steps.common import Findings, StepOptions

PACKAGES = (
    "torch", "torchvision", "timm", "triton", "jax", "jaxlib", "jax-cuda12-plugin",
    "jax-cuda13-plugin", "keras", "tensorflow", "numpy", "pandas", "pydantic", "plotly",
    "scikit-learn", "scipy", "pillow", "safetensors", "optree", "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-ml-py",
)  # fmt: skip
FILES = ("/proc/driver/nvidia/version", "/proc/version")
TORCH = (
    "import torch; has = torch.cuda.is_available(); "
    "print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), "
    "torch.cuda.device_count(), torch.cuda.get_device_properties(0) if has else None, "
    "torch.cuda.get_arch_list(), 'conv', torch.backends.cudnn.conv.fp32_precision, "
    "'matmul', torch.backends.cuda.matmul.fp32_precision)"
)
JAX = (
    "import jax; d = jax.devices(); "
    "print(jax.__version__, d, d[0].client.platform_version, d[0].memory_stats())"
)
IMPORT_S = 100


def versions(options: StepOptions) -> Findings:
    """Return versions, the GPU's name and state, and what the frameworks say of the device."""
    found: Findings = {"python": sys.version, "executable": sys.executable, "packages": {}}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["packages"][name] = importlib.metadata.version(name)
    found["cores"] = len(os.sched_getaffinity(0))
    found["gpus"] = [asdict(gpu) for gpu in gpus()]
    found["states"] = [asdict(now) for i in range(len(gpus())) if (now := state(i)) is not None]
    for path in FILES:
        with contextlib.suppress(OSError):
            found[path] = Path(path).read_text()[:300]
    for name, code in (("torch", TORCH), ("jax", JAX)):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_S,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, check=False,
        )  # fmt: skip
        said = done.stdout.strip() or done.stderr.strip()[-600:]
        found[f"import {name}"] = {"s": round(time.perf_counter() - began, 1), "said": said}
    return found
