"""Facts about this installation and this machine: version, cores, memory, GPUs, processes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.1.0"
"""Version of Thawbench; pyproject.toml reads it from here."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi reports it."""

    name: str
    driver: str
    memory_bytes: int | None
    """Memory of the device; None if it shares the machine's memory."""


CGROUP = Path("/sys/fs/cgroup")
CONTAINER_LIMITS = (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes")
"""Files that hold the memory limit of the container, in bytes (docs.kernel.org, "Control Group v2"
and "Memory Resource Controller")."""


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use; none if nvidia-smi is missing or fails."""
    query = "--query-gpu=name,driver_version,memory.total,uuid"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
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
    # This query does not list slices of a GPU (MIG); only `nvidia-smi -L` does.
    mig_slice = Gpu("MIG slice", rows[0][1], None)
    return tuple(known.get(uuid, mig_slice) for uuid in visible(list(known)))


def visible(uuids: list[str]) -> list[str]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    It holds indices or beginnings of UUIDs, and the first that names no device ends the list
    (docs.nvidia.com, CUDA Programming Guide, "CUDA Environment Variables").
    """
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return uuids
    left: list[str] = []
    for item in (part.strip() for part in wanted.split(",")):
        if item.isdigit() and int(item) < len(uuids):
            named = [uuids[int(item)]]
        elif item.startswith("MIG-"):
            named = [item]
        else:
            named = [uuid for uuid in uuids if item and uuid.startswith(item)]
        if len(named) != 1:
            break
        left += named
    return left


@functools.cache
def processor() -> str:
    """Return the model name of the CPU."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_alive(pid: str) -> bool:
    """Return True if a process with this id exists on this machine."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def machine_bytes() -> int:
    """Return the memory of the machine, or of this process's container if that has less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such controller, or 'max'
            limits.append(int(path.read_text()))
    return min(limits)


def package_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def project_root() -> Path:
    """Return the folder that holds the packages ``bench`` and ``backends``."""
    return Path(__file__).resolve().parent.parent
