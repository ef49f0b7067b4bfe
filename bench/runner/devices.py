"""Check, before anything runs, that a framework sees the GPU that the user named."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import Unavailable, UserError
from bench.runner.planner import PlannedRun
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import DevicesTask

TIMEOUT_S = 120.0
"""Time limit of a worker's answer."""


def check_gpu_visible(device: str, runs: Sequence[PlannedRun], interpreters: Interpreters) -> None:
    """Raise UserError if the user named a GPU that no backend of the runs sees.

    If only some backends see it, the runs of the others end as unavailable. The devices 'auto' and
    'all' name no GPU.
    """
    specs = [run.spec for run in runs if run.unavailable is None]
    wanted = {spec.device for spec in specs if spec.device != "cpu"}
    if not device.startswith("cuda") or not wanted:
        return
    seen = []
    for backend in dict.fromkeys(spec.backend for spec in specs):
        try:
            task, what = DevicesTask(), "listing devices"
            devices = ask(backend, task, interpreters, what, timeout_s=TIMEOUT_S).devices
        except (UserError, Unavailable) as error:
            seen.append(f"{backend} does not start ({error})")
            continue
        if wanted <= set(devices):
            return
        seen.append(f"{backend} sees only {', '.join(devices)}")
    raise UserError(
        f"There is no {', '.join(sorted(wanted))} here: {'; '.join(seen)}.",
        "`python run_bench.py doctor` shows more; --device cpu runs on the processor.",
    )
