"""Ask which software a backend runs at a place, and compare two such answers."""

from __future__ import annotations

from typing import Any

from bench.catalog.backends import BACKENDS, backend_entry
from bench.errors import UserError
from bench.speed.launch import WAIT_TIMEOUT_S, Place, ignore, start_worker
from bench.workers.process import fresh_log
from bench.workers.tasks import Software, SoftwareTask

MUST_AGREE = ("processor", "device_model", "gpu_uuid", "system")
"""Fields of ``Software`` without which times of two sessions are about two machines. Cards of one
model differ by 8 % on average, and by 22 % at worst (Sinha et al., "Not All GPUs Are Created
Equal", SC 2022), hence the identity of the card."""
SUSPECTS = ("python", "driver", "kernel", "container", "code", "device_settings")
"""Fields of ``Software`` that may differ and may be the cause, besides distributions."""


def software_of(backend: str, place: Place) -> Software:
    """Ask a fresh process at a place what it runs.

    Raises:
        UserError: The interpreter cannot run Thawbench, or lacks a package of the backend.
    """
    python = place.interpreters.of(backend)
    log = fresh_log(place.cache, f"software-{backend}")
    try:
        worker = start_worker(backend, place, log, "")
    except OSError as error:
        raise UserError(f"The interpreter '{python}' cannot be started: {error}.") from error
    try:
        told = worker.do(SoftwareTask(device=place.device), log, ignore, WAIT_TIMEOUT_S)
    finally:
        worker.end()
    if told.answer is None:
        raise UserError(
            f"The interpreter '{python}' with the code in '{place.site.root}' cannot time "
            f"{backend}: {told.message}",
            f"Install Thawbench's packages there: {python} -m pip install {place.site.root}",
        )
    return told.answer


def lacking(backend: str, software: Software) -> list[str]:
    """Return the distributions that a backend needs and that are not installed."""
    entry = backend_entry(backend)
    return [name for name in entry.packages if name not in software.distributions]


def software_differences(before: Software, now: Software) -> dict[str, list[Any]]:
    """Return what differs in software and device, field → both values: distributions come last,
    by name, those of frameworks before others."""
    found: dict[str, list[Any]] = {}
    for field in (*MUST_AGREE, *SUSPECTS):
        pair = [getattr(before, field), getattr(now, field)]
        if pair[0] != pair[1]:
            found[field] = pair
    frameworks = {name for entry in BACKENDS.values() for name in entry.packages}
    every = {*before.distributions, *now.distributions}
    for name in sorted(every, key=lambda name: (name not in frameworks, name)):
        pair = [before.distributions.get(name), now.distributions.get(name)]
        if pair[0] != pair[1]:
            found[name] = pair
    return found
