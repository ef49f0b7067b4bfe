"""Describe a worker process: its software, and the circumstances that can change its speed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from bench.storage.code_digest import digest_of_rooms, shared_digest
from bench.system import CGROUP, machine_bytes, processor
from bench.system.gpu import gpus
from bench.workers.environment import NO_DEVICE, device_settings, relevant_variables
from bench.workers.tasks import LaunchConditions, Software

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CONTAINER_SIGNS = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
IMAGE_VARIABLES = ("NVIDIA_PRODUCT_NAME", "NVIDIA_PYTORCH_VERSION", "NVIDIA_TENSORFLOW_VERSION",
                   "container", "KUBERNETES_SERVICE_HOST", "SINGULARITY_NAME")  # fmt: skip
"""Variables by which images and managers of containers make themselves known."""
ALLOCATOR_PREFIXES = ("MALLOC_", "GLIBC_TUNABLES", "LD_", "JEMALLOC", "TCMALLOC", "MIMALLOC_")


def conditions_here() -> LaunchConditions:
    """Describe the circumstances of this process."""
    allocator = {n: v for n, v in sorted(os.environ.items()) if n.startswith(ALLOCATOR_PREFIXES)}
    return LaunchConditions(
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        cpu_quota=_cpu_quota(),
        memory_bytes=machine_bytes(),
        huge_pages=_huge_pages(),
        allocator=allocator,
        variables=relevant_variables(),
    )


def software_here(device: str) -> Software:
    """Describe what this process runs, without importing a framework."""
    distributions = _distributions()
    gpu = None if device == "cpu" else dict(enumerate(gpus())).get(int(device.split(":")[1]))
    return Software(
        python=platform.python_version(),
        distributions=distributions,
        code=f"{shared_digest()}.{digest_of_rooms('benchmark')}",
        system=f"{platform.system()} {platform.machine()}",
        kernel=platform.release(),
        container=_container(),
        processor=processor(),
        device_model=processor() if device == "cpu" else gpu.name if gpu else NO_DEVICE,
        gpu_uuid=gpu.uuid if gpu else None,
        driver=gpu.driver if gpu else None,
        device_settings={} if device == "cpu" else device_settings(gpu, distributions),
    )


def _distributions() -> dict[str, str]:
    """Return the version of every installed distribution by its normalised name (PEP 503)."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a broken installation has none
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def _huge_pages() -> str | None:
    """Return the word in brackets of 'always [madvise] never'."""
    with suppress(OSError, IndexError):
        return HUGE_PAGES.read_text().split("[")[1].split("]")[0]
    return None


def _cpu_quota() -> float | None:
    """Return the cores that the container may use (docs.kernel.org, "Control Group v2", cpu.max;
    for version 1 "CFS Bandwidth Control")."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us = int((CGROUP / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((CGROUP / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    return None


def _container() -> str | None:
    found = [name for sign, name in CONTAINER_SIGNS.items() if Path(sign).exists()]
    found += [f"{n}={os.environ[n]}" for n in IMAGE_VARIABLES if n in os.environ]
    return ", ".join(found) or None
