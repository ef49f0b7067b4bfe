"""The project's own timing of ResNet50, case by case; and what a step does beside computing."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.data import Split
from bench.network.cost import work_of
from bench.speed.selfcheck import judge, measure
from bench.speed.timing import time_training
from bench.training.adapter import Adapter, Batch, Trainer
from bench.training.flop_utilisation import peak_flops_per_s
from bench.workers.tasks import SpeedTask
from tools.gpu_steps.common import (
    CLASSES,
    Findings,
    StepCase,
    StepOptions,
    left_s,
    median,
    network,
    noted,
    save,
    say,
)

LEAST_LEFT_S = {"plain": 15, "compiled": 50}
"""Time that must be left to begin another case, by rung."""
MOST_USUAL = 64
"""Largest batch of which 20 steps are timed at a time, and not 10."""
PROFILED_STEPS = 3
MOST_KERNELS = 15


def speed(options: StepOptions) -> Findings:
    """Time training and inference in each case, and compare with the card's matrix product."""
    found: Findings = {"backend": options.backend, "cases": {}}
    adapter = load_adapter(options.backend, BACKENDS[options.backend].adapter)
    found["devices"] = adapter.devices()
    with noted(found, "selfcheck"):
        size = (16, 8) if options.small or not options.on_gpu else ()
        check = measure(adapter, options.device, *size)
        found["selfcheck"] = {**check.model_dump(), "problems": judge(check)}
    for text in options.cases:
        case = StepCase.parse(text, options.small)
        if left_s() < LEAST_LEFT_S[case.compile]:
            found["cases"][text] = "left out: no time"
            continue
        one: Findings = {}
        found["cases"][text] = one
        with noted(one, "case"):
            one |= _time(adapter, case, options)
            rates = {name: round(rate) for name, rate in one["images_per_s"].items()}
            say(f"{options.backend} {text} {rates}, queue {(one['queue_s'] or 0) * 1e3:.1f} ms")
        if options.backend in ("torch", "keras-torch"):
            with noted(one, "look inside"):
                one |= _inside(adapter, case, options, text)
        gc.collect()
        adapter.release()
        save(options, f"speed-{options.backend}", found)
    return found


def _time(adapter: Adapter, case: StepCase, options: StepOptions) -> Findings:
    net, plan = network(options)
    is_long = case.precision == "fp32" or case.batch_size > MOST_USUAL
    steps = 4 if options.small else (10 if is_long else 20)
    task = SpeedTask(
        blueprint="", policy=POLICIES["fine_tune_all"], recipe=case.recipe(options.px),
        classes=CLASSES, device=options.device, rounds=steps, epochs=2, epoch_steps=steps,
    )  # fmt: skip
    answer = time_training(adapter, net, plan, task)
    size = case.batch_size
    trainer = adapter.build(net, plan, task.recipe, options.device)
    sides = (128,) if options.small else (8192,)
    peak = peak_flops_per_s(trainer.matrix_product, trainer.synchronise, sides=sides)
    multiply_adds = work_of(net.blueprint, plan).step_multiply_adds
    pipelined = size / median(answer.seconds("train_step"))
    return {
        **answer.model_dump(exclude={"windows"}),
        "images_per_s": {
            "step": size / median(list(answer.waited_step_s)),
            "pipelined": pipelined,
            "epoch": answer.images["train_epoch"] / answer.seconds("train_epoch")[-1],
            "inference": size / median(answer.seconds("inference")),
        },
        "multiply_adds_per_image": multiply_adds,
        "peak_flop_per_s": peak,
        "mfu": 2 * multiply_adds * pipelined / peak,
    }


def _inside(adapter: Adapter, case: StepCase, options: StepOptions, text: str) -> Findings:
    """Return where a step makes the host wait, and for one case its kernels."""
    net, plan = network(options)
    trainer = adapter.build(net, plan, case.recipe(options.px), options.device)
    prepared = trainer.to_device(_batch(case.batch_size, options.px))
    for _ in range(3):
        trainer.train_step(prepared, 0.0)
    found: Findings = {"waits": _waits(trainer, prepared, options)}
    if text == options.profiled:
        found["profile"] = _profile(trainer, prepared, options, text)
    return found


def _batch(size: int, px: int) -> Batch:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (size, px, px, 3), dtype=np.uint8)
    split = Split(images, np.arange(size) % CLASSES)
    return Batch(split.images, split.labels, ())


def _waits(trainer: Trainer, prepared: Any, options: StepOptions) -> list[str]:
    """List the lines at which a step waits for the GPU (torch.cuda.set_sync_debug_mode)."""
    if not options.on_gpu:
        return []
    import torch

    trainer.synchronise()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.train_step(prepared, 0.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno} {str(w.message)[:120]}" for w in seen][:40]


def _profile(trainer: Trainer, prepared: Any, options: StepOptions, text: str) -> Findings:
    """Return the kernels of a step by their time; append the profiler's table to profile.txt."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.on_gpu else [])]
    with profiler(activities=kinds) as seen:
        for _ in range(PROFILED_STEPS):
            trainer.train_step(prepared, 0.0)
        trainer.synchronise()
    order = "self_cuda_time_total" if options.on_gpu else "self_cpu_time_total"
    table = seen.key_averages().table(sort_by=order, row_limit=30)
    with Path(options.work / "profile.txt").open("a") as file:
        file.write(f"\n==== {options.backend} {text}\n{table}\n")
    kernels = [e for e in seen.events() or () if str(e.device_type).endswith("CUDA")]
    total_ms: dict[str, float] = {}
    for event in kernels:
        milliseconds = event.time_range.elapsed_us() / 1e3 / PROFILED_STEPS
        total_ms[event.name] = total_ms.get(event.name, 0.0) + milliseconds
    longest = sorted(total_ms.items(), key=lambda item: -item[1])[:MOST_KERNELS]
    return {
        "kernels_per_step": len(kernels) / PROFILED_STEPS,
        "kernel_ms_per_step": sum(total_ms.values()),
        "longest_ms_per_step": {name[:90]: round(ms, 3) for name, ms in longest},
    }
