"""How much of what a device can do at all a run's training got: model FLOP utilisation.

Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", appendix B: the operations
that the model needs, at the throughput that was seen from end to end, over the device's peak. The
peak there is the maker's figure; here it is the best rate of a large matrix product in the same
framework and precision, for such a figure holds with the flags that are in force.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.spec.run import Precision
from bench.training.adapter import Trainer

SIDES = (1024, 2048, 4096, 8192)
"""Of the matrices; the first of which a product takes ``LEAST_PRODUCT_S`` is measured."""
LEAST_PRODUCT_S = 2e-3
"""So long that its launch, some 10 µs, does not count."""
WINDOWS, WINDOW_S = 5, 0.05
MOST_PRODUCTS = 100
"""In a window."""


def peak_flops_per_s(
    matrix_product: Callable[[int], Callable[[], object]],
    synchronise: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
    sides: Sequence[int] = SIDES,
) -> float:
    """FLOP/s of a product of two square matrices: the best of several synchronised windows.

    A product of side n is n³ multiplications and as many additions.

    Args:
        matrix_product: As ``Trainer.matrix_product``.
        synchronise: Waits for the device.
        clock: In seconds.
        sides: Ascending.
    """

    def window(multiply: Callable[[], object], products: int) -> float:
        synchronise()
        began = clock()
        for _ in range(products):
            multiply()
        synchronise()
        return (clock() - began) / products

    for side in sides:
        multiply = matrix_product(side)
        window(multiply, 1)  # memory is allocated, libraries choose their kernel
        once_s = window(multiply, 1)
        if once_s >= LEAST_PRODUCT_S:
            break
    products = min(math.ceil(WINDOW_S / once_s), MOST_PRODUCTS)
    return 2 * side**3 / min(window(multiply, products) for _ in range(WINDOWS))


def utilisation(
    found: dict[str, Any], trainer: Trainer, device: str, precision: Precision, notes: list[str]
) -> dict[str, float]:
    """Fields of a result about a GPU's peak, measured once a process and precision.

    Call it last: it takes memory and time on the device.

    Args:
        found: Fields of the result so far.
        trainer: Of the run.
        device: cpu or cuda:N.
        precision: Of the run.
        notes: Takes a sentence if the peak could not be measured; the run is good all the same.

    Returns:
        Nothing on a CPU, and where no whole steps were timed or no network is counted.
    """
    rate = found.get("train_images_per_s")
    multiply_adds = _step_multiply_adds(found)
    if device == "cpu" or rate is None or multiply_adds is None:
        return {}
    key = (device, precision)
    if key not in _peaks:
        try:
            _peaks[key] = peak_flops_per_s(trainer.matrix_product, trainer.synchronise)
        except Exception as error:  # for want of memory, above all; its type is the framework's
            words = (str(error).splitlines() or [type(error).__name__])[0]
            notes.append(f"the peak of {device} was not measured: {words}")
            return {}
    return {
        "device_peak_flops_per_s": _peaks[key],
        "model_flop_utilisation": 2 * multiply_adds * rate / _peaks[key],
    }


_peaks: dict[tuple[str, Precision], float] = {}


def _step_multiply_adds(found: dict[str, Any]) -> int | None:
    """Of one image, forward and backward; None of networks that are not counted."""
    forward, backward = found.get("forward_multiply_adds"), found.get("backward_multiply_adds")
    return None if forward is None or backward is None else forward + backward
