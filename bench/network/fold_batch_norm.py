"""Folding BatchNorm into the convolution before it, for the inference of a frozen prefix."""

from __future__ import annotations

import numpy as np

from bench.network.blueprint import KERNELS, Array, Blueprint, Network, Operation
from bench.network.frozen_prefix import Boundary


def inference_form(blueprint: Blueprint, tensors: dict[str, Array], boundary: Boundary) -> Network:
    """Return the operations of a whole network before a boundary, with each BatchNorm folded into
    its kernel; the output is the value at the boundary.

    In inference BatchNorm multiplies by ``weight / sqrt(running_var + epsilon)`` and adds ``bias -
    running_mean`` times that (Ioffe & Szegedy 2015, algorithm 2); other kernels and biases of the
    convolution before it do the same (Jacob et al. 2018, "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference", 3.2). A BatchNorm stays if it follows
    another kind of operation, or a value that something else reads too. Folded numbers are computed
    in float64 and kept in the dtype of the kernel.

    ``tensors`` are at least those of the prefix.
    """
    readers = blueprint.consumers()
    before = {o.name: o for o in blueprint.operations[: boundary.index]}
    folded: dict[str, Operation] = {}
    numbers = dict(tensors)
    for operation in before.values():
        source = before.get(operation.inputs[0])
        if (
            operation.kind == "batch_norm"
            and source is not None
            and source.kind in KERNELS
            and len(readers[source.name]) == 1
        ):
            del folded[source.name]
            folded[operation.name], joined_numbers = _join(source, operation, tensors)
            numbers |= joined_numbers
        else:
            folded[operation.name] = operation
    used = {tensor: numbers[tensor] for o in folded.values() for tensor in o.tensors.values()}
    # Only the boundary's value is read later, so nothing after it is computed.
    end = list(folded).index(boundary.value) + 1
    return Network.of(blueprint, list(folded.values())[:end], used)


def _join(
    kernel: Operation, norm: Operation, tensors: dict[str, Array]
) -> tuple[Operation, dict[str, Array]]:
    """Join a convolution or dense layer and the BatchNorm after it, under the latter's name."""
    weight = tensors[kernel.tensors["weight"]]

    def of(operation: Operation, role: str, default: float) -> Array:
        if role in operation.tensors:
            return tensors[operation.tensors[role]].astype(np.float64)
        return np.full(len(weight), default)

    variance = of(norm, "running_var", 1.0)
    factor = of(norm, "weight", 1.0) / np.sqrt(variance + norm.attributes["epsilon"])
    offset = of(norm, "bias", 0.0) - of(norm, "running_mean", 0.0) * factor
    # New names: a kernel that two layers share is folded with the BatchNorm of each.
    names = {role: f"{norm.name}.folded_{role}" for role in ("weight", "bias")}
    numbers = {
        names["weight"]: weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
        names["bias"]: of(kernel, "bias", 0.0) * factor + offset,
    }
    joined = kernel.model_copy(update={"name": norm.name, "tensors": names})
    return joined, {name: array.astype(weight.dtype) for name, array in numbers.items()}
