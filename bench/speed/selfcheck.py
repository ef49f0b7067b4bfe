"""Checks of a device's timing, memory accounting and arithmetic rate (docs/design.md, Devices)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np

from bench.network.blueprint import Array, Blueprint, Network, Operation, OperationKind
from bench.network.cost import work_of
from bench.network.freezing import plan_training
from bench.spec.plain import TRAIN_ALL, plain_recipe
from bench.spec.preprocessing import Preprocessing
from bench.training.adapter import Adapter, Batch, Trainer
from bench.training.clocks import stretch
from bench.training.flop_utilisation import peak_flops_per_s
from bench.workers.tasks import SelfCheckAnswer

STEPS = 20
ROUNDS = 3
CPU_SIZE = (32, 16)
"""Input size in pixels and channels of the network that is timed on a CPU."""
MOST_OVER_PEAK = 4.0
"""Largest plausible ratio of the network's rate and that of a matrix product: 3×3 convolutions can
be done with a quarter of the multiplications (Lavin & Gray 2016, "Fast Algorithms for Convolutional
Neural Networks")."""
ERRORS = {"fp32": 3e-5, "tf32": 2e-3}
"""Precision → largest plausible relative error of logits. IEEE float32 has 1e-6, TF32 some 3e-4
(its factors have 11 significant bits), bfloat16 3e-3."""
EVENTS_TOLERANCE = 0.1
"""Largest plausible relative difference of the GPU's own clock and the host's over a stretch."""
FULL_SIDE = 2**18
"""Side of matrices that fit into no memory: 275 GB in float32."""
CHECK_IMAGES = 2
"""Images whose logits are computed again in float64."""
MOST_FLOP_PER_S = 2.5e15
"""More than any device does in float32 or TF32: such a rate means that work was not waited for."""


def summary(check: SelfCheckAnswer) -> str:
    """Return the measurements as one line."""
    told = [
        f"{STEPS} steps queued in {check.queued_s * 1e3:.1f} ms, done in "
        f"{check.synchronised_s * 1e3:.1f} ms",
        f"{check.flop_per_s / 1e12:.2g} TFLOP/s (a large matrix product: "
        f"{check.peak_flop_per_s / 1e12:.2g})",
        f"error of fp32 {check.fp32_error:.0e}",
    ]
    if check.peak_device_bytes is not None:
        told.append(f"peak memory {check.peak_device_bytes / 1e6:.0f} MB")
    if check.events_s is not None:
        told.append(f"{check.events_s * 1e3:.1f} ms by the GPU's own clock")
    return ", ".join(told)


def judge(check: SelfCheckAnswer) -> list[str]:
    """Return the problems found, none if the measurements are plausible."""
    problems = []
    if check.synchronised_s < check.fetched_s / 2:
        problems.append(
            f"synchronise returned after {check.synchronised_s:.3g} s, but the result of the same "
            f"work took {check.fetched_s:.3g} s: it does not wait"
        )
    for rate in (check.flop_per_s, check.peak_flop_per_s):
        if not 0 < rate < MOST_FLOP_PER_S:
            problems.append(f"{rate:.3g} FLOP/s is impossible: synchronise does not wait")
    if check.flop_per_s > MOST_OVER_PEAK * check.peak_flop_per_s:
        problems.append(
            f"{check.flop_per_s:.3g} FLOP/s is implausible: a large matrix product reaches "
            f"{check.peak_flop_per_s:.3g}"
        )
    if not check.fp32_error < ERRORS["fp32"]:
        problems.append(
            f"logits in fp32 are off by {check.fp32_error:.1e}: products are not IEEE float32 "
            "(a variable or a library allows TF32)"
        )
    if check.events_s is not None:
        difference = abs(check.events_s / check.stretch_s - 1)
        if difference > EVENTS_TOLERANCE:
            problems.append(
                f"the GPU's own clock says {check.events_s:.3g} s for a stretch of "
                f"{check.stretch_s:.3g} s: one of them is wrong"
            )
    if check.recognises_full_memory is False:
        problems.append("an exception for lack of memory is not recognised: it would be a crash")
    if check.peak_device_bytes is not None and check.peak_device_bytes < check.parameter_bytes:
        problems.append("peak memory is smaller than the parameters: it is not measured")
    return problems


def measure(adapter: Adapter, device: str, px: int = 64, width: int = 128) -> SelfCheckAnswer:
    """Time the training of four 3×3 convolutions of ``width`` channels on noise."""
    network = convolutional_network(px, width)
    plan = plan_training(network.blueprint, TRAIN_ALL)
    batch_size = 32
    recipe = plain_recipe("original", px, batch_size)
    parameter_bytes = sum(t.nbytes for t in network.tensors.values())
    trainer = adapter.build(network, plan, recipe, device)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, px, px, 3), dtype=np.uint8)
    batch = trainer.to_device(Batch(images, np.zeros(batch_size, np.int64), ()))
    for _ in range(3):  # compilation and allocation
        trainer.train_step(batch, 1e-3)

    fp32_error = _error(trainer, network)

    def steps(wait: Callable[[Any], object]) -> tuple[float, float]:
        trainer.losses([trainer.train_step(batch, 1e-3)])
        began = time.perf_counter()
        for _ in range(STEPS):
            handle = trainer.train_step(batch, 1e-3)
        queued_s = time.perf_counter() - began
        wait(handle)
        return queued_s, time.perf_counter() - began

    # The best of several rounds, since other work on the machine disturbs some.
    queued_s, synchronised_s = min(
        (steps(lambda handle: trainer.synchronise()) for _ in range(ROUNDS)), key=itemgetter(1)
    )
    _, fetched_s = min(
        (steps(lambda handle: trainer.losses([handle])) for _ in range(ROUNDS)), key=itemgetter(1)
    )
    found = stretch(trainer, batch, 1e-3, STEPS)
    peak_bytes = trainer.peak_device_bytes()  # before the matrix products, which take memory too
    peak_flop_per_s = peak_flops_per_s(trainer.matrix_product, trainer.synchronise)
    flop = 2 * STEPS * batch_size * work_of(network.blueprint, plan).step_multiply_adds
    return SelfCheckAnswer(
        queued_s=queued_s, synchronised_s=synchronised_s, fetched_s=fetched_s,
        flop_per_s=flop / synchronised_s,
        peak_flop_per_s=peak_flop_per_s, peak_device_bytes=peak_bytes,
        parameter_bytes=parameter_bytes, fp32_error=fp32_error, stretch_s=found.step_s * STEPS,
        events_s=sum(found.device_step_s) if found.device_step_s else None,
        recognises_full_memory=None if device == "cpu" else _recognises(adapter, trainer),
    )  # fmt: skip


def _error(trainer: Trainer, network: Network) -> float:
    """Return the relative difference of logits from those that NumPy computes in float64, with the
    numbers that the trainer has now."""
    px = network.blueprint.px
    images = np.random.default_rng(1).integers(0, 256, (CHECK_IMAGES, px, px, 3), dtype=np.uint8)
    found = trainer.logits([trainer.infer(images)]).astype(np.float64)
    value = np.moveaxis(network.blueprint.preprocessing.apply(images, np.float64), -1, 1)
    tensors = trainer.tensors()
    for operation in network.blueprint.operations:
        if operation.kind == "conv2d":
            kernel = tensors[operation.tensors["weight"]].astype(np.float64)
            padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
            value = np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3)))
            value = np.moveaxis(value, -1, 1)
        elif operation.kind == "relu":
            value = np.maximum(value, 0.0)
    exact = value.mean((2, 3))
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def _recognises(adapter: Adapter, trainer: Trainer) -> bool:
    """Return True if the adapter takes the framework's exception for a full memory as that."""
    try:
        trainer.matrix_product(FULL_SIDE)()
        trainer.synchronise()
    except Exception as error:
        return adapter.is_out_of_memory(error)
    return True  # so large a memory is news


def convolutional_network(px: int, width: int) -> Network:
    """Return four 3×3 convolutions of ``width`` channels, with random numbers."""
    random, shape = np.random.default_rng(0), (width, px, px)
    geometry = {"kernel": [3, 3], "stride": [1, 1], "padding": [1] * 4, "dilation": [1, 1],
                "groups": 1}  # fmt: skip
    tensors: dict[str, Array] = {}
    operations: list[Operation] = []

    def add(
        name: str, kind: OperationKind, shape: tuple[int, ...], attributes: dict[str, Any],
        **more: Any,
    ) -> None:  # fmt: skip
        source = operations[-1].name if operations else "pixels"
        operations.append(
            Operation(name=name, kind=kind, inputs=(source,), attributes=attributes, shape=shape,
                      module_path=name, stage="stem", **more)
        )  # fmt: skip

    for i, channels in enumerate((3, width, width, width)):
        weight = f"conv{i}.weight"
        kernel = random.normal(0, math.sqrt(2 / (channels * 9)), (width, channels, 3, 3))
        tensors[weight] = kernel.astype(np.float32)
        add(f"conv{i}", "conv2d", shape, geometry, tensors={"weight": weight})
        add(f"relu{i}", "relu", shape, {})
    add("pool", "adaptive_avg_pool2d", (width, 1, 1), {"output_size": [1, 1]})
    add("flatten", "flatten", (width,), {})
    blueprint = Blueprint(
        backbone="selfcheck",
        px=px,
        preprocessing=Preprocessing(channels="RGB", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
        stages=("stem", "head"),
        operations=tuple(operations),
        shapes={name: array.shape for name, array in tensors.items()},
    )
    return Network(blueprint, tensors)
