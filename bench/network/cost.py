"""The cost of a policy by arithmetic: multiply-adds and kept activations, from the Blueprint.

Only convolutions, dense layers and attention are counted; everything else is less than a few per
cent of a network's work. A backward pass repeats the work of the forward pass for the gradient of
the weights, if they train, and again for that of the input, if something before it trains;
attention has two inputs in each of its products (Baydin et al. 2018, "Automatic Differentiation in
Machine Learning: a Survey", 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.network.blueprint import INPUT, KERNELS, Blueprint, Operation, channels_last
from bench.network.freezing import TrainingPlan

READS_INPUT = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "max_pool2d", "gelu", "silu", "hard_swish",
     "leaky_relu", "prelu", "mish"}
)  # fmt: skip
"""Kinds whose backward pass reads their input, also where they do not train."""
READS_OUTPUT = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "tanh", "elu"})
"""Kinds whose backward pass reads their output."""
READS_INPUTS = frozenset({"multiply", "attention"})
"""Kinds whose backward pass reads all their inputs."""


@dataclass(frozen=True)
class Work:
    """The work of one image in a training step."""

    forward_multiply_adds: int
    backward_multiply_adds: int
    """Multiply-adds of the part that needs gradients."""
    activation_bytes: int
    """Size of the float32 values that the backward pass reads; a framework may keep more."""

    @property
    def step_multiply_adds(self) -> int:
        """Multiply-adds of both passes."""
        return self.forward_multiply_adds + self.backward_multiply_adds


def work_of(blueprint: Blueprint, plan: TrainingPlan) -> Work:
    """Count the work of a training step of a Blueprint with its head."""
    needs_gradient: dict[str, bool] = {INPUT: False}  # of the values, by name
    shapes: dict[str, tuple[int, ...]] = {INPUT: (3, blueprint.px, blueprint.px)}
    forward = backward = 0
    kept: set[str] = set()
    for operation in blueprint.operations:
        shapes[operation.name] = operation.shape
        cost = multiply_adds(operation, blueprint)
        forward += cost
        trains = operation.tensors.get("weight") in plan.trained
        flows = any(needs_gradient[name] for name in operation.inputs)
        backward += cost * (2 * flows if operation.kind == "attention" else trains + flows)
        any_trains = any(tensor in plan.trained for tensor in operation.tensors.values())
        needs_gradient[operation.name] = flows or any_trains
        if needs_gradient[operation.name]:
            kept |= _read_backward(operation, trains)
    size = sum(math.prod(shapes[name]) for name in kept)
    return Work(forward, backward, 4 * size)


def multiply_adds(operation: Operation, blueprint: Blueprint) -> int:
    """Return the multiply-adds of one image's forward pass through an operation."""
    if operation.kind in KERNELS:
        kernel = math.prod(blueprint.shapes[operation.tensors["weight"]])
        return kernel * math.prod(channels_last(operation.shape)[:-1])
    if operation.kind == "attention":  # queries by keys, then their weights by values
        length, channels = operation.shape
        return 2 * length * length * channels
    return 0


def saving(work: Work, full: Work) -> float:
    """Return the share of a step's multiply-adds that ``work`` saves compared to ``full``."""
    return 1.0 - work.step_multiply_adds / full.step_multiply_adds


def _read_backward(operation: Operation, trains: bool) -> set[str]:
    """Return the names of the values that an operation's backward pass reads."""
    if operation.kind in READS_OUTPUT:
        return {operation.name}
    if operation.kind in READS_INPUTS:
        return set(operation.inputs)
    if operation.kind in READS_INPUT or trains:
        return {operation.inputs[0]}
    return set()
