"""Out of memory: what a framework raises, if it is recognised, and if the process goes on."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.network.freezing import plan_training
from bench.spec.plain import plain_recipe
from bench.speed.selfcheck import convolutional_network
from bench.training.adapter import Adapter, Batch, Trainer
from tools.gpu_steps.common import Findings, StepOptions, left_s, noted

FITS, HUGE = 8, 8192
"""Batch sizes at 224 px: one that fits anywhere and one that fits nowhere."""
NEAR_FIRST, NEAR_LAST, NEAR_FAILURES = 700, 6000, 4
"""First and largest batch size of the ladder, and failures after which it ends."""


def full_memory(options: StepOptions) -> Findings:
    """Train with a batch that fits nowhere, then with a small one in the same process; and climb
    to the wall in steps of 6 %, where cuDNN's search for kernels meets it first."""
    found: Findings = {"backend": options.backend, "tries": []}
    adapter = load_adapter(options.backend, BACKENDS[options.backend].adapter)
    tries: list[Findings] = found["tries"]
    with noted(found, "huge"):
        trainer = _build(adapter, options)
        for size in (FITS, 64 if options.small else HUGE, FITS):
            tries.append(_attempt(adapter, trainer, size, options))
        del trainer
    with noted(found, "built anew"):
        adapter.release()
        tries.append(_attempt(adapter, _build(adapter, options), FITS, options))
    if options.backend == "torch" and not options.small:
        with noted(found, "near"):
            size, failures = NEAR_FIRST, 0
            while failures < NEAR_FAILURES and left_s() > 15 and size < NEAR_LAST:
                adapter.release()
                one = _attempt(adapter, _build(adapter, options), size, options)
                tries.append(one)
                failures += "raised" in one
                size = int(size * (1.06 if failures else 1.2))
    return found


def _build(adapter: Adapter, options: StepOptions) -> Trainer:
    px, width = (16, 8) if options.small else (224, 128)
    network = convolutional_network(px, width)
    plan = plan_training(network.blueprint, POLICIES["from_scratch"])
    recipe = plain_recipe("original", px, FITS).model_copy(update={"precision": "bf16"})
    return adapter.build(network, plan, recipe, options.device)


def _attempt(adapter: Adapter, trainer: Trainer, size: int, options: StepOptions) -> Findings:
    px = 16 if options.small else 224
    one: dict[str, Any] = {"batch_size": size}
    try:
        images = np.zeros((size, px, px, 3), np.uint8)
        batch = trainer.to_device(Batch(images, np.zeros(size, np.int64), ()))
        one["loss"] = trainer.losses([trainer.train_step(batch, 1e-6)])[0]
        trainer.synchronise()
    except Exception as error:
        words = str(error)[:250]
        one["raised"] = f"{type(error).__module__}.{type(error).__name__}: {words}"
        one["recognised"] = adapter.is_out_of_memory(error)
    one["peak_bytes"] = trainer.peak_device_bytes()
    return one
