"""The NVIDIA GPUs of this machine, and their state, without any framework.

Sources: ``nvidia-smi --help-query-gpu``; NVIDIA driver README, "The /proc/driver/nvidia Interface";
docs.nvidia.com, CUDA Programming Guide, "CUDA Environment Variables", and "Multi-Instance GPU".
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 60.0
"""Time for an answer of nvidia-smi. Without its persistence mode the driver starts each GPU anew,
which takes 20 seconds and more on a machine with eight."""
DRIVER = Path("/proc/driver/nvidia")
"""Folder in which the driver tells its version and its GPUs."""
DEVICE_FILES = Path("/dev")
SIGNS = ("nvidia[0-9]*", "nvidiactl", "nvidia-caps", "dxg")
"""Names in ``DEVICE_FILES`` of the devices that a container with a GPU has ('dxg': WSL)."""
MISSING = ("", "[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[Insufficient Permissions]")
SETTINGS = {"power.limit": "power_limit_w", "ecc.mode.current": "ecc", "mig.mode.current": "mig"}
"""Query of nvidia-smi → name of a setting that changes speed or memory."""
STATE = {
    "clocks.sm": "sm_clock_mhz", "clocks.mem": "memory_clock_mhz", "power.draw": "power_w",
    "temperature.gpu": "temperature_c", "utilization.gpu": "utilisation_percent",
    "memory.used": "memory_used_mib", "memory.total": "memory_total_mib",
}  # fmt: skip
"""Query of nvidia-smi → name of a figure of ``GpuState``."""
IDLE_MIB = 1024
"""Memory that the driver of an idle GPU may hold, in MiB."""
FULL_SHARE = 1 / 8
"""A GPU with less than this share of its memory free counts as full."""
THROTTLE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""Query for the reasons why clocks are lower than they could be: of new drivers, of older ones."""
THROTTLE_BITS = {
    0x4: "power cap", 0x8: "hardware slowdown", 0x10: "synchronised boost",
    0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake",
    0x100: "display clocks",
}  # fmt: skip
"""Bit → reason (docs.nvidia.com, NVML API, nvmlClocksEventReasons); an idle GPU and clocks that an
application has set are no throttling."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver reports it."""

    name: str
    driver: str
    memory_bytes: int | None
    """Memory of the device; None if it shares the machine's memory, or is not known."""
    uuid: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    """Settings that change speed or memory, by the names of ``SETTINGS``."""


@dataclass(frozen=True)
class GpuState:
    """The state of a GPU at a moment. None: the driver does not tell."""

    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    utilisation_percent: float | None = None
    memory_used_mib: float | None = None
    memory_total_mib: float | None = None
    throttled_by: tuple[str, ...] = ()
    """Reasons why the clocks were lower than they could be."""
    other_processes: int | None = None
    """Processes that computed on the GPU, without those of ``ours``."""


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, in the order of cuda:0, cuda:1 …

    Where nvidia-smi is missing or fails, as in containers without the driver's tools, the files of
    the driver are read instead.
    """
    by_uuid = {gpu.uuid: gpu for gpu in installed()}
    if not by_uuid:
        return ()
    found = []
    for uuid in visible(list(by_uuid)):
        gpu = by_uuid.get(uuid)
        is_sliced = gpu is None or gpu.settings.get("mig") == "Enabled"
        found.append(_mig_slice(uuid) if is_sliced else by_uuid[uuid])
    return tuple(found)


@functools.cache
def installed() -> tuple[Gpu, ...]:
    """Return all GPUs of the machine, whatever ``CUDA_VISIBLE_DEVICES`` says."""
    return _from_nvidia_smi() or _from_driver_files()


def _mig_slice(uuid: str) -> Gpu:
    """Return the slice of a GPU (MIG) with this UUID, or the first slice of the GPU with this UUID,
    which is what CUDA takes. Its profile, such as 1g.10gb, only ``nvidia-smi -L`` tells."""
    parents = {gpu.uuid: gpu for gpu in installed()}
    parent, profile = next(iter(parents.values())), "of unknown size"
    for owner, name, own in _mig_slices():
        if owner in parents and (uuid == owner or own.startswith(uuid)):
            parent, profile = parents[owner], name
            break
    else:
        parent = parents.get(uuid, parent)
    settings = dict(parent.settings)
    return Gpu(f"MIG slice {profile} of {parent.name}", parent.driver, None, uuid, settings)


def _mig_slices() -> list[tuple[str, str, str]]:
    """Return (UUID of the GPU, profile, own UUID) of every slice, in the order of nvidia-smi."""
    found, owner = [], ""
    for line in _answer(["-L"], ()) or []:
        if gpu := re.match(r"GPU \d+: .*\(UUID: ([^)]+)\)", line):
            owner = gpu[1]
        elif part := re.match(r"MIG (\S+)\s+Device\s+\d+: \(UUID: ([^)]+)\)", line):
            found.append((owner, part[1], part[2]))
    return found


def _from_nvidia_smi() -> tuple[Gpu, ...]:
    rows = _query(["name", "driver_version", "memory.total", "uuid", *SETTINGS])
    return tuple(
        Gpu(
            row["name"], row["driver_version"],
            int(row["memory.total"]) * 2**20 if row["memory.total"].isdigit() else None,
            row["uuid"],
            {name: row[key] for key, name in SETTINGS.items() if row[key] not in MISSING},
        )
        for row in rows
    )  # fmt: skip


def _from_driver_files() -> tuple[Gpu, ...]:
    """Read ``/proc/driver/nvidia``, whose folders are named by PCI address, the order of cuda:N."""
    try:
        version = (DRIVER / "version").read_text()
        folders = sorted((DRIVER / "gpus").iterdir())
        texts = [(folder / "information").read_text() for folder in folders]
    except OSError:
        return ()
    number = re.search(r"\b(\d{3,}\.\d+(\.\d+)?)\b", version)
    found = []
    for index, text in enumerate(texts):
        pairs = (line.partition(":")[::2] for line in text.splitlines())
        told = {key.strip(): value.strip() for key, value in pairs}
        uuid = told.get("GPU UUID", "") or f"GPU-{index}"
        driver = number[1] if number else "unknown"
        found.append(Gpu(told.get("Model", "unknown"), driver, None, uuid))
    return tuple(found)


def occupied(index: int) -> str | None:
    """Return what disturbs a measurement on cuda:``index`` now, None if nothing does or nothing is
    known."""
    now = state(index)
    if now is None:
        return None
    found = []
    if now.other_processes:
        number = now.other_processes
        found.append("another process computes on it" if number == 1 else
                     f"{number} other processes compute on it")  # fmt: skip
    if now.memory_used_mib is not None and now.memory_used_mib > IDLE_MIB:
        found.append(f"{now.memory_used_mib / 1024:.1f} GiB of its memory are in use")
    if now.throttled_by:
        found.append(f"its clocks are held down: {', '.join(now.throttled_by)}")
    return "; ".join(found) or None


def has_signs_of_a_gpu() -> bool:
    """Return True if there are device files of an NVIDIA GPU: a framework may see one that neither
    nvidia-smi nor the driver's files tell of."""
    return any(next(DEVICE_FILES.glob(sign), None) is not None for sign in SIGNS)


def has_gpu() -> bool:
    """Return True if this process may use a GPU, as far as can be told without a framework."""
    return bool(gpus()) or (not installed() and has_signs_of_a_gpu())


def visible(uuids: list[str]) -> list[str]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    It holds indices or beginnings of UUIDs, and the first that names no device ends the list.
    """
    return _visible(uuids)[0]


def hidden_reason() -> tuple[str, bool] | None:
    """Return why GPUs of this machine are hidden from this process, and True if a mistake hides
    them; None if none is hidden."""
    uuids = [gpu.uuid for gpu in installed()]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or not uuids:
        return None
    left, wrong = _visible(uuids)
    if wrong is None:
        return None if left else (f"CUDA_VISIBLE_DEVICES='{wanted}' hides every GPU", False)
    number = "one GPU" if len(uuids) == 1 else f"{len(uuids)} GPUs"
    return (
        f"CUDA_VISIBLE_DEVICES='{wanted}' names '{wrong}', but this machine has {number} "
        f"(0{f' to {len(uuids) - 1}' if len(uuids) > 1 else ''}); it hides what follows"
    ), True


def _visible(uuids: list[str]) -> tuple[list[str], str | None]:
    """Return the devices that ``CUDA_VISIBLE_DEVICES`` leaves, and the word in it that names none;
    '' and '-1' hide all on purpose."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return uuids, None
    left: list[str] = []
    for item in (part.strip() for part in wanted.split(",")):
        if item.isdigit() and int(item) < len(uuids):
            named = [uuids[int(item)]]
        elif item.startswith("MIG-"):
            named = [item]
        else:
            named = [uuid for uuid in uuids if item and uuid.startswith(item)]
        if len(named) != 1:
            return left, None if item in ("", "-1") else item
        left += named
    return left, None


def state(index: int, ours: Sequence[int] = ()) -> GpuState | None:
    """Return the state of cuda:``index`` now; None if nvidia-smi does not answer.

    Args:
        ours: Ids of processes that are not other ones.
    """
    if index >= len(gpus()):
        return None
    chosen = ["-i", gpus()[index].uuid]
    for reasons in THROTTLE:
        rows = _query([*STATE, reasons], chosen)
        if rows:
            break
    else:
        return None
    row = rows[0]
    figures = {name: _number(row[key]) for key, name in STATE.items()}
    bits = row[reasons]
    active = int(bits, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", bits) else 0
    throttled_by = tuple(word for bit, word in THROTTLE_BITS.items() if active & bit)
    return GpuState(**figures, throttled_by=throttled_by, other_processes=_others(chosen, ours))


def _others(chosen: list[str], ours: Sequence[int]) -> int | None:
    lines = _answer(["--query-compute-apps=pid", *chosen])
    if lines is None:
        return None
    return count_others([int(line) for line in lines if line.isdigit()], ours)


def count_others(found: Sequence[int], ours: Sequence[int]) -> int:
    """Return how many of the processes on a GPU are not ours. In a container the driver may give
    the ids that processes have outside of it: where it knows none of ours, as many are taken for
    ours as there may be."""
    others = [pid for pid in found if pid not in ours]
    unknown = len(ours) if len(others) == len(found) else 0
    return max(len(others) - unknown, 0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _query(fields: Sequence[str], options: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return a dictionary for each GPU; none if nvidia-smi is missing, fails, or does not know one
    of the fields."""
    lines = _answer([f"--query-gpu={','.join(fields)}", *options]) or []
    rows = [line.split(", ") for line in lines]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


FORMAT = ("--format=csv,noheader,nounits",)


def _answer(options: Sequence[str], form: Sequence[str] = FORMAT) -> list[str] | None:
    command = ["nvidia-smi", *options, *form]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines()]
