"""The limits of a card: copies, matrix products, and the convolutions of a network alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from backends import torch_device
from bench.network.blueprint import Blueprint
from bench.spec.run import Precision
from bench.training.flop_utilisation import peak_flops_per_s
from tools.gpu_steps.common import Findings, StepOptions, network, noted, synchroniser

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16", "fp64")
CONVOLUTIONS: tuple[tuple[Precision, int], ...] = (
    ("bf16", 64),
    ("bf16", 256),
    ("tf32", 64),
    ("fp32", 64),
)
COPIED_BYTES, HOST_BYTES = 2**31, 2**28
SMALL_BYTES = 2**22


def limit(options: StepOptions) -> Findings:
    """Measure the bandwidths, the rate of a large matrix product in each precision, and the rate of
    training if a network consisted of its convolutions alone."""
    found: Findings = {}
    device = torch.device(options.device)
    wait = synchroniser(options.device)
    with noted(found, "bandwidth"):
        found |= _bandwidths(options, wait)
    for precision in PRECISIONS:
        if not options.on_gpu and precision in ("tf32", "fp16"):
            continue
        with noted(found, f"product {precision}"):
            torch_device.allow_tf32(precision == "tf32")
            product = partial(torch_device.matrix_product, device, precision)
            sides = (256,) if options.small else (8192,)
            found[f"product_{precision}_flop_per_s"] = peak_flops_per_s(product, wait, sides=sides)
    for precision, batch_size in CONVOLUTIONS:
        if not options.on_gpu and (precision == "tf32" or batch_size > 64):
            continue
        key = f"convolutions_{precision}_{batch_size}"
        with noted(found, key):
            size = 2 if options.small else batch_size
            found[key] = _convolutions(network(options)[0].blueprint, size, precision, options)
    return found


def _seconds(work: Callable[[], object], times: int, wait: Callable[[], None]) -> float:
    """Return the seconds of one call among ``times`` that are waited for once."""
    work()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - began) / times


def _bandwidths(options: StepOptions, wait: Callable[[], None]) -> Findings:
    """Measure copies on the device, and from the host to it, from pinned and from usual memory."""
    size = SMALL_BYTES if options.small else COPIED_BYTES
    source, target = (torch.empty(size, dtype=torch.uint8, device=options.device) for _ in range(2))
    # A copy reads and writes.
    found = {"copy_bytes_per_s": 2 * size / _seconds(lambda: target.copy_(source), 10, wait)}
    if options.on_gpu:
        host = torch.empty(HOST_BYTES, dtype=torch.uint8)
        pinned, there = host.pin_memory(), torch.empty_like(host, device=options.device)
        copies: dict[str, Callable[[], object]] = {
            "pinned": lambda: there.copy_(pinned, non_blocking=True),
            "pageable": lambda: there.copy_(host),
        }
        for name, copy in copies.items():
            found[f"h2d_{name}_bytes_per_s"] = HOST_BYTES / _seconds(copy, 5, wait)
    return found


def _convolutions(
    blueprint: Blueprint, batch_size: int, precision: Precision, options: StepOptions
) -> Findings:
    """Time each convolution of a network, forward and backward, by itself."""
    torch.backends.cudnn.benchmark = True
    torch_device.allow_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layout = torch_device.memory_format(torch.device(options.device), precision)
    shapes = {o.name: o.shape for o in blueprint.operations}
    kinds: Counter[tuple[Any, ...]] = Counter()
    for o in blueprint.operations:
        if o.kind == "conv2d":
            a = o.attributes
            image = shapes.get(o.inputs[0], (3, blueprint.px, blueprint.px))
            kinds[image, blueprint.shapes[o.tensors["weight"]], tuple(a["stride"]),
                  (a["padding"][0], a["padding"][2]), a["groups"]] += 1  # fmt: skip
    total_s, wait = 0.0, synchroniser(options.device)
    for (image, kernel, stride, padding, groups), count in kinds.items():
        x, weight = (
            torch.randn(*shape, device=options.device).to(dtype, memory_format=layout)
            for shape in ((batch_size, *image), kernel)
        )
        needed = [t.requires_grad_() for t in ((weight,) if image[0] == 3 else (x, weight))]

        def once(
            x: Any = x, weight: Any = weight, needed: Any = needed,
            options: Any = (stride, padding, 1, groups),
        ) -> object:  # fmt: skip
            y = F.conv2d(x, weight, None, *options)
            return torch.autograd.grad(y, needed, y)

        for _ in range(3):
            once()
        total_s += count * _seconds(once, 3 if options.small else 10, wait)
    return {
        "convolutions_s": total_s,
        "images_per_s_of_convolutions_alone": batch_size / total_s,
    }
