"""``doctor``: check this machine, and name the command that mends what does not work."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.cli.list import has_weights
from bench.cli.options import DoctorOptions, interpreters
from bench.cli.output import show
from bench.cli.run import BUSY_SHARE
from bench.data import dataset_kinds
from bench.errors import Unavailable, UserError, WorkerFailed
from bench.runner.devices import ANSWER_S
from bench.speed.selfcheck import judge, summary
from bench.storage.cache import cache_root
from bench.storage.text_files import json_text
from bench.system import VERSION, cores, machine_bytes, other_work, processor
from bench.system.gpu import gpus, has_gpu, has_signs_of_a_gpu, hidden_reason, occupied
from bench.workers.process import Interpreters, ask, install_command, worker_environment
from bench.workers.tasks import Answer, DevicesTask, SelfCheckTask, Task

HEALTHY = "The default suite can run; what is marked 'optional' is not needed for it."
ILL = "The default suite needs what is marked FAIL; what is marked 'optional' is not needed for it."


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    what: str
    """Name of the thing that was checked."""
    ok: bool
    needed: bool
    """True if the default suite needs it."""
    detail: str
    """Versions, sizes, or the reason why it does not work."""
    mend: str | None = None
    """Command that makes it work."""


def doctor_command(options: DoctorOptions) -> bool:
    """Print all findings; return True if the default suite can run."""
    found = []
    for finding in findings(interpreters(options.python)):
        found.append(finding)
        if options.as_json:
            continue
        is_optional = not finding.ok and not finding.needed
        mark = "optional" if is_optional else "ok" if finding.ok else "FAIL"
        show(f"{mark:8} {finding.what}: {finding.detail}")
        if finding.mend:
            remedy = "to have it" if is_optional else "mend"
            show(f"           {remedy}: {finding.mend}")
    healthy = all(f.ok for f in found if f.needed)
    if options.as_json:
        show(json_text({"healthy": healthy, "findings": [asdict(f) for f in found]}))
    else:
        show(HEALTHY if healthy else ILL)
    return healthy


def findings(python: Interpreters) -> Iterator[Finding]:
    """Check machine, devices, frameworks, weights and data, in that order."""
    yield from _machine()
    for backend in BACKENDS:
        yield from _backend(backend, python)
    yield from _weights()
    for kind in dataset_kinds():
        what, is_here, needs = f"data {kind['name']}", kind["available"], kind["needs"]
        detail = kind["description"] if is_here else kind["reason"]
        mend = None if is_here else f"pip install {needs.replace(',', '')}"
        yield Finding(what, bool(is_here), bool(needs), detail, mend)


def _machine() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info < (3, 14)
    detail = f"{sys.version.split()[0]}, Thawbench {VERSION}"
    yield Finding("python", good, True, detail, None if good else "make PYTHON=python3.11 bench")
    detail = f"{processor()}, {cores()} cores, {machine_bytes() / 1e9:.0f} GB of memory"
    yield Finding("processor", True, True, detail)
    if (work := other_work()) is not None:
        is_idle = work.others <= BUSY_SHARE
        detail = f"other processes use {work.others:.0%} of the cores"
        mend = None if is_idle else "end them before you measure; their names: top"
        yield Finding("processor is idle", is_idle, False, detail, mend)
    yield from _gpus()
    yield _cache()


def _gpus() -> Iterator[Finding]:
    """Check the GPUs that the driver tells of: their names, and who else uses them."""
    for index, gpu in enumerate(gpus()):
        memory = f"{gpu.memory_bytes / 1e9:.0f} GB" if gpu.memory_bytes else "memory not told"
        settings = "".join(f", {name} {value}" for name, value in gpu.settings.items())
        detail = f"{gpu.name}, {memory}, driver {gpu.driver}{settings}"
        yield Finding(f"gpu cuda:{index}", True, False, detail)
        if problem := occupied(index):
            end = "nvidia-smi shows the processes; end them before you measure"
            yield Finding(f"gpu cuda:{index} is free", False, False, problem, end)
    hidden = hidden_reason()
    if hidden is not None:
        reason, is_mistake = hidden
        mend = "unset CUDA_VISIBLE_DEVICES" if is_mistake else None
        yield Finding("CUDA_VISIBLE_DEVICES", not is_mistake, False, reason, mend)
    elif not gpus():
        detail = "neither nvidia-smi nor /proc/driver/nvidia lists one; "
        if has_signs_of_a_gpu():
            detail += "but there are its device files; the backends below say if they see it"
        else:
            detail += "everything runs on the CPU"
        yield Finding("gpu", False, False, detail)


def _cache() -> Finding:
    mend = "export THAWBENCH_CACHE=/a/folder/you/can/write"
    try:
        folder = cache_root()
    except UserError as error:
        return Finding("cache", False, True, error.message, mend)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").write_text("")
        (folder / ".probe").unlink()
    except OSError as error:
        return Finding("cache", False, True, f"{folder}: {error.strerror}", mend)
    detail = f"{folder}, {shutil.disk_usage(folder).free / 1e9:.0f} GB free on its disk"
    return Finding("cache", True, True, detail)


def _backend(backend: str, python: Interpreters) -> Iterator[Finding]:
    needed = backend in DEFAULT_BACKENDS
    packages = BACKENDS[backend].packages
    install = install_command(backend, python)
    try:
        environment = worker_environment(backend, "cpu", python)
    except UserError as error:
        yield Finding(backend, False, needed, error.message, error.hint)
        return
    except WorkerFailed as error:
        yield Finding(backend, False, needed, str(error), install)
        return
    versions = ", ".join(f"{p} {environment.packages.get(p, 'missing')}" for p in packages)
    if any(p not in environment.packages for p in packages):
        yield Finding(backend, False, needed, versions, install)
        return
    answer = _answer_or_reason(backend, DevicesTask(), python)
    if isinstance(answer, str):
        yield Finding(backend, False, needed, f"{versions}; does not start: {answer}", install)
        return
    seen = f"{versions}; sees {', '.join(answer.devices)}"
    blind = has_gpu() and len(answer.devices) == 1
    if blind and answer.blind_because:
        seen = f"{seen}: {answer.blind_because}"
    yield Finding(backend, not blind, needed, seen, install if blind else None)
    for device in answer.devices:
        check = _answer_or_reason(backend, SelfCheckTask(device=device), python)
        problems = [f"self-check failed: {check}"] if isinstance(check, str) else judge(check)
        detail = "; ".join(problems) if isinstance(check, str) or problems else summary(check)
        yield Finding(f"{backend} on {device}", not problems, needed, detail)


def _answer_or_reason(backend: str, task: Task[Answer], python: Interpreters) -> Answer | str:
    """Return a worker's answer, or the reason why it gave none."""
    try:
        # Logs are of no use later, and a cache that is broken is a finding of its own.
        with tempfile.TemporaryDirectory(prefix="thawbench-") as logs:
            what = f"doctor of {backend}"
            return ask(backend, task, python, what, Path(logs), timeout_s=ANSWER_S)
    except (UserError, Unavailable, OSError) as error:
        return str(error)


def _weights() -> Iterator[Finding]:
    for name, entry in BACKBONES.items():
        what, source = f"weights {name}", entry.sources[0]
        if has_weights(name):
            yield Finding(what, True, False, f"here ({source.licence})")
            continue
        is_packaged = source.kind == "package"
        by_hand = f"--weights {name}=PATH with {Path(source.location).name}"
        mend = f"downloaded by the first run if the network allows; or {by_hand}"
        if is_packaged:
            mend = f"pip install {source.distribution}"
        yield Finding(what, False, is_packaged, "not on this machine", mend)
