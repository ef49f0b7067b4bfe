"""Check, before anything runs, that a framework sees the GPU that the user named."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import Unavailable, UserError
from bench.runner.planner import PlannedRun
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import DevicesTask

TIMEOUT_S = 120.0
"""Time limit of a worker's answer, in seconds."""


def check_gpu_visible(device: str, runs: Sequence[PlannedRun], interpreters: Interpreters) -> None:
    """Raise UserError if the user named a GPU that no backend of the runs sees.

    If only some backends see it, the runs of the others end as unavailable.

    Args:
        device: Device as given; 'auto' and 'all' name no GPU.
        runs: Runs to do.
        interpreters: Python interpreter of each backend.
    """
    wanted = {r.spec.device for r in runs if r.unavailable is None and r.spec.device != "cpu"}
    if not device.startswith("cuda") or not wanted:
        return
    backends = list(dict.fromkeys(r.spec.backend for r in runs if r.unavailable is None))
    seen: list[str] = []
    for backend in backends:
        found = _devices(backend, interpreters)
        if not isinstance(found, str) and wanted <= set(found):
            return
        text = found if isinstance(found, str) else f"sees only {', '.join(found)}"
        seen.append(f"{backend} {text}")
    raise UserError(
        f"There is no {', '.join(sorted(wanted))} here: {'; '.join(seen)}.",
        "`python run_bench.py doctor` shows more; --device cpu runs on the processor.",
    )


def _devices(backend: str, interpreters: Interpreters) -> tuple[str, ...] | str:
    """Return the devices that a backend's framework sees, or the reason why it does not answer."""
    try:
        answer = ask(backend, DevicesTask(), interpreters, "listing devices", timeout_s=TIMEOUT_S)
    except (UserError, Unavailable) as error:
        return f"does not start ({error})"
    return answer.devices
