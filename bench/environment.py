"""What can change a number without the spec changing, read without importing a framework."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import __version__
from bench.catalog.backends import BACKENDS
from bench.errors import UserError
from bench.spec import Environment

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


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi tells of it."""

    name: str
    """Model."""
    driver: str
    """Driver version."""
    memory_bytes: int | None
    """Of the device; None where it shares the machine's."""


CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The machine's GPUs; none where nvidia-smi is missing or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,driver_version,memory.total,uuid"
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.split(", ") for line in answer.stdout.splitlines() if line.count(", ") == 3]
    known = {
        uuid: Gpu(name, driver, int(mib) * 2**20 if mib.isdigit() else None)
        for name, driver, mib, uuid in rows
    }
    if not known:
        return ()
    # A slice of a GPU (MIG) is listed under its GPU's name only with `nvidia-smi -L`.
    slices = Gpu("MIG slice", rows[0][1], None)
    return tuple(known.get(uuid, slices) for uuid in visible(list(known)))


def visible(uuids: list[str]) -> list[str]:
    """Of the machine's GPUs, those that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    Source: docs.nvidia.com, CUDA Programming Guide, "CUDA Environment Variables": indices or
    beginnings of UUIDs; the first that names no device ends the list.
    """
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return uuids
    left = []
    for item in (part.strip() for part in wanted.split(",")):
        if item.isdigit() and int(item) < len(uuids):
            left.append(uuids[int(item)])
            continue
        if item.startswith("MIG-"):
            left.append(item)
            continue
        named = [uuid for uuid in uuids if item and uuid.startswith(item)]
        if len(named) != 1:
            break
        left.append(named[0])
    return left


@functools.cache
def processor() -> str:
    """CPU model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_alive(pid: str) -> bool:
    """Whether a process of this machine has the number."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def machine_bytes() -> int:
    """Memory of the machine, or of the container that this process is in (docs.kernel.org, "Control
    Group v2" and "Memory Resource Controller")."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such controller, or 'max'
            continue
    return min(limits)


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution, None if it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


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
        thawbench=f"{__version__}+{code_digest()}",
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


def project_root() -> Path:
    """The folder that holds the packages ``bench`` and ``backends``."""
    return Path(__file__).resolve().parent.parent


def environment_of(backend: str, device: str, python: Path) -> Environment:
    """The environment of workers under the interpreter ``python``.

    Raises:
        UserError: That interpreter cannot run Thawbench.
    """
    if python == Path(sys.executable):
        return environment_here(backend, device)
    code = (
        "import sys; from bench.environment import environment_here; "
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
