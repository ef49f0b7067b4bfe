"""Model FLOP utilisation: the share of a device's peak rate that a run's training reached.

Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", appendix B: the operations
that the model needs, at the end-to-end throughput, over the device's peak. There the peak is the
manufacturer's figure; here it is the best rate of a large matrix product in the same framework and
precision, which holds with the flags that are in force.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.errors import first_line
from bench.spec.run import Precision
from bench.training.adapter import Trainer

SIDES = (1024, 2048, 4096, 8192)
"""Sides of the matrices; the first whose product takes ``LEAST_PRODUCT_S`` is measured."""
LEAST_PRODUCT_S = 2e-3
"""Seconds after which a product's launch, some 10 µs, is negligible."""
WINDOWS, WINDOW_S = 5, 0.05
MOST_PRODUCTS = 100
"""Most products in a window."""


def peak_flops_per_s(
    matrix_product: Callable[[int], Callable[[], object]],
    synchronise: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
    sides: Sequence[int] = SIDES,
) -> float:
    """Measure the FLOP/s of ``Trainer.matrix_product``: the best of several windows.

    A product of side n is n³ multiplications and as many additions.
    """

    def product_s(multiply: Callable[[], object], products: int) -> float:
        synchronise()
        began = clock()
        for _ in range(products):
            multiply()
        synchronise()
        return (clock() - began) / products

    for side in sides:
        multiply = matrix_product(side)
        product_s(multiply, 1)  # memory is allocated, libraries choose their kernel
        once_s = product_s(multiply, 1)
        if once_s >= LEAST_PRODUCT_S:
            break
    products = min(math.ceil(WINDOW_S / once_s), MOST_PRODUCTS)
    return 2 * side**3 / min(product_s(multiply, products) for _ in range(WINDOWS))


def utilisation(
    result: dict[str, Any], trainer: Trainer, device: str, precision: Precision, notes: list[str]
) -> dict[str, float]:
    """Return the fields of a result about a GPU's peak, measured once a process and precision.

    Call it last, with the result so far: it takes memory and time on the device. ``notes`` takes a
    sentence if the peak could not be measured; the run counts all the same.

    Returns:
        Nothing on a CPU, and where no whole steps were timed or the network's work is not known.
    """
    rate = result.get("train_images_per_s")
    forward, backward = result.get("forward_multiply_adds"), result.get("backward_multiply_adds")
    if device == "cpu" or rate is None or forward is None or backward is None:
        return {}
    key = (device, precision)
    if key not in _peaks:
        try:
            _peaks[key] = peak_flops_per_s(trainer.matrix_product, trainer.synchronise)
        except Exception as error:  # mostly out of memory, whose type is the framework's own
            notes.append(f"the peak of {device} was not measured: {first_line(error)}")
            return {}
    return {
        "device_peak_flops_per_s": _peaks[key],
        "model_flop_utilisation": 2 * (forward + backward) * rate / _peaks[key],
    }


_peaks: dict[tuple[str, Precision], float] = {}
