"""What can change a number without the spec changing, read without importing a framework."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.catalog.backends import BACKENDS
from bench.errors import UserError
from bench.spec.run import Environment
from bench.system import VERSION, cores, gpus, package_version, processor, project_root

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "TF_DETERMINISTIC_OPS",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUBLAS_WORKSPACE_CONFIG",
    "KMP_AFFINITY",
    "LD_PRELOAD",
    "ONEDNN_MAX_CPU_ISA",
    "TF_CUDNN_USE_AUTOTUNE",
    "NPROC",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_DYNAMIC",
    "TORCHINDUCTOR_FREEZING",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
)
"""Environment variables that frameworks read."""
ALWAYS = ("numpy", "pillow")
NO_DEVICE = "absent"
"""The model of a GPU that the driver does not show."""
DECIDING = (
    "accounting.py",
    "backend.py",
    "blueprint.py",
    "features.py",
    "figures.py",
    "fit.py",
    "fold.py",
    "forms.py",
    "head.py",
    "loop.py",
    "measure.py",
    "phases.py",
    "plan.py",
    "prefix.py",
    "schedule.py",
    "scores.py",
    "streams.py",
    "sweep.py",
    "tuning.py",
    "utilisation.py",
    "catalog/backends.py",
    "data/augment.py",
    "data/batches.py",
)
"""Files of ``bench`` that, with all of ``backends``, decide what a run computes and measures."""


def environment_here(backend: str, device: str) -> Environment:
    """The environment that a worker of this interpreter would run in."""
    entry = BACKENDS[backend]
    names = (*entry.packages, *entry.also, *ALWAYS)
    versions = {n: v for n in names if (v := package_version(n)) is not None}
    here = gpus()
    number = int(device.removeprefix("cuda:")) if device.startswith("cuda:") else None
    known = number is not None and number < len(here)
    model = here[number].name if known and number is not None else processor()
    return Environment(
        backend=backend,
        python=platform.python_version(),
        packages=versions,
        thawbench=f"{VERSION}+{code_digest()}",
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        device=device,
        device_model=model if number is None or known else NO_DEVICE,
        driver=here[number].driver if known and number is not None else None,
        variables={v: os.environ[v] for v in VARIABLES if v in os.environ},
    )


@functools.cache
def code_digest() -> str:
    """12 hex digits over the sources that decide numbers, so that code that changed is another
    environment: rows of before and after never stand for one another."""
    root = project_root()
    files = [*sorted((root / "backends").rglob("*.py")), *(root / "bench" / f for f in DECIDING)]
    return digest_of(files)


def digest_of(files: Iterable[Path]) -> str:
    """12 hex digits over the names and bytes of source files of this project."""
    root = project_root()
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def environment_of(backend: str, device: str, python: Path) -> Environment:
    """The environment of workers under the interpreter ``python``.

    Raises:
        UserError: That interpreter cannot run Thawbench.
    """
    if python == Path(sys.executable):
        return environment_here(backend, device)
    code = (
        "import sys; from bench.workers.environment import environment_here; "
        "print(environment_here(sys.argv[1], sys.argv[2]).model_dump_json())"
    )
    variables = {**os.environ, "PYTHONPATH": str(project_root())}
    command = [str(python), "-P", "-c", code, backend, device]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=variables, check=True
        )
        return Environment.model_validate(json.loads(answer.stdout))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [str(error)])[-1]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = str(error)
    raise UserError(
        f"The interpreter '{python}' for {backend} cannot run Thawbench: {reason}",
        f"Install Thawbench there: {python} -m pip install .",
    )
