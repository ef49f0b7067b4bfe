"""From the word of ``--device`` to the devices of the runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.catalog.backends import EXPORTER
from bench.errors import Unavailable, UserError, choose
from bench.spec.run import RunSpec
from bench.system.gpu import gpus, has_signs_of_a_gpu, hidden_reason
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import DevicesAnswer, DevicesTask

ANSWER_S = 300.0
"""Time limit of a worker's answer, in seconds. Importing a framework from a cold network disk, and
starting eight GPUs without the driver's persistence mode, takes minutes."""
UNSET = "unset CUDA_VISIBLE_DEVICES, or --device cpu to run on the processor."
DOCTOR = "`python run_bench.py doctor` shows more; --device cpu runs on the processor."


def resolve_devices(device: str, interpreters: Interpreters) -> tuple[list[str], str | None]:
    """Return the devices behind a name: 'auto' is the first GPU or else the CPU, 'all' every one.

    Where no GPU is listed but there are signs of one, a worker is asked what it sees.

    Returns:
        The devices; and a sentence for the user where a GPU is there that will not be used.

    Raises:
        UserError: There is no such device, or ``CUDA_VISIBLE_DEVICES`` names none by mistake.
    """
    cuda = [f"cuda:{i}" for i in range(len(gpus()))]
    remark: str | None = None
    if not cuda and device in ("auto", "all"):
        cuda, remark = _unlisted_gpus(interpreters)
    elif device != "cpu" and (hidden := hidden_reason()) is not None:
        remark = hidden[0]
    if device == "auto":
        return cuda[:1] or ["cpu"], remark
    if device == "all":
        return ["cpu", *cuda], remark
    if device == "cuda":
        device = "cuda:0"
    if not cuda and re.fullmatch(r"cuda:\d{1,3}", device):
        if hidden := hidden_reason():
            raise UserError(f"There is no {device} here: {hidden[0]}.", UNSET)
        if not has_signs_of_a_gpu():
            raise UserError(
                f"There is no {device} here: neither nvidia-smi nor /proc/driver/nvidia lists a "
                "GPU, and there are no device files of one.",
                DOCTOR,
            )
        return [device], None  # the frameworks are asked later
    choose("device", device, ["auto", "all", "cpu", *cuda])
    return [device], remark


def _unlisted_gpus(interpreters: Interpreters) -> tuple[list[str], str | None]:
    """Return the GPUs that a framework sees though none is listed, and a remark as above."""
    if hidden := hidden_reason():
        reason, is_mistake = hidden
        if is_mistake:
            raise UserError(f"{reason}.", UNSET)
        return [], f"{reason}: runs on the CPU"
    if not has_signs_of_a_gpu():
        return [], None
    seen = devices_seen(EXPORTER, interpreters)
    if isinstance(seen, str):
        return [], f"there are signs of a GPU, but {seen}: runs on the CPU; {DOCTOR}"
    if len(seen.devices) > 1:
        return [d for d in seen.devices if d != "cpu"], None
    why = f" ({seen.blind_because})" if seen.blind_because else ""
    return [], f"there are signs of a GPU, but {EXPORTER} sees none{why}: runs on the CPU; {DOCTOR}"


def devices_seen(backend: str, interpreters: Interpreters) -> DevicesAnswer | str:
    """Return the devices that a backend sees, or the reason why it does not start."""
    task, what = DevicesTask(), "listing devices"
    try:
        return ask(backend, task, interpreters, what, timeout_s=ANSWER_S)
    except (UserError, Unavailable) as error:
        return f"{backend} does not start ({error})"


def check_gpu_visible(device: str, specs: Iterable[RunSpec], interpreters: Interpreters) -> None:
    """Raise UserError if the user named a GPU that no backend of the runs sees.

    If only some backends see it, the runs of the others end as unavailable. The devices 'auto' and
    'all' name no GPU.
    """
    specs = list(specs)
    wanted = {spec.device for spec in specs if spec.device != "cpu"}
    if not device.startswith("cuda") or not wanted:
        return
    told = []
    for backend in dict.fromkeys(spec.backend for spec in specs):
        seen = devices_seen(backend, interpreters)
        if isinstance(seen, str):
            told.append(seen)
            continue
        if wanted <= set(seen.devices):
            return
        why = f" ({seen.blind_because})" if seen.blind_because else ""
        told.append(f"{backend} sees only {', '.join(seen.devices)}{why}")
    raise UserError(f"There is no {', '.join(sorted(wanted))} here: {'; '.join(told)}.", DOCTOR)
