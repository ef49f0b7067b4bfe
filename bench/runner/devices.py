"""A GPU that was asked for by name: whether any framework sees it, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import Unavailable, UserError
from bench.runner.planner import PlannedRun
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import DevicesTask

PATIENCE_S = 120.0
NAMED = "cuda"
"""How a GPU's name begins."""


def check_seen(device: str, runs: Sequence[PlannedRun], interpreters: Interpreters) -> None:
    """Make sure that some backend sees the GPU that a user named; those that do not become rows
    that say so, as everywhere.

    Args:
        device: As it was given; 'auto' and 'all' name none.
        runs: That are to be done.
        interpreters: Which Python runs which backend.

    Raises:
        UserError: None of them does.
    """
    wanted = {r.spec.device for r in runs if r.unavailable is None and r.spec.device != "cpu"}
    if not device.startswith(NAMED) or not wanted:
        return
    backends = list(dict.fromkeys(r.spec.backend for r in runs if r.unavailable is None))
    seen: list[str] = []
    for backend in backends:
        found = _devices(backend, interpreters)
        if not isinstance(found, str) and wanted <= set(found):
            return
        words = found if isinstance(found, str) else f"sees only {', '.join(found)}"
        seen.append(f"{backend} {words}")
    raise UserError(
        f"There is no {', '.join(sorted(wanted))} here: {'; '.join(seen)}.",
        "`python run_bench.py doctor` tells more; --device cpu runs on the processor.",
    )


def _devices(backend: str, interpreters: Interpreters) -> tuple[str, ...] | str:
    """Return the devices that a backend's framework sees, or why it does not answer."""
    try:
        answer = ask(backend, DevicesTask(), interpreters, "listing devices", timeout_s=PATIENCE_S)
    except (UserError, Unavailable) as error:
        return f"does not start ({error})"
    return answer.devices
