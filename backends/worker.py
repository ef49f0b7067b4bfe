"""The only place where a framework enters a process: ``python -m backends.worker``.

The parent writes jobs to standard input, each a line of JSON, the next one when it has the answer
to the one before, and keeps the pipe open; this process ends when the pipe closes. Events go back
as lines of JSON on what was standard output; all else that is printed goes to standard error, which
is the job's log.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalog.backends import BACKENDS
from bench.errors import Unavailable, UserError
from bench.network.blueprint import Blueprint, Network
from bench.network.export import is_readable
from bench.network.freezing import plan_training
from bench.network.head import attach_head
from bench.parity.inputs import load_split, settle
from bench.parity.model import ProbeItem
from bench.parity.probe import probe
from bench.spec.backbone import BackboneEntry
from bench.spec.preprocessing import Preprocessing
from bench.spec.result import Failure
from bench.spec.run import Policy, Recipe, RunSpec
from bench.speed.selfcheck import measure
from bench.speed.timing import time_training
from bench.storage.atomic import build_folder
from bench.storage.cache import unwritable
from bench.training.adapter import Adapter
from bench.training.clocks import give_back, held_bytes
from bench.training.fit import FrozenChanged
from bench.training.job import Emit, Job, native_request, run_spec
from bench.training.memory import Peak, note_fresh
from bench.training.sweep import run_sweep
from bench.workers.process import STARTED_VARIABLE


def _seconds_since_start() -> float | None:
    """Return seconds since the parent started this process, None if it did not say when."""
    started = os.environ.get(STARTED_VARIABLE)
    return None if started is None else time.time() - float(started)


Task = Callable[[Job, Emit], dict[str, Any]]


def _is_warm() -> bool:
    """Whether this process has loaded its framework for another job."""
    return load_adapter.cache_info().currsize > 0


@functools.cache
def load_adapter(backend: str) -> Adapter:
    """Import a backend's adapter, and with it the framework.

    Raises:
        Unavailable: A package that it needs is not installed.
    """
    try:
        module = importlib.import_module(BACKENDS[backend].adapter)
        adapter: Adapter = module.adapter()
    except ImportError as error:
        needs = " ".join(BACKENDS[backend].packages)
        raise Unavailable(
            f"{backend} cannot start ({error}); install what it needs: pip install {needs}"
        ) from error
    # What a framework's modules hold stays: to look through it after each job took Keras on
    # TensorFlow three times 0.2 s a run.
    gc.collect()
    gc.freeze()
    note_fresh()
    return adapter


def models(job: Job, emit: Emit) -> dict[str, Any]:
    """Names of the networks that torchvision lists."""
    load_adapter(job["backend"])
    from backends.torch_adapter.export.describe import list_models

    return {"models": list_models()}


def describe(job: Job, emit: Emit) -> dict[str, Any]:
    """What is to be known of backbones without a catalogue entry."""
    load_adapter(job["backend"])
    from backends.torch_adapter.export.describe import describe as entry_of

    return {"entries": [entry_of(name).model_dump(mode="json") for name in job["backbones"]]}


def export(job: Job, emit: Emit) -> dict[str, Any]:
    """Export a backbone into ``folder`` as a Blueprint."""
    adapter = load_adapter(job["backend"])
    from backends.torch_adapter.export.export import export_backbone

    network = export_backbone(
        job["backbone"],
        BackboneEntry.model_validate(job["entry"]),
        job["px"],
        Preprocessing.model_validate(job["preprocessing"]),
        path=Path(job["path"]) if job["path"] else None,
        reader=job["reader"],
        seed=job["seed"],
    )
    if job["settled"]:
        network = settle(network, adapter)
    network.save(Path(job["folder"]))
    return {}


def architectures(job: Job, emit: Emit) -> dict[str, Any]:
    """Export backbones without tensors, each into a folder of its own."""
    load_adapter(job["backend"])
    from backends.torch_adapter.export.export import export_architecture

    for item in job["items"]:
        name = item["backbone"]
        entry = BackboneEntry.model_validate(item["entry"])
        blueprint = export_architecture(name, entry, item["px"])
        build_folder(Path(item["folder"]), blueprint.save, is_readable)
    return {}


def count(job: Job, emit: Emit) -> dict[str, Any]:
    """Build networks and count their parameters as the framework sees them."""
    adapter = load_adapter(job["backend"])
    recipe = Recipe.model_validate(job["recipe"])
    counts = {}
    for folder in job["blueprints"]:
        empty = Network.empty(Blueprint.load(Path(folder)))
        network = attach_head(empty, recipe.head, job["classes"], seed=0)
        plan = plan_training(network.blueprint, Policy.model_validate(job["policy"]))
        sized = recipe.model_copy(update={"px": network.blueprint.px})
        counts[folder] = vars(adapter.build(network, plan, sized, job["device"]).counts())
        emit({"event": "counted", "blueprint": folder})
    return {"counts": counts}


def logits(job: Job, emit: Emit) -> dict[str, Any]:
    """Logits of networks with their own classifiers, in inference form, into ``.npy`` files."""
    adapter = load_adapter(job["backend"])
    recipe = Recipe.model_validate(job["recipe"])
    policy = Policy.model_validate(job["policy"])
    for item in job["items"]:
        network = Network.load(Path(item["blueprint"]))
        sized = recipe.model_copy(update={"px": network.blueprint.px})
        plan = plan_training(network.blueprint, policy)
        trainer = adapter.build(network, plan, sized, job["device"])
        np.save(item["out"], trainer.logits([trainer.infer(np.load(item["images"]))]))
    return {}


def prove(job: Job, emit: Emit) -> dict[str, Any]:
    """Measure this backend for a proof; leaves files in a folder for each item."""
    adapter = load_adapter(job["backend"])
    split = load_split(Path(job["data"]))
    rates = {}
    for value in job["items"]:
        item = ProbeItem.model_validate(value)
        out = Path(job["out"]) / item.key
        facts = probe(adapter, item, split, job["device"], out, floors=job["floors"])
        rates[item.key] = facts["learning_rate"]
        emit({"event": "probed", "key": item.key})
        gc.collect()  # a model and its graphs point at each other; the next one needs the room
    return {"learning_rates": rates}


def devices(job: Job, emit: Emit) -> dict[str, Any]:
    """What the framework sees."""
    return {"devices": load_adapter(job["backend"]).devices()}


def selfcheck(job: Job, emit: Emit) -> dict[str, Any]:
    """Whether figures from a device can be believed."""
    return {"selfcheck": vars(measure(load_adapter(job["backend"]), job["device"]))}


def speed(job: Job, emit: Emit) -> dict[str, Any]:
    """Time training and inference of a network on noise."""
    peak = Peak(_is_warm())
    adapter = load_adapter(job["backend"])
    network = Network.load(Path(job["blueprint"]), trunk_only=True)
    recipe = Recipe.model_validate(job["recipe"])
    network = attach_head(network, recipe.head, job["classes"], seed=0)
    plan = plan_training(network.blueprint, Policy.model_validate(job["policy"]))
    timed = time_training(
        adapter,
        network,
        plan,
        recipe,
        job["device"],
        rounds=job["rounds"],
        epochs=job["epochs"],
        epoch_steps=job["epoch_steps"],
        classes=job["classes"],
    )
    return {"timed": {**vars(timed), "peak_host_bytes": peak.own_bytes(timed.peak_host_bytes)}}


def run(job: Job, emit: Emit) -> dict[str, Any]:
    """One run; writes ``predictions.npz`` and gives the fields of the result."""
    spec = RunSpec.model_validate(job["spec"])
    is_warm = _is_warm()
    peak = Peak(is_warm)
    adapter = load_adapter(spec.backend)
    start_s = None if is_warm else _seconds_since_start()
    try:
        result = {**run_spec(spec, job, adapter, emit), "start_s": start_s}
        return {"result": {**result, "peak_host_bytes": peak.own_bytes(result["peak_host_bytes"])}}
    except Exception as error:
        if not adapter.is_out_of_memory(error):
            raise
        traceback.print_exc()
        failure = Failure(kind=type(error).__name__, message=_first_line(error))
        return {"result": {"status": "oom", "failure": failure.model_dump()}}


def sweep(job: Job, emit: Emit) -> dict[str, Any]:
    """The runs of a sweep at once; gives the fields of the result of each."""
    specs = [RunSpec.model_validate(value) for value in job["specs"]]
    adapter = load_adapter(specs[0].backend)
    try:
        return {"results": run_sweep(specs, job, adapter, emit)}
    except Exception as error:
        if not adapter.is_out_of_memory(error):
            raise
        traceback.print_exc()
        failure = Failure(kind=type(error).__name__, message=_first_line(error))
        return {"results": [{"status": "oom", "failure": failure.model_dump()} for _ in specs]}


def native_knobs(job: Job, emit: Emit) -> dict[str, Any]:
    """What is a framework's own in native mode, read from the network that it builds."""
    recipe = Recipe.model_validate(job["recipe"])
    policy = Policy.model_validate(job["policy"])
    request = native_request(job, job["backbone"], job["classes"], policy, recipe, job["device"], 0)
    trainer, _ = load_adapter(job["backend"]).build_native(request)
    return {"knobs": trainer.knobs()}


TASKS: dict[str, Task] = {
    "describe": describe,
    "models": models,
    "export": export,
    "architectures": architectures,
    "count": count,
    "logits": logits,
    "prove": prove,
    "devices": devices,
    "selfcheck": selfcheck,
    "speed": speed,
    "run": run,
    "sweep": sweep,
    "native_knobs": native_knobs,
}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def _failed(error: BaseException) -> dict[str, Any]:
    """How an exception is told to the parent."""
    if isinstance(error, Unavailable):
        return {"event": "failed", "status": "unavailable", "kind": "unavailable",
                "message": str(error)}  # fmt: skip
    if isinstance(error, UserError):
        return {"event": "failed", "status": "bad_input", "kind": "bad_input",
                "message": error.message, "hint": error.hint}  # fmt: skip
    if isinstance(error, OSError) and (told := unwritable(error)) is not None:
        return {"event": "failed", "status": "bad_input", "kind": "bad_input",
                "message": told.message, "hint": told.hint}  # fmt: skip
    kind = "frozen_changed" if isinstance(error, FrozenChanged) else type(error).__name__
    return {"event": "failed", "status": "crashed", "kind": kind, "message": _first_line(error)}


def _jobs() -> queue.Queue[bytes]:
    """Lines of standard input. The process ends when that is closed, also in the middle of a job,
    so that no orphan holds the device."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


DEEPEST = 10_000
"""Python's limit of nested calls. Keras walks a functional model from its end by calling itself:
EfficientNetV2-L, a thousand operations deep, is too much for the 1,000 that are the default."""


def main() -> None:
    """Do jobs until the parent wants no more."""
    sys.setrecursionlimit(DEEPEST)
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs = _jobs()

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    while True:
        job = json.loads(jobs.get())
        if "log" in job:
            _log_to(Path(job["log"]))
        try:
            answer = {"event": "done", **TASKS[job["task"]](job, emit)}
        except Exception as error:
            traceback.print_exc()
            answer = _failed(error)
        sys.stdout.flush()
        sys.stderr.flush()
        emit(answer)  # before tidying: frameworks crash there at times, after the work
        emit({"event": "idle", "held_bytes": _tidy(job["backend"])})


def _log_to(log: Path) -> None:
    """What is printed from now on goes to the end of ``log``."""
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


def _tidy(backend: str) -> int | None:
    """Give back what the last job held, and tell how many bytes the process holds still; None if it
    is not fit for another job."""
    try:
        gc.collect()
        is_fit = not load_adapter.cache_info().currsize or load_adapter(backend).release()
        gc.collect()
        give_back()
        return held_bytes() if is_fit else None
    except Exception:
        traceback.print_exc()
        return None


if __name__ == "__main__":
    main()
