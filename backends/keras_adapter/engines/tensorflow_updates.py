"""PyTorch's SGD and AdamW by TensorFlow's own kernels: one pass over each variable.

Measured on 2 CPU cores: AdamW on ResNet50 took 25 ms a step in place of 55, on MobileNetV2 8 in
place of 16. Formulas of the kernels: tensorflow.org, ``tf.raw_ops.ResourceApplyMomentum`` and
``ResourceApplyAdam``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from backends.keras_adapter.engines import BETA_1, BETA_2, EPSILON, Scalars


def sgd_update(
    variable: Any, moments: list[Any], gradient: Any, decay: float | None, scalars: Scalars
) -> None:
    """``velocity = momentum * velocity + gradient; variable -= rate * velocity``."""
    if decay is not None:
        gradient = gradient + decay * variable.value
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.value.handle,
        accum=moments[0].value.handle,
        lr=scalars.rate,
        grad=gradient,
        momentum=tf.constant(scalars.momentum, gradient.dtype),
    )


def adamw_update(
    variable: Any, moments: list[Any], gradient: Any, decay: float | None, scalars: Scalars
) -> None:
    """PyTorch's: ``rate / c1 * m / (sqrt(v) / c2 + epsilon)``; the kernel's, with powers of 0:
    ``lr * m / (sqrt(v) + eps)``.

    The kernel weighs what it adds to the moments by 1 minus the rounded beta, PyTorch by the
    rounded 1 - beta: in float32, 1.3e-5 apart. The moments are linear in that weight, so that a
    constant factor, taken out again here, is all that comes of it.
    """
    if decay is not None:
        variable.value.assign(variable.value * (1.0 - scalars.rate * decay))
    dtype = np.dtype(gradient.dtype.as_numpy_dtype).type
    excess_1, excess_2 = (
        float(dtype(1.0) - dtype(beta)) / float(dtype(1.0 - beta)) for beta in (BETA_1, BETA_2)
    )
    root = excess_2**0.5
    zero, beta_1, beta_2 = (tf.constant(v, gradient.dtype) for v in (0.0, BETA_1, BETA_2))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.value.handle,
        m=moments[0].value.handle,
        v=moments[1].value.handle,
        beta1_power=zero,
        beta2_power=zero,
        lr=scalars.rate * scalars.correction_2 / scalars.correction_1 * (root / excess_1),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=scalars.correction_2 * (EPSILON * root),
        grad=gradient,
    )
