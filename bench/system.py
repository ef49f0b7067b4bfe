"""Facts about this installation and this machine: version, cores, memory, GPUs, processes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.1.0"
"""Version of Thawbench; the distribution takes it from here."""


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


def project_root() -> Path:
    """The folder that holds the packages ``bench`` and ``backends``."""
    return Path(__file__).resolve().parent.parent
