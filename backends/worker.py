"""The worker process, in which a framework runs: ``python -m backends.worker BACKEND ADAPTER``.

The parent writes a task (``bench.workers.tasks``) as a line of JSON to standard input, waits for
its answer, writes the next one, and keeps the pipe open; this process ends when the pipe closes.
Events go back as lines of JSON on the original standard output; everything else that is printed
goes to the task's log.

Each task imports what it alone needs, so that a run imports no code outside its environment's
digest (``bench.storage.code_digest``).
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from bench.errors import Unavailable, UserError, first_line
from bench.storage.cache import unwritable
from bench.workers import tasks
from bench.workers.environment import NO_DEVICE, environment_here
from bench.workers.events import GO, Done, Event, Failed, Idle, Probed, Turn, to_line

if TYPE_CHECKING:
    from bench.training.adapter import Adapter

RECURSION_LIMIT = 10_000
"""Limit of nested calls. Keras walks a functional model recursively: EfficientNetV2-L, with a
thousand operations in a row, exceeds Python's default of 1,000."""


class NotInstalled(Unavailable):
    """The framework, or something that it needs, cannot be imported."""


class Context(NamedTuple):
    """Backend and parent of a task."""

    backend: str
    adapter_module: str
    """Module with the function ``adapter()``."""
    emit: Callable[[Event], None]
    """Function that sends an event to the parent."""
    lines: queue.Queue[bytes]
    """Lines from the parent."""

    def await_turn(self) -> None:
        """Tell the parent that a window can be timed, and wait until it grants that."""
        self.emit(Turn())
        line = self.lines.get()
        assert line == GO, line

    def adapter(self) -> Adapter:
        """Return the adapter; the first call imports the framework."""
        return load_adapter(self.backend, self.adapter_module)


@functools.cache
def load_adapter(backend: str, module: str) -> Adapter:
    """Import a backend's adapter, and with it the framework; raise NotInstalled if a package that
    it needs is missing."""
    from bench.training.memory import note_fresh

    sys.setrecursionlimit(RECURSION_LIMIT)
    # Collections find nothing in modules that are being imported, and took a third of the time.
    gc.disable()
    try:
        adapter: Adapter = importlib.import_module(module).adapter()
    except ImportError as error:
        raise NotInstalled(f"{backend} cannot start ({error})") from error
    finally:
        gc.enable()
    # Exclude what the framework's modules hold from later collections: with Keras on TensorFlow
    # each of three collections a run took 0.2 s.
    gc.collect()
    gc.freeze()
    note_fresh("cpu")
    return adapter


def _on_device(context: Context, device: str) -> Adapter:
    """Return the adapter, after the framework took what it keeps for a GPU: the driver's context
    and libraries, gigabytes of the host's memory that are no run's own."""
    from bench.training.memory import note_fresh

    adapter = context.adapter()
    if device != "cpu":
        try:
            if device in adapter.devices():
                adapter.start(device)
                note_fresh(device)
        except Exception as error:
            if not adapter.is_out_of_memory(error):
                raise
            traceback.print_exc()  # the run itself finds it again, and says so as its result
    return adapter


def _is_warm() -> bool:
    """Return True if this process has loaded its framework for an earlier task."""
    return load_adapter.cache_info().currsize > 0


def environment(task: tasks.EnvironmentTask, context: Context) -> tasks.EnvironmentAnswer:
    """Describe the environment of runs in this process; a GPU that the driver does not list has the
    name that the framework gives it."""
    found = environment_here(
        context.backend, context.adapter_module, task.packages, task.device, task.variables
    )
    if found.device_model == NO_DEVICE:
        with suppress(Exception):  # the run says what is wrong
            name = context.adapter().device_name(task.device)
            found = found.model_copy(update={"device_model": name})
    return tasks.EnvironmentAnswer(environment=found)


def devices(task: tasks.DevicesTask, context: Context) -> tasks.DevicesAnswer:
    """List the devices that the framework sees."""
    adapter = context.adapter()
    return tasks.DevicesAnswer(devices=adapter.devices(), blind_because=adapter.blind_because())


def models(task: tasks.ModelsTask, context: Context) -> tasks.ModelsAnswer:
    """List the names of torchvision's classification networks."""
    context.adapter()
    from backends.torch_adapter.export.describe import list_models

    return tasks.ModelsAnswer(models=list_models())


def describe(task: tasks.DescribeTask, context: Context) -> tasks.DescribeAnswer:
    """Describe backbones that have no catalogue entry."""
    context.adapter()
    from backends.torch_adapter.export.describe import describe as entry_of
    from backends.torch_adapter.training_form import check_training_form

    entries = tuple(entry_of(name, check_training_form) for name in task.backbones)
    return tasks.DescribeAnswer(entries=entries)


def export(task: tasks.ExportTask, context: Context) -> tasks.Nothing:
    """Export a backbone as a Blueprint with tensors into the cache."""
    adapter = context.adapter()
    from backends.torch_adapter.export.tasks import export_to_cache

    export_to_cache(task, adapter)
    return tasks.Nothing()


def architectures(task: tasks.ArchitecturesTask, context: Context) -> tasks.Nothing:
    """Export backbones without tensors into the cache."""
    context.adapter()
    from backends.torch_adapter.export.tasks import export_architectures_to_cache

    export_architectures_to_cache(task)
    return tasks.Nothing()


def count(task: tasks.CountTask, context: Context) -> tasks.CountAnswer:
    """Build networks and count their parameters as the framework sees them."""
    from bench.network.blueprint import Blueprint, Network
    from bench.network.blueprint_files import architecture_path
    from bench.network.freezing import plan_training
    from bench.network.head import attach_head

    adapter, counts = context.adapter(), []
    for key in task.architectures:
        empty = Network.empty(Blueprint.load(architecture_path(key)))
        network = attach_head(empty, task.recipe.head, task.classes, seed=0)
        plan = plan_training(network.blueprint, task.policy)
        recipe = task.recipe.model_copy(update={"px": network.blueprint.px})
        trainer = adapter.build(network, plan, recipe, task.device)
        counts.append(trainer.counts())
    return tasks.CountAnswer(counts=tuple(counts))


def prove(task: tasks.ProveTask, context: Context) -> tasks.ProveAnswer:
    """Measure this backend for proofs; leaves files in a folder for each item."""
    from bench.parity.inputs import load_split
    from bench.parity.probe import probe

    adapter, split = context.adapter(), load_split(Path(task.data))
    rates = {}
    for item in task.items:
        out = Path(task.out) / item.key
        facts = probe(adapter, item, split, task.device, out, floors=task.floors)
        rates[item.key] = facts["learning_rate"]
        context.emit(Probed(key=item.key))
        gc.collect()  # a model and its graphs form reference cycles and hold much memory
    return tasks.ProveAnswer(learning_rates=rates)


def selfcheck(task: tasks.SelfCheckTask, context: Context) -> tasks.SelfCheckAnswer:
    """Measure training steps in several ways, to check timing and memory on a device."""
    from bench.speed.selfcheck import CPU_SIZE, measure

    size = CPU_SIZE if task.device == "cpu" else ()
    return measure(context.adapter(), task.device, *size)


def speed(task: tasks.SpeedTask, context: Context) -> tasks.SpeedAnswer:
    """Time training and inference of a network on noise."""
    from bench.network.blueprint import Network
    from bench.network.blueprint_files import blueprint_path
    from bench.network.freezing import plan_training
    from bench.network.head import attach_head
    from bench.speed.timing import time_training
    from bench.training.memory import Peak

    peak = Peak(_is_warm())
    adapter = _on_device(context, task.device)
    network = Network.load(blueprint_path(task.blueprint), trunk_only=True)
    network = attach_head(network, task.recipe.head, task.classes, seed=0)
    plan = plan_training(network.blueprint, task.policy)
    try:
        timed = time_training(
            adapter, network, plan, task, context.await_turn if task.turns else None
        )
    except Exception as error:
        if not adapter.is_out_of_memory(error):
            raise
        raise Unavailable(f"it does not fit into memory: {first_line(error)}") from error
    own = {"peak_host_bytes": peak.own_bytes(timed.peak_host_bytes)}
    return timed.model_copy(update=own)


def own_step(task: tasks.OwnStepTask, context: Context) -> tasks.SpeedAnswer:
    """Time a user's own training step."""
    from bench.speed.own_step import time_own_step

    return time_own_step(task, context.await_turn if task.turns else None)


def conditions(task: tasks.LaunchConditionsTask, context: Context) -> tasks.LaunchConditions:
    """Describe the circumstances of this process."""
    from bench.speed.conditions import conditions_here

    return conditions_here()


def software(task: tasks.SoftwareTask, context: Context) -> tasks.Software:
    """Describe what this process runs."""
    from bench.speed.conditions import software_here

    return software_here(task.device)


def depth_features(task: tasks.DepthFeaturesTask, context: Context) -> tasks.Nothing:
    """Compute the features of images at every depth of a network into the cache."""
    from bench.training.depth_features import compute_features

    compute_features(task, _on_device(context, task.device))
    return tasks.Nothing()


def run(task: tasks.RunTask, context: Context) -> tasks.RunAnswer:
    """Do one run, or all runs of a sweep at once; out of memory is a result."""
    from bench.spec.result import Failure, RunResult
    from bench.training.job import do_run
    from bench.training.memory import Peak
    from bench.training.sweep import run_sweep

    is_warm = _is_warm()
    peak = Peak(is_warm)
    adapter = _on_device(context, task.specs[0].device)
    started = None if is_warm else os.environ.get(tasks.STARTED_VARIABLE)
    start_s = None if started is None else time.time() - float(started)
    try:
        if task.specs[0].recipe.sweep:
            return tasks.RunAnswer(results=tuple(run_sweep(task, adapter, context.emit)))
        result = do_run(task, adapter, context.emit)
        own = {"start_s": start_s, "peak_host_bytes": peak.own_bytes(result.peak_host_bytes)}
        return tasks.RunAnswer(results=(result.model_copy(update=own),))
    except Exception as error:
        if not adapter.is_out_of_memory(error):
            raise
        traceback.print_exc()
        failure = Failure(kind=type(error).__name__, message=first_line(error))
        env = task.environment_id
        results = tuple(
            RunResult(run_id=spec.run_id, environment_id=env, status="oom", failure=failure)
            for spec in task.specs
        )
        return tasks.RunAnswer(results=results)


def native_knobs(task: tasks.NativeKnobsTask, context: Context) -> tasks.NativeKnobsAnswer:
    """Build a native network and read the settings that its framework chose."""
    trainer, _ = context.adapter().build_native(task.request)
    return tasks.NativeKnobsAnswer(knobs=trainer.knobs())


HANDLERS: dict[type[Any], Callable[[Any, Context], BaseModel]] = {
    tasks.EnvironmentTask: environment,
    tasks.DevicesTask: devices,
    tasks.ModelsTask: models,
    tasks.DescribeTask: describe,
    tasks.ExportTask: export,
    tasks.ArchitecturesTask: architectures,
    tasks.CountTask: count,
    tasks.ProveTask: prove,
    tasks.SelfCheckTask: selfcheck,
    tasks.SpeedTask: speed,
    tasks.OwnStepTask: own_step,
    tasks.LaunchConditionsTask: conditions,
    tasks.SoftwareTask: software,
    tasks.RunTask: run,
    tasks.DepthFeaturesTask: depth_features,
    tasks.NativeKnobsTask: native_knobs,
}
"""Type of a task → function that does it."""


def _failed(error: BaseException) -> Failed:
    """Return the event that reports an exception to the parent."""
    if isinstance(error, OSError) and (found := unwritable(error)) is not None:
        error = found
    if isinstance(error, Unavailable):
        kind = tasks.NOT_INSTALLED if isinstance(error, NotInstalled) else "unavailable"
        return Failed(status="unavailable", kind=kind, message=str(error))
    if isinstance(error, UserError):
        return Failed(status="bad_input", kind="bad_input", message=error.message, hint=error.hint)
    kind = getattr(error, "failure_kind", type(error).__name__)
    return Failed(status="crashed", kind=kind, message=first_line(error))


def _lines() -> queue.Queue[bytes]:
    """Return a queue of the lines of standard input. The process ends when that is closed, even
    during a task, so that no orphan holds the device."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main(backend: str, adapter_module: str) -> None:
    """Do tasks until the parent closes standard input."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines = _lines()

    def emit(event: Event) -> None:
        events.write(to_line(event))
        events.flush()

    context = Context(backend, adapter_module, emit, lines)
    while True:
        line = lines.get()
        event: Done | Failed
        try:
            task = tasks.TASK.validate_json(line)
            if task.log is not None:
                with open(task.log, "ab") as sink:
                    os.dup2(sink.fileno(), 1)
                    os.dup2(sink.fileno(), 2)
            answer = HANDLERS[type(task)](task, context)
            event = Done.model_validate(answer.model_dump(mode="json"))
        except Exception as error:
            traceback.print_exc()
            event = _failed(error)
        sys.stdout.flush()
        sys.stderr.flush()
        emit(event)  # before tidying, where frameworks sometimes crash
        emit(Idle(held_bytes=_tidy(context)))


def _tidy(context: Context) -> int | None:
    """Free the memory of the last task. Return the bytes that the process still holds; None if it
    cannot do another task."""
    from bench.training.memory import held_bytes, trim_memory

    try:
        gc.collect()
        is_usable = not _is_warm() or context.adapter().release()
        gc.collect()
        trim_memory()
        return held_bytes() if is_usable else None
    except Exception:
        traceback.print_exc()
        return None


if __name__ == "__main__":
    main(*sys.argv[1:])
